from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bagoftricks.data import caltech101
from bagoftricks.data.digits import read_digits
from bagoftricks.data.folder import read_folder
from bagoftricks.data.index import decode
from bagoftricks.data.sources import open_data
from bagoftricks.errors import RunError, UserError


def test_flat(photos: Path) -> None:
    (photos / "cat" / "notes.txt").write_text("no image")
    (photos / "cat" / ".hidden.jpg").write_text("no image")
    (photos / "readme.md").write_text("no class")
    shutil.copy(photos / "owl" / "00.jpg", photos / "owl" / "LOUD.JPEG")
    index = read_folder(photos)
    assert index.classes == ("cat", "dog", "owl")
    assert index.counts.tolist() == [10, 10, 11]
    assert index.names[0] == "cat/00.jpg"
    assert index.given is None


def test_classes_are_in_lexical_order(photos: Path) -> None:
    (photos / "dog").rename(photos / "Zebra")
    assert read_folder(photos).classes == ("Zebra", "cat", "owl")


@pytest.mark.parametrize("val", ["val", "validation"])
def test_given_split(photos: Path, tmp_path: Path, val: str) -> None:
    root = tmp_path / "split"
    for side in ("train", val, "test"):
        shutil.copytree(photos, root / side)
    index = read_folder(root)
    assert index.classes == ("cat", "dog", "owl")
    assert index.given is not None
    assert [index.given.count(side) for side in ("train", "val", "test")] == [30, 30, 30]
    assert index.describe()["images"] == 60
    assert index.counts.tolist() == [20, 20, 20]


