from __future__ import annotations

import io
import json
import os
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from bagoftricks.data import check as check_module
from bagoftricks.data.check import DataCheck, check
from bagoftricks.data.folder import read_folder
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.samples import sample_grid
from bagoftricks.errors import RunError, UserError
from bagoftricks.reports.datacheck import balance_chart, tables, write_check
from tests.data.test_duplicates import photo


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A folder with sides, and one fault of each kind."""
    root = tmp_path / "faulty"
    for i, (side, name) in enumerate((s, c) for s in ("train", "val", "test") for c in ("cat", "dog", "owl")):
        (root / side / name).mkdir(parents=True)
        for k in range(12 if side == "train" else 2):
            picture = photo(100 * i + k).convert("L" if name == "owl" else "RGB")
            picture.save(root / side / name / f"{k:02d}.jpg", quality=90)
    train = root / "train"
    shutil.copy(train / "cat/00.jpg", root / "val/cat/copy.jpg")  # across sides
    Image.open(train / "dog/01.jpg").resize((200, 150)).save(root / "test/dog/small.png")
    shutil.copy(train / "cat/02.jpg", train / "dog/mislabelled.jpg")  # across classes
    ImageOps.mirror(Image.open(train / "cat/03.jpg")).save(train / "cat/mirror.png")  # within a class
    (train / "dog/empty.jpg").write_bytes(b"")
    (train / "dog/cut.jpg").write_bytes((train / "dog/00.jpg").read_bytes()[:2000])
    photo(901, (500, 100)).save(train / "dog/long.png")
    photo(902).resize((40, 40)).save(train / "dog/tiny.png")
    for name in ("notes.txt", "more.TXT", ".hidden"):
        (train / "cat" / name).write_text("x")
    (train / "cat/nested").mkdir()
    (root / "extra").mkdir()
    return root


@pytest.mark.parametrize(("bits", "told"), [(12, True), (14, True), (16, False)])
def test_images_of_twelve_bits_in_sixteen_are_told(tmp_path: Path, bits: int, told: bool) -> None:
    draw = np.random.default_rng(0)
    for i in range(6):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        pixels = draw.integers(2 ** (bits - 1), 2**bits, (64, 64), dtype=np.uint16)
        Image.fromarray(pixels).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    found = check(read_folder(tmp_path))
    assert found.colours.faint == 6 * told
    assert any(one.startswith("6 images of 16 bits use less than a quarter") for one in found.findings) == told


def test_every_fault_is_found(faulty: Path) -> None:
    found = check(read_folder(faulty), workers=2)
    assert (found.images, found.undecodable) == (56, 2)
    assert found.sides == {"train": 42, "val": 7, "test": 7}
    assert found.counts == {"cat": 16, "dog": 19, "owl": 14}  # without test
    assert [(one.name, one.class_name) for one in found.broken] == [
        ("train/dog/cut.jpg", "dog"),
        ("train/dog/empty.jpg", "dog"),
    ]
    copies = found.copies
    assert copies.pairs == {"exact": 2, "near": 1, "mirrored": 1}
    assert copies.across_classes == {"exact": 1, "near": 0, "mirrored": 0}
    assert copies.across_sides == {"train-test": 1, "train-val": 1}
    assert (copies.images, copies.surplus) == (8, 4)
    assert copies.by_class == {"cat": 2, "dog": 1}
    assert [(one.classes, one.pairs) for one in copies.shared] == [(("cat", "dog"), 1)]
    assert [one.kind for one in copies.listed] == ["exact", "near", "exact", "mirrored"]
    assert set(copies.listed[0].sides) == {"train", "val"}
    assert set(copies.listed[1].names) == {"train/dog/01.jpg", "test/dog/small.png"}
    assert copies.listed[2].classes == ("cat", "dog")
    assert found.sizes is not None
    assert (found.sizes.width, found.sizes.height) == ((40, 320.0, 500), (40, 240.0, 240))
    assert (found.sizes.small, found.sizes.small_examples) == (1, ("train/dog/tiny.png",))
    assert (found.sizes.elongated, found.sizes.elongated_examples) == (1, ("train/dog/long.png",))
    assert found.colours.grey_classes == ("owl",)
    assert (found.colours.grey, found.colours.modes["L"]) == (16, 16)
    assert found.files.suffixes == {".txt": 2, ".hidden": 1}
    assert found.files.folders == ("extra", "train/cat/nested")


def test_findings_come_in_the_order_of_their_weight(faulty: Path) -> None:
    findings = check(read_folder(faulty)).findings
    starts = (
        "2 images cannot be decoded",
        "Copies lie on two sides of the given split, 2 pairs (train-test 1, train-val 1)",
        "Copies have two labels, 1 pair (cat and dog 1)",
        "Copies lie within a class, 3 pairs (1 exact, 1 near, 1 mirrored; most in cat 2, dog 1)",
        "1 class is all grey (owl)",
        "1 image has a short side below 64 pixels (train/dog/tiny.png)",
        "1 image is at least three times as long as short (train/dog/long.png)",
        "3 files are left out, not listed as images: .txt 2, .hidden 1",
        "2 folders are left out: extra, train/cat/nested",
    )
    assert len(findings) == len(starts)
    for finding, start in zip(findings, starts, strict=True):
        assert finding.startswith(start)
        assert "\n" not in finding


def test_nothing_is_said_of_a_sound_folder(tmp_path: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for k in range(10):
            photo(100 * label + k).save(tmp_path / name / f"{k}.jpg")
    found = check(read_folder(tmp_path))
    assert found.findings == ()
    assert found.sides == {"pool": 20}
    assert found.copies.across_sides == {}


def test_uneven_and_small_classes(tmp_path: Path) -> None:
    for label, (name, count) in enumerate((("cat", 3), ("dog", 12))):
        (tmp_path / name).mkdir()
        for k in range(count):
            photo(100 * label + k).save(tmp_path / name / f"{k}.jpg")
    uneven, few = check(read_folder(tmp_path)).findings
    assert "dog has 12 images, cat 3 (4.0 to 1)" in uneven
    assert "always would give Top-1 0.800" in uneven
    assert few.startswith("1 class has fewer than 10 images (cat)")


def test_json_takes_any_name(tmp_path: Path) -> None:
    if sys.platform == "darwin":
        pytest.skip("file names are UTF-8 there")
    for name in (b"c\xff", b"d"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        for k in range(2):
            photo(k).save(folder / os.fsdecode(b"%d\xfe.jpg" % k))
    index = read_folder(tmp_path)
    found = check(index)
    text = json.dumps(found.to_dict(), ensure_ascii=False, allow_nan=False)
    text.encode()
    value = json.loads(text)
    assert value["classes"] == 2
    assert value["copies"]["pairs"]["exact"] == 2
    assert value["findings"][0].startswith("Copies have two labels")
    paths = write_check(found, index, tmp_path.parent / "out", index.classes)
    assert all(path.is_file() for path in paths)
    assert len(paths) == 5


def test_lists_are_bounded_and_totals_are_not(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "LISTED", 1)
    found = check(read_folder(faulty))
    assert (len(found.broken), found.undecodable) == (1, 2)
    assert (len(found.copies.listed), sum(found.copies.pairs.values())) == (1, 4)


def test_digits_have_no_copies_and_are_small(digits: ImageIndex) -> None:
    found = check(digits)
    assert sum(found.copies.pairs.values()) == 0
    assert found.sizes is not None
    assert (found.sizes.width, found.sizes.small) == ((8, 8.0, 8), len(digits))
    assert found.files.folders == ()
    (only,) = found.findings
    assert "short side below 64 pixels" in only


def test_all_images_broken(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for k in range(2):
            (tmp_path / name / f"{k}.jpg").write_text(f"{name}{k}")
    index = read_folder(tmp_path)
    found = check(index)
    assert (found.undecodable, found.sizes, found.colours.grey_classes) == (4, None, ())
    written = write_check(found, index, tmp_path.parent / "out")
    assert [path.name for path in written] == ["check.json", "balance.svg"]
    with pytest.raises(RunError, match="no image of cat can be decoded"):
        sample_grid(index, "cat")


def picture_of(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        return image.convert("RGB")


def test_the_grid_shows_the_class_asked_for(photos: Path) -> None:
    index = read_folder(photos)
    first = sample_grid(index, "dog", rows=2, columns=3)
    assert first == sample_grid(index, "dog", rows=2, columns=3)
    assert first != sample_grid(index, "cat", rows=2, columns=3)
    image = picture_of(first)
    assert image.width < image.height * 3
    mean = np.asarray(image)[40:].reshape(-1, 3)
    coloured = mean[np.ptp(mean.astype(int), axis=1) > 60].mean(axis=0)
    assert int(np.argmax(coloured)) == 1  # dogs are green
    with pytest.raises(UserError, match="unknown class 'dgo': did you mean 'dog'"):
        sample_grid(index, "dgo")


def test_the_grid_of_classes_has_as_many_as_fit(photos: Path) -> None:
    index = read_folder(photos)
    three, two = picture_of(sample_grid(index, None, 1, 3)), picture_of(sample_grid(index, None, 1, 2))
    assert three.height == two.height
    assert three.width > two.width
    assert picture_of(sample_grid(index, None, 3, 1)).height > three.height


def test_the_grid_leaves_out_broken_images_and_the_test_set(photos: Path) -> None:
    index = read_folder(photos)
    for k in range(1, 10):
        (photos / "cat" / f"{k:02d}.jpg").write_bytes(b"")
    one = picture_of(sample_grid(index, "cat", 2, 5))
    assert one.width < picture_of(sample_grid(index, "dog", 2, 5)).width / 4
    locked = replace(index, given=tuple("test" if name == "cat/00.jpg" else "pool" for name in index.names))
    with pytest.raises(RunError, match="no image of cat"):
        sample_grid(locked, "cat")


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]


@pytest.mark.parametrize("classes", [3, 101, 300])
def test_the_chart_names_every_class_while_it_can(photos: Path, classes: int) -> None:
    counts = {f"class {k:03d}": 10 + k for k in range(classes)}
    found: DataCheck = replace(check(read_folder(photos)), counts=counts)
    shown = texts(balance_chart(found.name, found.counts).svg())
    named = [text for text in shown if text in counts]
    assert named == (sorted(counts, reverse=True) if classes < 200 else [])
    assert "images" in shown


def test_tables_and_files(faulty: Path, tmp_path: Path) -> None:
    index = read_folder(faulty)
    found = check(index)
    titles = [str(table.title) for table in tables(found)]
    assert titles == [
        "Images", "Images that cannot be decoded", "Pairs of copies", "Copies", "Classes that share images",
        "Classes (3)", "Sizes in pixels",
    ]  # fmt: skip
    written = write_check(found, index, tmp_path / "out", ["owl"])
    assert [path.name for path in written] == ["check.json", "balance.svg", "samples-owl.jpg", "samples.jpg"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in written)
    assert json.loads(written[0].read_text()) == json.loads(json.dumps(found.to_dict()))
    with pytest.raises(UserError, match="unknown class 'emu'"):
        write_check(found, index, tmp_path / "other", ["emu"])
    assert not (tmp_path / "other").exists()
