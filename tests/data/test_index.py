"""What decoding makes of sound files, however odd, and what an index knows of its files."""

from __future__ import annotations

import io
import pickle
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from bagoftricks.data import decoding
from bagoftricks.data.decoding import decode, decode_bytes
from bagoftricks.data.folder import read_folder
from bagoftricks.data.index import subset
from bagoftricks.data.metadata import check_tiff, orientation, plain_jpeg
from bagoftricks.data.reading import BadImageError
from tests.fuzz.samples import exif_block, picture, saved, valid_files


def whole(data: bytes, short_side: int | None = None) -> np.ndarray:  # type: ignore[type-arg]
    return decode_bytes(data, "some.jpg", short_side).pixels


def plainly(data: bytes) -> np.ndarray:  # type: ignore[type-arg]
    """As Pillow alone would."""
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        layer = upright.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))


@pytest.mark.parametrize(
    "name", sorted(set(valid_files()) - {"png 16 bits", "tiff 16 bits", "pgm 16 bits", "tiff float"})
)
def test_every_kind_is_read_as_pillow_does(name: str) -> None:
    data = valid_files()[name]
    assert np.array_equal(whole(data), plainly(data))


@pytest.mark.parametrize("name", ["png 16 bits", "tiff 16 bits", "pgm 16 bits"])
def test_sixteen_bits_keep_their_upper_half(name: str) -> None:
    values = (np.arange(28 * 40).reshape(28, 40) * 58).astype(np.uint16)
    assert np.array_equal(whole(valid_files()[name])[:, :, 0], values >> 8)


def test_a_bitmap_with_run_lengths() -> None:
    pixels = whole(valid_files()["bmp runs"])
    assert (pixels[0, :4] == (254, 1, 1)).all()
    assert (pixels[0, 4:] == (253, 2, 2)).all()


@pytest.mark.parametrize("name", ["gif moving", "apng", "webp moving", "tiff pages", "mpo"])
def test_the_first_frame_counts(name: str) -> None:
    first, second = np.asarray(picture()).astype(int), np.asarray(picture(seed=1)).astype(int)
    pixels = whole(valid_files()[name]).astype(int)
    assert np.abs(pixels - first).mean() < 12
    assert np.abs(pixels - second).mean() > 30


def test_a_first_frame_may_be_a_part_of_its_picture() -> None:
    data = bytearray(valid_files()["gif"])
    struct.pack_into("<HH", data, 6, 60, 50)  # of the screen; the frame is 40 x 28
    assert whole(bytes(data)).shape == (50, 60, 3)
    assert np.array_equal(whole(bytes(data)), plainly(bytes(data)))


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_set_upright_as_pillow_does(kind: str, turned: int) -> None:
    options = {"tiffinfo": {0x0112: turned}} if kind == "TIFF" else {"exif": exif_block(turned)}
    data = saved(picture(), kind, **options)
    found = decode_bytes(data, "a", None)
    assert np.array_equal(found.pixels, plainly(data))
    assert (found.height, found.width) == found.pixels.shape[:2]
    assert found.pixels.shape[:2] == ((40, 28) if turned >= 5 else (28, 40))


def test_xmp_says_it_where_exif_does_not() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    data = saved(picture(), "JPEG", xmp=xmp)
    assert whole(data).shape == (40, 28, 3)
    assert np.array_equal(whole(data), plainly(data))
    assert orientation(exif_block(3), xmp) == 3


def tiff_block(entries: bytes, count: int, order: str = "<", start: int = 8) -> bytes:
    return {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}LH", start, count) + entries


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_by_hand(order: str) -> None:
    for kind, form in ((3, "HHLHH"), (4, "HHLL")):
        rest = (0,) if kind == 3 else ()
        assert orientation(tiff_block(struct.pack(f"{order}{form}", 0x0112, kind, 1, 8, *rest), 1, order)) == 8


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"Exif\0\0",
        b"II*\0",
        b"garbage" * 50,
        tiff_block(struct.pack("<HHLHH", 0x0112, 3, 1, 0, 0), 1),
        tiff_block(struct.pack("<HHLHH", 0x0112, 3, 1, 9, 0), 1),
        tiff_block(struct.pack("<HHLHH", 0x0112, 3, 1, 65535, 0), 1),
        tiff_block(struct.pack("<HHLHH", 0x0112, 3, 2, 6, 6), 1),
        tiff_block(struct.pack("<HHLHH", 0x0112, 2, 1, 6, 0), 1),
        tiff_block(b"", 65535),
        tiff_block(b"", 1, start=2**32 - 1),
        tiff_block(struct.pack("<HHLL", 0x8769, 4, 1, 8), 1) + struct.pack("<L", 8),  # directories in a circle
        tiff_block(struct.pack("<HHLL", 0x9999, 7, 2**32 - 1, 0) * 5000, 5000),
    ],
)
def test_broken_exif_turns_nothing_and_costs_no_picture(block: bytes) -> None:
    assert orientation(block) == 1
    plain = saved(picture(), "JPEG", quality=95)
    for body in (block[:60_000], b"Exif\0\0" + block[:60_000]):
        segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
        assert np.array_equal(whole(plain[:2] + segment + plain[2:]), whole(plain))
    png = saved(picture(), "PNG", exif=block or b"x")
    assert np.array_equal(whole(png), np.asarray(picture()))