def test_train_and_test_only(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for side in ("train", "test"):
        shutil.copytree(photos, root / side)
    index = read_folder(root)
    assert index.given is not None
    assert [index.given.count(side) for side in ("pool", "test")] == [30, 30]


def test_a_test_folder_changes_no_identity(photos: Path, tmp_path: Path) -> None:
    before = read_folder(photos)
    root = tmp_path / "with-test"
    shutil.copytree(photos, root / "train")
    shutil.copytree(photos, root / "test")
    for path in (root / "test").rglob("0[1-9].jpg"):
        path.unlink()
    first = read_folder(root)
    fingerprint, content = first.fingerprint, first.content
    shutil.rmtree(root / "test" / "cat")
    assert read_folder(root).fingerprint == fingerprint
    assert read_folder(root).content != content
    assert before.content == before.fingerprint


def test_a_class_in_test_only(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "d" / "train")
    shutil.copytree(photos, tmp_path / "d" / "test")
    (tmp_path / "d" / "test" / "cat").rename(tmp_path / "d" / "test" / "lynx")
    with pytest.raises(UserError, match="class 'lynx' is in test only"):
        read_folder(tmp_path / "d")


def test_sides_in_any_letter_case(photos: Path, tmp_path: Path) -> None:
    for side in ("Train", "VAL", "Test"):
        shutil.copytree(photos, tmp_path / "data" / side)
    index = read_folder(tmp_path / "data")
    assert (index.classes, set(index.given or ())) == (("cat", "dog", "owl"), {"train", "val", "test"})
    assert [len(index.on_side(side)) for side in ("train", "val", "test")] == [30, 30, 30]


def test_what_may_be_meant_for_a_side_is_not_passed_over(photos: Path, tmp_path: Path) -> None:
    for side in ("train", "test", "Dev"):
        shutil.copytree(photos, tmp_path / "data" / side)
    with pytest.raises(UserError, match="'Dev' beside train is none of test, train, val, valid, validation"):
        read_folder(tmp_path / "data")
    (tmp_path / "data" / "train").rename(tmp_path / "data" / "learn")
    with pytest.raises(UserError, match="Dev: holds folders, where the images of a class belong"):
        read_folder(tmp_path / "data")


@pytest.mark.parametrize("quick", [0.0, 1e9])
def test_contents_are_in_the_order_of_the_names(tmp_path: Path, quick: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether threads read them or one."""
    monkeypatch.setattr("bagoftricks.data.index.QUICK_S", quick)
    for i in range(150):
        path = tmp_path / "ab"[i % 2] / f"{i:03}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d" % i)
    index = read_folder(tmp_path)
    wanted = [hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in index.names]
    (tmp_path / index.names[70]).unlink()
    wanted[70] = b""
    assert list(index.contents) == wanted


def test_a_class_may_be_called_train(photos: Path) -> None:
    (photos / "dog").rename(photos / "train")
    assert read_folder(photos).classes == ("cat", "owl", "train")


def test_fingerprint_is_of_the_content(photos: Path, tmp_path: Path) -> None:
    one = read_folder(photos).fingerprint
    moved = tmp_path / "elsewhere"
    shutil.copytree(photos, moved)
    os.utime(moved / "cat" / "00.jpg")
    assert read_folder(moved).fingerprint == one
    shutil.copy(moved / "cat" / "01.jpg", moved / "cat" / "00.jpg")
    assert read_folder(moved).fingerprint != one


def wrong(root: Path, case: str) -> Path:
    if case == "missing":
        return root / "none"
    if case == "no classes":
        shutil.rmtree(root)
        root.mkdir()
    if case == "no images":
        (root / "empty").mkdir()
    if case == "one class":
        shutil.rmtree(root / "dog")
        shutil.rmtree(root / "owl")
    if case == "one image":
        for i in range(1, 10):
            (root / "dog" / f"{i:02d}.jpg").unlink()
    return root


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "no such folder"),
        ("no classes", "no class folders"),
        ("no images", "empty: no images in it"),
        ("one class", "one class only \\('cat'\\)"),
        ("one image", "class 'dog' has one image"),
    ],
)
def test_refuses(photos: Path, case: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_data(wrong(photos, case))


def test_a_class_must_be_on_both_given_sides(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for side in ("train", "val"):
        shutil.copytree(photos, root / side)
    shutil.rmtree(root / "val" / "owl")
    with pytest.raises(UserError, match="class 'owl' has no image in val"):
        read_folder(root)


def test_decode_shrinks_but_never_enlarges(photos: Path) -> None:
    path = photos / "cat" / "00.jpg"
    whole = decode(path)
    assert decode(path, 1000).shape == whole.shape
    small = decode(path, 20)
    assert min(small.shape[:2]) == 20
    assert small.shape[0] / small.shape[1] == pytest.approx(whole.shape[0] / whole.shape[1], rel=0.05)


def test_decode_of_a_large_jpeg_agrees_with_a_plain_resize(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (480, 1))] * 3, 2)).save(tmp_path / "a.jpg", quality=95)
    small = decode(tmp_path / "a.jpg", 60)
    assert small.shape == (60, 80, 3)
    expected = np.linspace(0, 255, 80)
    assert np.abs(small[30, :, 0] - expected).max() < 5


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_decode_gives_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (9, 7), (200, 30, 40)).convert(mode).save(tmp_path / f"a.{suffix}")
    assert decode(tmp_path / f"a.{suffix}").shape == (7, 9, 3)


def test_sixteen_bits_keep_their_upper_half(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (4, 1))).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png")[0, :, 0], ramp >> 8)


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 3), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png") == 255).all()


def test_floats_are_refused(tmp_path: Path) -> None:
    Image.new("F", (3, 3)).save(tmp_path / "a.tif")
    with pytest.raises(RunError, match="32-bit pixels of unknown range"):
        decode(tmp_path / "a.tif")


def test_decode_turns_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (10, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").shape == (10, 4, 3)


def test_decode_names_the_broken_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"<html>")
    with pytest.raises(RunError, match=r"a\.jpg: cannot be decoded"):
        decode(tmp_path / "a.jpg")


def test_digits() -> None:
    index = read_digits()
    assert (len(index), index.num_classes) == (1797, 10)
    assert index.read(0).shape == (8, 8, 3)
    assert index.read(0).max() > 200


def test_caltech101(shared: Path) -> None:
    for folder in (shared / "data" / "caltech-101", shared / "data" / "caltech-101" / "101_ObjectCategories"):
        index = open_data(folder)
        assert (len(index), index.num_classes, index.name) == (8677, 101, "caltech-101")
        assert caltech101.CLUTTER not in index.classes
        assert index.counts[index.classes.index("airplanes")] == 800


def test_heic_through_the_extra(photos: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    pixels[:, :, 1] = 200
    Image.fromarray(pixels).save(photos / "cat" / "phone.HEIC", format="HEIF")
    index = read_folder(photos)
    i = index.names.index("cat/phone.HEIC")
    image = index.read(i)
    assert image.shape == (60, 80, 3)
    assert abs(int(image[30, 40, 1]) - 200) < 12


def test_heic_without_the_extra_says_what_to_install(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (photos / "cat" / "phone.heic").write_bytes(b"x")
    index = read_folder(photos)
    with pytest.raises(RunError, match=r"the extra heic installs"):
        index.read(index.names.index("cat/phone.heic"))


@pytest.mark.parametrize("suffix", ["gif", "webp", "tiff", "bmp", "PNG", "JPG"])
def test_first_frame_and_letter_case(photos: Path, suffix: str) -> None:
    frames = [Image.fromarray(np.full((50, 60, 3), value, dtype=np.uint8)) for value in (40, 220)]
    path = photos / "cat" / f"movie.{suffix}"
    moving = suffix in ("gif", "webp", "tiff")
    frames[0].save(path, **({"save_all": True, "append_images": frames[1:]} if moving else {}))
    index = read_folder(photos)
    image = index.read(index.names.index(f"cat/movie.{suffix}"))
    assert image.shape == (50, 60, 3)
    assert abs(float(image.mean()) - 40) < 6


def test_a_missing_package_is_not_remembered(photos: Path, tmp_path: Path) -> None:
    """Images that need another package are looked at again once it is there."""
    from bagoftricks.data.hashes import hash_images

    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    Image.fromarray(np.zeros((60, 80, 3), dtype=np.uint8)).save(photos / "cat" / "phone.heic", format="HEIF")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        index = read_folder(photos)
        place = index.names.index("cat/phone.heic")
        assert "the extra heic" in hash_images(index, cache=tmp_path / "c").errors[place]
    assert hash_images(read_folder(photos), cache=tmp_path / "c").errors[place] == ""


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".pgm"])
def test_less_usual_suffixes_of_what_can_be_read(photos: Path, suffix: str) -> None:
    kind = "PPM" if suffix == ".pgm" else "JPEG"
    Image.fromarray(np.full((40, 40), 99, np.uint8)).save(photos / "cat" / f"grey{suffix}", format=kind)
    index = read_folder(photos)
    assert index.read(index.names.index(f"cat/grey{suffix}"))[20, 20].tolist() == [99, 99, 99]
