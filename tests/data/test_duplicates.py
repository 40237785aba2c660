from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from bagoftricks.data import duplicates
from bagoftricks.data import hashes as hashes_module
from bagoftricks.data.duplicates import (
    EXACT,
    KINDS,
    LARGE_GROUP,
    MIRRORED,
    NEAR,
    Pairs,
    all_pairs,
    clusters,
    exact_pairs,
    found_copies,
    hamming_pairs,
    near_pairs,
)
from bagoftricks.data.hashes import Hashes, hash_images, perceptual_hashes
from bagoftricks.data.index import ImageIndex


def photo(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with the spectrum of a photograph: smooth, coloured, with an object of its own shape."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(30, 190, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = draw.integers(0, size[0] - 60), draw.integers(0, size[1] - 60)
        w, h = draw.integers(20, 120, 2)
        pen.ellipse((x, y, x + w, y + h), fill=tuple(draw.integers(0, 200, 3).tolist()))
    return image


def drawing(seed: int) -> Image.Image:
    """Thin black lines on white."""
    draw = np.random.default_rng(seed)
    image = Image.new("RGB", (300, 300), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(8):
        pen.line(tuple(draw.integers(20, 280, 4).tolist()), fill="black", width=2)
    return image


def folder_of(root: Path, files: dict[str, Image.Image | bytes], classes: tuple[str, ...] = ("a", "b")) -> ImageIndex:
    """An index over files that are written here; the class is the name's first letter."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, bytes):
            (root / name).write_bytes(content)
        else:
            content.save(root / name, quality=92)
    labels = np.array([classes.index(name[0]) for name in files], dtype=np.int64)
    return ImageIndex("made", classes, labels, tuple(files), root=root)


def found(index: ImageIndex) -> dict[tuple[str, str], str]:
    pairs = all_pairs(hash_images(index))
    assert np.all(pairs.first < pairs.second)
    return {
        (index.names[i], index.names[j]): KINDS[kind]
        for i, j, kind in zip(pairs.first, pairs.second, pairs.kind, strict=True)
    }


def saved(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, **options)  # type: ignore[arg-type]
    return out.getvalue()


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "reencoded": lambda image: saved(image, format="JPEG", quality=40),
    "png": lambda image: saved(image, format="PNG"),
    "halved": lambda image: saved(image.resize((160, 120)), format="JPEG"),
    "enlarged": lambda image: saved(image.resize((800, 600)), format="PNG"),
    "stretched": lambda image: saved(image.resize((300, 260)), format="PNG"),
    "darker": lambda image: saved(ImageEnhance.Brightness(image).enhance(0.7), format="JPEG"),
    "brighter": lambda image: saved(ImageEnhance.Brightness(image).enhance(1.1), format="JPEG"),
    "grey": lambda image: saved(image.convert("L"), format="JPEG"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_changed_copy_is_near_and_others_are_not(tmp_path: Path, change: str, seed: int) -> None:
    copy = CHANGES[change](photo(seed))
    others = {f"b{k}.jpg": photo(100 + k) for k in range(4)}
    index = folder_of(tmp_path, {"a.jpg": photo(seed), "acopy.png": copy, **others})
    assert found(index) == {("a.jpg", "acopy.png"): "near"}


def test_an_exact_copy_is_exact_and_takes_part_once(tmp_path: Path) -> None:
    data, again = (saved(photo(1), format="JPEG", quality=q) for q in (90, 50))
    index = folder_of(tmp_path, {"a1.jpg": data, "a2.jpg": data, "b.jpg": again})
    assert found(index) == {("a1.jpg", "a2.jpg"): "exact", ("a1.jpg", "b.jpg"): "near"}
    assert len(set(clusters(index, hash_images(index)).tolist())) == 1


def test_a_mirror_image_is_a_kind_of_its_own(tmp_path: Path) -> None:
    index = folder_of(tmp_path, {"a.jpg": photo(1), "b.jpg": ImageOps.mirror(photo(1)), "a2.jpg": photo(2)})
    assert found(index) == {("a.jpg", "b.jpg"): "mirrored"}


def test_a_picture_that_is_its_own_mirror_image_counts_once(tmp_path: Path) -> None:
    left = np.asarray(photo(1))[:, :160]
    both = Image.fromarray(np.concatenate([left, left[:, ::-1]], axis=1))
    index = folder_of(tmp_path, {"a.png": both, "b.jpg": saved(both, format="JPEG", quality=80)})
    assert found(index) == {("a.png", "b.jpg"): "near"}


def test_an_image_turned_by_its_exif_is_what_it_shows(tmp_path: Path) -> None:
    turned = photo(1).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    index = folder_of(tmp_path, {"a.jpg": photo(1), "b.jpg": saved(turned, format="JPEG", exif=exif)})
    assert found(index) == {("a.jpg", "b.jpg"): "near"}
    hashes = hash_images(index)
    assert (hashes.width.tolist(), hashes.height.tolist()) == ([320, 320], [240, 240])


def test_different_photographs_and_drawings_are_no_copies(tmp_path: Path) -> None:
    files = {f"a{k}.jpg": photo(k) for k in range(40)} | {f"b{k}.png": drawing(k) for k in range(40)}
    assert found(folder_of(tmp_path, files)) == {}


def test_images_of_one_colour_are_compared_exactly_only(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 3, (2, 200, 200, 3), dtype=np.uint8)
    colours = {f"a{k}.png": Image.new("RGB", (200, 200), colour) for k, colour in enumerate(("black", "white", "red"))}
    index = folder_of(
        tmp_path,
        {
            **colours,
            "b0.png": Image.fromarray(noise[0]),
            "b1.png": Image.fromarray(noise[1]),
            "bx.png": colours["a0.png"],
        },
    )
    assert not hash_images(index).comparable.any()
    assert found(index) == {("a0.png", "bx.png"): "exact"}


def test_small_originals_are_compared_by_pixels(tmp_path: Path) -> None:
    tiny, other = photo(1).resize((30, 40)), photo(1).resize((31, 40))
    index = folder_of(tmp_path, {"a.png": tiny, "b.bmp": tiny, "a2.png": other})
    assert found(index) == {("a.png", "b.bmp"): "exact"}


def test_images_in_memory_are_compared_by_pixels(digits: ImageIndex) -> None:
    assert digits.pixels is not None
    doubled = replace(
        digits,
        labels=np.tile(digits.labels, 2),
        names=tuple(map(str, range(2 * len(digits)))),
        pixels=np.concatenate([digits.pixels, digits.pixels]),
    )
    hashes = hash_images(doubled)
    pairs = all_pairs(hashes)
    assert set(hashes.modes) == {"RGB"}
    assert set(pairs.kind.tolist()) == {EXACT}
    expected = [
        (i, j)
        for i, j in combinations(range(len(doubled)), 2)
        if np.array_equal(doubled.pixels[i], doubled.pixels[j])  # type: ignore[index]
    ]
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == expected
    assert len(expected) >= len(digits)


def test_broken_files_are_named_with_their_reason(tmp_path: Path) -> None:
    whole = saved(photo(1), format="JPEG")
    files = {"a.jpg": whole, "a1.jpg": b"", "b1.jpg": whole[:2000], "b2.png": b"hello", "b3.jpg": b""}
    index = folder_of(tmp_path, dict(files))
    hashes = hash_images(index, workers=3)
    assert [bool(error) for error in hashes.errors] == [False, True, True, True, True]
    assert "truncated" in hashes.errors[2]
    assert all(str(tmp_path) not in error and "0x" not in error for error in hashes.errors)
    assert hashes.width.tolist() == [320, 0, 0, 0, 0]
    assert hashes.comparable.tolist() == [True, False, False, False, False]
    assert found(index) == {("a1.jpg", "b3.jpg"): "exact"}


def test_a_file_that_is_gone_is_broken_too(tmp_path: Path) -> None:
    index = folder_of(tmp_path, {"a.jpg": photo(1), "b.jpg": photo(2)})
    (tmp_path / "b.jpg").unlink()
    assert hash_images(index).errors == ("", "No such file or directory")


def test_perceptual_hashes_follow_the_definition() -> None:
    from scipy.fft import dctn

    grey = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    plain, flipped = perceptual_hashes(grey)
    for image, hashed, mirrored in zip(grey, plain, flipped, strict=True):
        for shown, value in ((image, hashed), (image[:, ::-1], mirrored)):
            low = dctn(shown.astype(float), type=2)[1:9, 1:9].reshape(-1)
            bits = low > np.median(low) + 0.01 * np.sqrt((low**2).mean())
            assert np.array_equal(np.unpackbits(np.array([value]).view(np.uint8)).astype(bool), bits)


@pytest.mark.parametrize("block", [4_000_000, 700])
def test_the_hamming_search_agrees_with_a_loop(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("bagoftricks.data.duplicates.BLOCK", block)
    draw = np.random.default_rng(0)
    left = draw.integers(0, 2**64, 150, dtype=np.uint64)
    for i in range(100, 150):  # near another, in some bits
        for bit in draw.integers(0, 64, i % 10):
            left[i] ^= np.uint64(1) << np.uint64(bit)
        left[i - 100] = left[i] ^ (np.uint64(1) << np.uint64(i % 64))
    right = left[draw.permutation(150)]
    for other in (left, right):
        expected = {
            (i, j, bits)
            for i, j in combinations(range(150), 2)
            if (bits := (int(left[i]) ^ int(other[j])).bit_count()) <= 6
        }
        got = [t for part in hamming_pairs(left, other, 6) for t in zip(*(a.tolist() for a in part), strict=True)]
        assert len(got) == len(set(got))
        assert set(got) == expected
        assert expected


def test_a_smaller_distance_finds_fewer(tmp_path: Path) -> None:
    brighter = ImageEnhance.Contrast(photo(5)).enhance(1.3)
    index = folder_of(tmp_path, {"a.png": photo(5), "b.png": brighter, "a2.png": photo(5).resize((200, 150))})
    hashes = hash_images(index)
    assert len(near_pairs(hashes, distance=64, difference=9.0)) == 3
    assert len(near_pairs(hashes, distance=-1)) == 0


def test_clusters_are_transitive_and_numbered_by_image(tmp_path: Path) -> None:
    data = saved(photo(1), format="JPEG", quality=95)
    files = {
        "a0.jpg": data, "b1.jpg": photo(7), "a2.jpg": data, "b3.jpg": saved(photo(1), format="JPEG", quality=30),
        "a4.jpg": saved(ImageOps.mirror(photo(1)), format="JPEG"), "b5.jpg": photo(8),
    }  # fmt: skip
    index = folder_of(tmp_path, files)
    numbers = clusters(index, hash_images(index)).tolist()
    assert numbers[0] == numbers[2] == numbers[3] == numbers[4]
    assert len({numbers[0], numbers[1], numbers[5]}) == 3
    assert clusters(index, hash_images(index)).dtype == np.int64


def test_a_large_group_of_equal_files_stays_a_chain() -> None:
    n = LARGE_GROUP + 20
    index = ImageIndex(
        "made", ("a",), np.zeros(n, np.int64), tuple(map(str, range(n))), pixels=np.zeros((n, 8, 8, 3), np.uint8)
    )
    hashes = hash_images(index)
    pairs = exact_pairs(hashes)
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(i, i + 1) for i in range(n - 1)]
    assert len(set(clusters(index, hashes).tolist())) == 1


def test_kinds_are_numbered_as_named() -> None:
    assert [KINDS[kind] for kind in (EXACT, NEAR, MIRRORED)] == ["exact", "near", "mirrored"]


def test_the_cache_is_used_and_follows_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, Image.Image | bytes] = {"a.jpg": photo(1), "b.jpg": photo(2), "b2.jpg": b"no"}
    index = folder_of(tmp_path / "data", files)
    seen: list[int] = []
    first = hash_images(index, cache=tmp_path / "cache", workers=2, progress=seen.append)
    assert seen == [1, 2, 3]
    with monkeypatch.context() as patch:
        patch.setattr(hashes_module, "_look", lambda *_: pytest.fail("looked again"))
        again = hash_images(replace(index), cache=tmp_path / "cache")
    for name in (*hashes_module.ARRAYS, "modes", "errors"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        if name in hashes_module.ARRAYS:
            assert getattr(first, name).dtype == getattr(again, name).dtype
    photo(3).save(tmp_path / "data" / "b2.jpg")
    changed = hash_images(replace(index), cache=tmp_path / "cache")
    assert changed.errors == ("", "", "")


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other version", "too short", "lacks an array"])
def test_a_damaged_cache_is_replaced(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index = folder_of(tmp_path / "data", {"a.jpg": photo(1), "b.jpg": photo(2)})
    right = hash_images(index, cache=tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    if damage == "other version":
        with monkeypatch.context() as patch:
            patch.setattr(hashes_module, "FORMAT", 0)
            hashes_module._save(replace(right, width=right.width + 1), path)
    elif damage in ("too short", "lacks an array"):
        with np.load(path) as kept:
            arrays = dict(kept)
        arrays = {k: v for k, v in arrays.items() if k != "phash"}
        np.savez(path, **arrays, **({"phash": right.phash[:1]} if damage == "too short" else {}))
    else:
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"not at all"}[damage])
    again = hash_images(replace(index), cache=tmp_path / "cache")
    assert np.array_equal(right.phash, again.phash)
    assert np.array_equal(right.width, again.width)
    assert hashes_module._load(path, 2) is not None
    assert list((tmp_path / "cache").iterdir()) == [path]


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    index = folder_of(tmp_path / "data", {"a.jpg": photo(1), "b.jpg": photo(2)})
    (tmp_path / "file").write_text("in the way")
    assert len(hash_images(index, cache=tmp_path / "file")) == 2
    assert (tmp_path / "file").read_text() == "in the way"


def test_caltech_101_shares_what_was_seen_by_eye(shared: Path) -> None:
    root = shared / "data" / "caltech-101" / "101_ObjectCategories"
    if not root.is_dir():
        pytest.skip(f"no Caltech-101 at {root}")
    names = [f"{c}/image_{n:04d}.jpg" for c in ("Faces", "Faces_easy") for n in (1, 114, 115)]
    names += [f"Leopards/image_{n:04d}.jpg" for n in (1, 2, 3, 101, 102, 103)]
    classes = ("Faces", "Faces_easy", "Leopards")
    labels = np.array([classes.index(name.split("/")[0]) for name in names], dtype=np.int64)
    assert found(ImageIndex("part", classes, labels, tuple(names), root=root)) == {
        ("Faces/image_0114.jpg", "Faces_easy/image_0114.jpg"): "near",
        **{(f"Leopards/image_000{n}.jpg", f"Leopards/image_010{n}.jpg"): "mirrored" for n in (1, 2, 3)},
    }


def test_of_many_alike_not_every_pair_is_kept(tmp_path: Path) -> None:
    """A fixed camera: what belongs together is known, without memory for the square of its images."""
    one = hash_images(folder_of(tmp_path, {"a.jpg": photo(1), "b.jpg": photo(2)}))
    each = 3 * LARGE_GROUP
    many = one.at(np.repeat([0, 1], each))
    numbers = np.arange(2 * each, dtype=np.uint8 if each < 100 else np.int64)
    digests = np.zeros((2 * each, 32), np.uint8)
    digests[:, 0], digests[:, 1] = numbers % 256, numbers // 256
    pairs = near_pairs(replace(many, digests=digests))
    assert each - 1 <= len(pairs) / 2 < each * (each - 1) / 2
    index = ImageIndex("made", ("a",), np.zeros(2 * each, np.int64), tuple(map(str, numbers)), root=tmp_path)
    found_ = clusters(index, many, pairs)
    assert len(set(found_[:each].tolist())) == len(set(found_[each:].tolist())) == 1
    assert len(set(found_.tolist())) == 2


def test_looks_come_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, Image.Image | bytes] = {f"a{i}.jpg": photo(i, (160, 120)) for i in range(7)}
    index = folder_of(tmp_path, files | {"b.jpg": b"rubbish"})
    whole, said = hash_images(index), []
    monkeypatch.setattr(hashes_module, "BLOCK", 3)
    parts = hash_images(index, workers=2, progress=said.append)
    assert said == list(range(1, 9))
    for name in hashes_module.ARRAYS:
        assert np.array_equal(getattr(parts, name), getattr(whole, name)), name
    assert (parts.modes, parts.errors, parts.passing) == (whole.modes, whole.errors, whole.passing)


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_copies_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None) -> None:
    """Each run of a study asks for them, and comparing every image with every other takes its time."""
    index = folder_of(
        tmp_path / "photos",
        {"a1.jpg": photo(1), "a2.jpg": saved(photo(1), format="JPEG", quality=70), "b.jpg": photo(2)},
    )
    hashes, cache, searched = hash_images(index), tmp_path / "cache", []

    def searching(hashes: Hashes) -> Pairs:
        searched.append(len(hashes))
        return all_pairs(hashes)

    monkeypatch.setattr(duplicates, "all_pairs", searching)
    first, again = (found_copies(index, hashes, cache) for _ in range(2))
    assert searched == [3]
    for pairs in (first, again):
        assert [part.tolist() for part in vars(pairs).values()] == [[0], [1], [NEAR]]
    (kept,) = cache.iterdir()
    if damage is None:  # other hashes of the same content
        hashes = replace(hashes, phash=hashes.phash[[2, 1, 0]])
    else:
        kept.write_bytes(damage)
    found_copies(index, hashes, cache)
    assert searched == [3, 3]