def test_metadata_of_many_segments_is_passed_over() -> None:
    """Pillow would join them, and read every entry of the directory as a part of its own: gigabytes."""
    plain = saved(picture(), "JPEG")
    body = b"Exif\0\0" + tiff_block(struct.pack("<HHLL", 0x9999, 7, 60_000, 0) * 4000, 4000)
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    assert np.array_equal(whole(plain[:2] + segment * 200 + plain[2:]), whole(plain))
    empty = b"\xff\xfe\0\x02"
    assert whole(plain[:2] + empty * 5000 + plain[2:]).shape == (28, 40, 3)
    with pytest.raises(BadImageError, match="too many segments"):
        whole(plain[:2] + empty * 20_000 + plain[2:])


def test_what_follows_the_end_of_a_jpeg_does_not_matter() -> None:
    plain = saved(picture(), "JPEG")
    for more in (b"\0" * 500, b"\xff\xd9" * 3, plain, b"\xff\xda\xff\xc4" * 100, b"<html>"):
        assert np.array_equal(whole(plain + more), whole(plain))
    assert plain_jpeg(plain + b"more").data == plain


def test_an_arithmetic_jpeg_is_read() -> None:
    data = saved(picture(), "JPEG")
    parts = re.sub(rb"\xff\xc4\x00\x1f.{29}|\xff\xc4\x00\xb5.{179}", b"", data, flags=re.DOTALL)
    assert parts.count(b"\xff\xc0") == 1
    coded = parts.replace(b"\xff\xc0", b"\xff\xc9")  # whatever its bits are, they mean some picture
    assert np.array_equal(whole(coded), plainly(coded))


@pytest.mark.parametrize(("name", "suffix"), [("png", "jpg"), ("jpeg", "png"), ("webp", "gif"), ("tiff", "heic")])
def test_the_content_counts_and_not_the_suffix(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(valid_files()[name])
    assert np.array_equal(decode(path), plainly(valid_files()[name]))


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA"])
def test_transparency_lies_on_white_in_strips_as_in_one(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    rgba = picture(mode="RGBA")
    rgba.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 40).astype(np.uint8), (28, 1))))
    image = rgba.quantize(16) if mode == "P" else rgba.convert(mode)
    data = saved(image, "PNG")
    assert np.array_equal(whole(data), plainly(data))
    monkeypatch.setattr(decoding, "STRIP_PIXELS", 90)
    assert np.array_equal(whole(data), plainly(data))


def test_a_large_picture_is_copied_in_strips_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "STRIP_PIXELS", 300)
    for name in ("png", "jpeg progressive", "png 16 bits"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decoding, "STRIP_PIXELS", 2**22)
            expected = whole(valid_files()[name])
        assert np.array_equal(whole(valid_files()[name]), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (20_000, 3), (3, 20_000)])
def test_extreme_shapes_are_used_and_bounded(size: tuple[int, int]) -> None:
    data = saved(Image.new("RGB", size, (9, 99, 199)), "PNG")
    assert whole(data).shape == (size[1], size[0], 3)
    small = whole(data, 64)
    assert min(small.shape) >= 1
    assert max(small.shape) <= max(8 * 64, 1)
    assert (small == (9, 99, 199)).all()


def test_a_long_picture_keeps_its_shape_up_to_eight_to_one() -> None:
    assert whole(saved(Image.new("RGB", (800, 100)), "PNG"), 50).shape == (50, 400, 3)
    assert whole(saved(Image.new("RGB", (1600, 100)), "PNG"), 50).shape == (25, 400, 3)


def test_a_tiff_of_absurd_tiles_is_refused() -> None:
    entries = [(256, 3, 1, 10), (257, 3, 1, 10), (322, 4, 1, 2**20), (323, 4, 1, 2**14)]
    data = tiff_block(b"".join(struct.pack("<HHLL", *entry) for entry in entries), len(entries)) + bytes(100)
    with pytest.raises(ValueError, match="too large tiles"):
        check_tiff(data)
    with pytest.raises(BadImageError, match="too large tiles"):
        whole(data)
    with pytest.raises(BadImageError, match="truncated"):
        whole(tiff_block(struct.pack("<HHLL", 0x9999, 7, 60_000, 0) * 4000, 4000))
    with pytest.raises(BadImageError, match="too many tiles"):
        whole(tiff_block(struct.pack("<HHLL", 273, 3, 2**19 + 1, 8), 1) + bytes(2**19))


def test_an_error_survives_its_way_between_processes(tmp_path: Path) -> None:
    with pytest.raises(BadImageError) as caught:
        decode(tmp_path / "none.jpg")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.reason, again.passing) == (str(caught.value), "No such file or directory", True)


def test_a_part_knows_what_the_whole_knows(photos: Path) -> None:
    index = read_folder(photos)
    fresh = subset(read_folder(photos), [3, 1, 25]).fingerprint
    assert len(set(index.contents)) == 30
    shutil.rmtree(photos)
    assert subset(index, [3, 1, 25]).fingerprint == fresh
    assert subset(index, [3, 1, 25]).contents[2] == index.contents[25]


def test_a_file_that_changed_since_it_was_hashed_is_refused(photos: Path) -> None:
    index = read_folder(photos)
    assert index.read(4).ndim == 3
    assert len(index.contents) == 30
    assert index.read(4).ndim == 3
    shutil.copy(photos / "dog" / "00.jpg", photos / "cat" / "04.jpg")
    with pytest.raises(BadImageError, match="changed while it was in use"):
        index.read(4)
    assert index.read(5).ndim == 3
