"""Folders with images that cannot be used: those are left out, counted and named; nothing crashes, blocks or swells."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import unicodedata
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bagoftricks.data import decoding, reading, soundness
from bagoftricks.data import hashes as hashes_module
from bagoftricks.data.cache import CachedImages, open_images
from bagoftricks.data.check import check
from bagoftricks.data.decoding import decode, decode_bytes
from bagoftricks.data.folder import read_folder
from bagoftricks.data.hashes import hash_images
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.manifest import read_manifest
from bagoftricks.data.names import shown
from bagoftricks.data.reading import BadImageError, read_bytes
from bagoftricks.data.soundness import LeftOut, sound
from bagoftricks.data.sources import open_data
from bagoftricks.data.split import SplitConfig, split
from bagoftricks.errors import RunError, UserError
from tests.fuzz.samples import picture, saved, valid_files

LIMIT_S = 20.0
"""After which a test that must not block has blocked."""


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been looked at before a test."""
    monkeypatch.setenv("BAGOFTRICKS_CACHE", str(tmp_path / "own"))


def reason(data: bytes, short_side: int | None = 32) -> str:
    with pytest.raises(BadImageError) as caught:
        decode_bytes(data, "a.jpg", short_side)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def within(seconds: float, work: Callable[[], object]) -> None:
    """Fails where the work is not done in time, instead of waiting for ever."""
    done: list[BaseException | None] = []

    def run() -> None:
        try:
            work()
            done.append(None)
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert done, "it blocks"
    if done[0] is not None:
        raise done[0]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge_png(width: int, height: int) -> bytes:
    """The header says so; there are next to no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def huge_jpeg(width: int, height: int) -> bytes:
    data = saved(picture(), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


WHOLE = saved(picture((64, 48)), "JPEG", quality=95)
BAD = {
    "empty": (b"", "empty file"),
    "html": (b"<!DOCTYPE html><html>404</html>", "a web page or XML, not an image"),
    "html later": (b"\xef\xbb\xbf \n<HTML>", "a web page or XML, not an image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a web page or XML, not an image"),
    "text": (b"hello", "no image of a kind that is read"),
    "zeros": (bytes(5000), "no image of a kind that is read"),
    "avif": (b"\0\0\0\x1cftypavif" + bytes(100), "no image of a kind that is read"),
    "cut": (WHOLE[: len(WHOLE) // 2], "truncated"),
    "cut at the end": (WHOLE[:-2], "truncated"),
    "header only": (WHOLE[:4], "truncated"),
    "rest is zeros": (WHOLE[: len(WHOLE) // 2] + bytes(len(WHOLE) // 2), "truncated"),
    "cut, and an end put on": (WHOLE[: len(WHOLE) // 2] + b"\xff\xd9", "truncated"),
    "no pixels": (WHOLE[: WHOLE.index(b"\xff\xda")] + b"\xff\xd9", "damaged"),
    "png cut": (saved(picture(), "PNG")[:-300], "truncated"),
    "bomb": (huge_png(60_000, 60_000), "too many pixels"),
    "small bomb": (huge_png(12_000, 10_001), "too many pixels"),
    "jpeg bomb": (huge_jpeg(65_000, 65_000), "too many pixels"),
    "floats": (valid_files()["tiff float"], "32-bit pixels of unknown range"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_fault_has_its_reason(case: str) -> None:
    data, expected = BAD[case]
    assert reason(data).startswith(expected)
    assert reason(data, None).startswith(expected)


@pytest.mark.parametrize("name", sorted(set(valid_files()) - {"heic", "tiff float", "pbm plain"}))
def test_a_file_cut_anywhere_is_refused_or_whole(name: str) -> None:
    """Never a picture of which a part is made up."""
    data = valid_files()[name]
    pixels = decode_bytes(data, "a", None).pixels
    for share in np.linspace(0, 1, 60, endpoint=False):
        try:
            cut = decode_bytes(data[: int(share * len(data))], "a", None).pixels
        except BadImageError:
            continue
        assert np.array_equal(cut, pixels)  # only what follows the pixels was lost


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 3}, {"subsampling": 0}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("short_side", [None, 12])
def test_a_jpeg_that_ends_in_grey_is_refused(options: dict[str, int], mode: str, short_side: int | None) -> None:
    """An end marker after half the pixels: libjpeg fills the rest and says nothing."""
    data = saved(picture((160, 120), mode), "JPEG", quality=95, **options)
    start = data.index(b"\xff\xda") + 14
    assert decode_bytes(data, "a", short_side).pixels.ndim == 3
    for share in (0.3, 0.6, 0.9):
        cut = data[: start + int(share * (len(data) - start))].rstrip(b"\xff") + b"\xff\xd9"
        assert reason(cut, short_side) == "truncated"


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 1}])
def test_a_jpeg_that_is_grey_at_its_end_is_used(mode: str, options: dict[str, int]) -> None:
    grey = Image.new("RGB", (100, 90), (128, 128, 128))
    grey.paste(picture(), (5, 5))
    data = saved(grey.convert(mode), "JPEG", **options)
    for short_side in (None, 20):
        pixels = decode_bytes(data, "a", short_side).pixels
        assert (pixels[-1, -1] == 128).all()


def test_a_marker_within_the_pixels_is_damage() -> None:
    data = bytearray(saved(picture((160, 120)), "JPEG", quality=95))
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    for marker, expected in ((b"\xff\xc1", "damaged"), (b"\xff\xd3", "damaged"), (b"\xff\x02", "damaged")):
        data[middle : middle + 2] = marker
        assert reason(bytes(data)).startswith(expected)


def test_a_jpeg_of_too_many_scans_is_refused() -> None:
    data = saved(picture(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert decode_bytes(data[:-2] + data[last:-2] * 20 + data[-2:], "a").pixels.ndim == 3
    assert "scans" in reason(data[:-2] + data[last:-2] * 200 + data[-2:])


def test_large_pictures_of_slow_kinds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason(b"P3\n3000 3000\n255\n1 2 3").startswith("too many pixels (3000 x 3000 in an encoding that is slow")
    assert reason(b"P6\n3000 3000\n7\n" + bytes(99)).startswith("too many pixels")
    assert reason(b"P6\n3000 3000\n255\n" + bytes(99)) == "truncated"
    monkeypatch.setitem(decoding.HUNGRY_PIXELS, "WEBP", 1000)
    assert reason(valid_files()["webp"]).startswith("too many pixels (40 x 28 in WEBP")
    monkeypatch.setattr(decoding, "MOST_SCANNED", 40 * 28 * 3)
    assert "scans" in reason(valid_files()["jpeg progressive"])
    assert decode_bytes(valid_files()["jpeg"], "a").pixels.ndim == 3


def test_a_tiff_without_all_its_strips_is_refused() -> None:
    """Pillow leaves the rest black, and says nothing (found by the fuzz)."""
    data = bytearray(valid_files()["tiff"])
    place = data.index(struct.pack("<HHL", 257, 4, 1)) + 8  # its height
    assert struct.unpack_from("<L", data, place) == (28,)
    struct.pack_into("<L", data, place, 500)
    assert reason(bytes(data)) == "truncated"


def test_bombs_are_refused_before_memory_is_taken() -> None:
    tracemalloc.start()
    started = time.process_time()
    for data in (huge_png(60_000, 60_000), huge_png(13_000, 13_000), huge_jpeg(65_000, 65_000)):
        reason(data)
    assert time.process_time() - started < LIMIT_S
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_bomb_unfolds_within_bounds(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("/proc says how much memory was used")
    row, coder = b"\0" + bytes(4 * 8000), zlib.compressobj(1)
    pixels = b"".join([*(coder.compress(row) for _ in range(8000)), coder.flush()])
    header = struct.pack(">IIBBBBB", 8000, 8000, 8, 6, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    assert len(data) < 2**21
    code = (
        "import sys\nfrom pathlib import Path\nfrom bagoftricks.data.decoding import decode_bytes\n"
        "data = Path(sys.argv[1]).read_bytes()\nassert (decode_bytes(data, 'a', 64).pixels == 255).all()\n"
        "lines = Path('/proc/self/status').read_text().splitlines()\n"
        "print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))"
    )
    path = tmp_path / "bomb.png"
    path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 2**30
    assert done.stderr == ""


@pytest.mark.parametrize("suffix", [".eps", ".jpg"])
def test_no_other_program_and_no_other_decoder_is_reached(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (4, 4)).save(path, "EPS")
    with pytest.raises(BadImageError, match="no image of a kind that is read"):
        decode(path)
    for kind in ("TGA", "PCX", "ICO", "SGI", "JPEG2000", "IM", "DDS", "ICNS"):
        assert reason(saved(Image.new("RGB", (16, 16)), kind)).startswith("no image of a kind that is read")


def test_nothing_is_written_to_the_terminal(tmp_path: Path) -> None:
    """Neither Pillow's warnings, nor its log, nor what libtiff and libjpeg print themselves."""
    tiff = valid_files()["tiff jpeg"]
    files = {
        "a": tiff[:-40] + bytes(20), "b": valid_files()["tiff"][:-30], "c": valid_files()["tiff group4"],
        "d": huge_png(11_000, 10_000), "e": valid_files()["png palette"], "f": WHOLE[:300] + b"\xff\xd9",
    }  # fmt: skip
    broken = bytearray(files["c"])
    broken[20:24] = b"\x55\xaa\x55\xaa"
    files["c"] = bytes(broken)
    for place in range(60, len(tiff), 7):  # a byte changed here and there, in the directory and in the tables
        files[f"t{place}"] = tiff[:place] + bytes((tiff[place] ^ 0x5A,)) + tiff[place + 1 :]
    for name, data in files.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
    code = (
        "import sys\nfrom pathlib import Path\nfrom bagoftricks.data.decoding import decode\n"
        "from bagoftricks.errors import RunError\nfor path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n        decode(path, 32)\n    except RunError as error:\n        print(error)"
    )
    command = [sys.executable, "-W", "always", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) > 5


def test_warnings_of_pillow_are_caught_in_a_fresh_state() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        for name in valid_files():
            for cut in (40, 200):
                try:
                    decode_bytes(valid_files()[name][:-cut], "a", 8)
                except BadImageError:
                    continue
    assert caught == []
    assert logging.getLogger("PIL").handlers


# what lies in a folder


def test_what_is_no_file_neither_blocks_nor_is_opened(photos: Path) -> None:
    cat = photos / "cat"
    os.mkfifo(cat / "pipe.jpg")
    (cat / "folder.jpg").mkdir()
    (cat / "loop.jpg").symlink_to("loop.jpg")
    (cat / "dangling.jpg").symlink_to("nowhere.jpg")
    (cat / "zero.jpg").symlink_to("/dev/zero")
    (cat / "to-pipe.jpg").symlink_to("pipe.jpg")
    (cat / "link.jpg").symlink_to("00.jpg")
    expected = {
        "cat/dangling.jpg": "No such file or directory", "cat/folder.jpg": "a folder, not a file",
        "cat/loop.jpg": "Too many levels of symbolic links", "cat/pipe.jpg": "a named pipe, not a file",
        "cat/to-pipe.jpg": "a named pipe, not a file", "cat/zero.jpg": "a device, not a file",
    }  # fmt: skip

    def look() -> None:
        kept, left = sound(read_folder(photos), allow=0.2)
        assert {one.name: one.reason for one in left.images} == expected
        assert len(kept) == 31
        assert "cat/link.jpg" in kept.names
        assert len(kept.fingerprint) == 64
        found = check(read_folder(photos))
        assert (found.undecodable, found.files.folders, found.files.suffixes) == (6, (), {})
        assert len(read_folder(photos).fingerprint) == 64  # of the folder as it lies there, too

    within(LIMIT_S, look)


def test_a_socket_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # a socket's path must be short
        server.bind("s.jpg")
        with pytest.raises(BadImageError, match="a socket, not a file"):
            read_bytes(tmp_path / "s.jpg")


def test_a_file_put_in_the_place_of_a_checked_one_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, checks = tmp_path / "a.jpg", []
    os.mkfifo(path)
    real = reading._check_regular

    def check_regular(name: Path, status: os.stat_result) -> None:
        checks.append(name)
        if len(checks) > 1:
            real(name, status)

    monkeypatch.setattr(reading, "_check_regular", check_regular)
    with pytest.raises(BadImageError, match="named pipe"):
        within(LIMIT_S, lambda: read_bytes(path))


def test_a_file_without_end_is_not_read_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BadImageError, match="larger than 256 MiB"):
        decode(tmp_path / "sparse.jpg")
    monkeypatch.setattr(reading, "MOST_BYTES", 1000)
    (tmp_path / "grows.jpg").write_bytes(bytes(3000))
    monkeypatch.setattr(reading, "_check_regular", lambda *_: None)  # it was small when it was asked for
    with pytest.raises(BadImageError, match="larger than"):
        read_bytes(tmp_path / "grows.jpg")


def test_unreadable_files_are_left_out(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "cat" / "03.jpg").chmod(0)
    if os.geteuid() == 0:  # who may read everything
        real = os.open

        def guarded(path: str, flags: int, *rest: int) -> int:
            if str(path).endswith("cat/03.jpg"):
                raise PermissionError(13, "Permission denied", path)
            return real(path, flags, *rest)

        monkeypatch.setattr(reading.os, "open", guarded)
    kept, left = sound(read_folder(photos))
    assert [(one.name, one.reason) for one in left.images] == [("cat/03.jpg", "Permission denied")]
    assert len(kept.fingerprint) == 64


@pytest.mark.parametrize("times", [1, 2, 9])
def test_what_cannot_be_read_for_a_moment_is_no_bad_image(
    photos: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A network drive that stutters may not make another data set of it, in which every run has another name."""
    real, tried = os.open, []

    def stuttering(path: str, flags: int, *rest: int) -> int:
        if str(path).endswith("cat/03.jpg") and len(tried) < times:
            tried.append(path)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
        return real(path, flags, *rest)

    index = read_folder(photos)
    monkeypatch.setattr("bagoftricks.data.soundness.PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(reading.os, "open", stuttering)
    if times < 3:
        kept, left = sound(index)
        assert (len(kept), len(left)) == (30, 0)
    else:
        with pytest.raises(RunError, match=r"cat/03\.jpg cannot be read now \(.*\); give the same command again"):
            sound(index)


def test_folders_that_cannot_be_listed_are_an_error_of_one_line(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.iterdir

    def guarded(path: Path):  # type: ignore[no-untyped-def]
        if path.name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", guarded)
    with pytest.raises(UserError, match=r"dog: cannot be read \(Permission denied\)"):
        read_folder(photos)


def test_a_link_to_its_own_folder_is_no_endless_tree(photos: Path) -> None:
    (photos / "cat" / "again").symlink_to(photos)
    (photos / "self").symlink_to("self")
    assert len(read_folder(photos)) == 30
    (photos / "here").symlink_to(".")
    with pytest.raises(UserError, match="here: holds folders"):
        read_folder(photos)


NAMES = (
    b"line\nbreak.jpg", b"tab\tand\x1b[31mred\x07.jpg", b"bytes\xff\xfe.jpg", "\u202egpj.jpg".encode(), b" .jpg",
    unicodedata.normalize("NFC", "é.jpg").encode(), unicodedata.normalize("NFD", "é.jpg").encode(),
    b"x" * 251 + b".jpg", "猫🐈.jpg".encode(), b"-rf.jpg", b"a'b\"c$(d)`e`.jpg", b"<script>.jpg", b"null%00.jpg",
)  # fmt: skip


@pytest.mark.parametrize("broken", [False, True])
def test_any_name_is_used_and_shown_on_one_line(photos: Path, tmp_path: Path, broken: bool) -> None:
    if sys.platform == "darwin":
        pytest.skip("file names are normalised UTF-8 there")
    for k, name in enumerate(NAMES):
        (photos / "cat" / os.fsdecode(name)).write_bytes(b"no" if broken else saved(picture(seed=k), "JPEG"))
    index = read_folder(photos)
    kept, left = sound(index, allow=0.5)
    assert (len(index), len(kept), len(left)) == (43, 30 if broken else 43, 13 if broken else 0)
    text = json.dumps([left.to_dict(), kept.describe(), check(index).to_dict()], ensure_ascii=False)
    assert text.encode().decode().isprintable()
    for line in (left.sentence(), *check(index).findings):
        assert line.isprintable()
    if broken:
        with pytest.raises(UserError) as caught:
            sound(index)
        assert str(caught.value).isprintable()
        with pytest.raises(BadImageError) as bad:
            index.read(index.names.index("cat/line\nbreak.jpg"))
        assert r"line\nbreak.jpg" in str(bad.value)
        assert str(bad.value).isprintable()
    else:
        images = open_images(kept, 32, tmp_path / "cache", workers=2)
        assert all(image.ndim == 3 for image in images.many(np.arange(len(kept))))


def test_classes_of_any_name(photos: Path) -> None:
    if sys.platform == "darwin":
        pytest.skip("file names are normalised UTF-8 there")
    for k, name in enumerate((b"two\nlines", b"bytes\xff", "é".encode(), unicodedata.normalize("NFD", "é").encode())):
        (photos / os.fsdecode(name)).mkdir()
        for i in range(2):
            saved_at = photos / os.fsdecode(name) / f"{i}.png"
            saved_at.write_bytes(saved(picture(seed=10 * k + i), "PNG"))
    index = read_folder(photos)
    assert index.num_classes == 7
    (photos / "two\nlines" / "0.png").unlink()
    with pytest.raises(UserError) as caught:
        read_folder(photos)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("name", "expected"), [("a b-é.jpg", "a b-é.jpg"), ("a\nb", r"a\nb"), ("\udcff", r"\udcff")])
def test_names_as_shown(name: str, expected: str) -> None:
    assert shown(name) == expected


def test_a_manifest_of_hostile_names_is_an_error_of_one_line(photos: Path, tmp_path: Path) -> None:
    rows = [f"photos/{p.parent.name}/{p.name},{p.parent.name}" for p in sorted(photos.rglob("*.jpg"))]
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("x" * 300, "a/" * 3000, '"two\nlines"', "a\0b", "pipe.jpg", "\x1b[31m", ".", "/dev/zero"):
        (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows, f"{name},cat"]), encoding="utf-8")
        with pytest.raises(UserError, match=r"line \d+: ") as caught:
            within(LIMIT_S, lambda: read_manifest(tmp_path / "list.csv"))
        assert str(caught.value).isprintable()


def test_a_manifest_leaves_bad_images_out_as_well(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "01.jpg").write_bytes(b"")
    rows = [
        f"photos/{p.parent.name}/{p.name},{p.parent.name},g{i // 2}"
        for i, p in enumerate(sorted(photos.rglob("*.jpg")))
    ]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,group", *rows]))
    kept, left = sound(open_data(tmp_path / "list.csv"))
    (tmp_path / "list.csv").write_text("\n".join(["path,label,group", *(r for r in rows if "cat/01" not in r)]))
    assert kept.fingerprint == read_manifest(tmp_path / "list.csv").fingerprint
    assert [one.name for one in left.images] == ["photos/cat/01.jpg"]


# what is left


def spoil(photos: Path) -> list[str]:
    """Spoils three of thirty images, each in its way; returns their names."""
    (photos / "cat" / "02.jpg").write_bytes(b"")
    (photos / "dog" / "05.jpg").write_bytes((photos / "dog" / "05.jpg").read_bytes()[:400])
    (photos / "owl" / "09.jpg").write_bytes(b"<html>")
    return ["cat/02.jpg", "dog/05.jpg", "owl/09.jpg"]


def test_what_is_left_equals_the_folder_with_the_bad_files_deleted(photos: Path, tmp_path: Path) -> None:
    bad = spoil(photos)
    kept, left = sound(read_folder(photos))
    assert [one.name for one in left.images] == bad
    for name in bad:
        (photos / name).unlink()
    clean = read_folder(photos)
    assert (kept.fingerprint, kept.content, kept.names) == (clean.fingerprint, clean.content, clean.names)
    assert (kept.classes, kept.labels.tolist(), kept.given) == (clean.classes, clean.labels.tolist(), clean.given)
    config = SplitConfig()
    for seed in range(3):
        assert split(kept, config, seed).val.tolist() == split(clean, config, seed).val.tolist()
    ours, theirs = (open_images(one, 32, tmp_path / str(k), workers=1) for k, one in enumerate((kept, clean)))
    assert isinstance(ours, CachedImages)
    assert isinstance(theirs, CachedImages)
    assert np.array_equal(ours.bytes, theirs.bytes)


def test_the_record(photos: Path) -> None:
    spoil(photos)
    (photos / "cat" / "04.jpg").write_bytes(b"")
    index, left = sound(read_folder(photos), allow=0.2)
    assert (len(left), left.of) == (4, 30)
    record = left.to_dict()
    assert record["images"] == 4
    assert record["of"] == 30
    assert record["reasons"] == {"empty file": 2, "a web page or XML, not an image": 1, "truncated": 1}
    assert record["listed"][0] == {"name": "cat/02.jpg", "reason": "empty file"}
    assert left.sentence().startswith("4 of 30 images cannot be used and are left out: 2 empty file, 1 a web page")
    assert left.sentence().endswith("(cat/02.jpg, cat/04.jpg, dog/05.jpg, …)")
    assert index.describe()["left_out"] == record
    assert read_folder(photos).describe()["left_out"] is None


def test_a_record_lists_twenty(photos: Path) -> None:
    for k in range(40):
        (photos / "cat" / f"bad{k:02d}.jpg").write_bytes(b"")
    record = sound(read_folder(photos), allow=0.8)[1].to_dict()
    assert (record["images"], len(record["listed"])) == (40, 20)


def test_too_many_are_an_error_unless_allowed(photos: Path) -> None:
    spoil(photos)
    sound(read_folder(photos), allow=0.1)  # three of thirty
    (photos / "cat" / "04.jpg").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        sound(read_folder(photos), allow=0.1)
    text = str(caught.value)
    assert "4 of 30 images cannot be used" in text
    assert "more than 10 %" in text
    assert text.endswith("--allow-corrupt 0.14 accepts it")
    sound(read_folder(photos), allow=0.14)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match="--allow-corrupt"):
            sound(read_folder(photos), allow=wrong)


def test_a_class_must_keep_two_images(photos: Path) -> None:
    for k in range(8):
        (photos / "dog" / f"{k:02d}.jpg").write_bytes(b"")
    assert sound(read_folder(photos), allow=0.5)[0].counts.tolist() == [10, 2, 10]
    (photos / "dog" / "08.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="9 bad images left out: class 'dog' has one image"):
        sound(read_folder(photos), allow=0.5)
    (photos / "dog" / "09.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="class 'dog' has no image"):
        sound(read_folder(photos), allow=0.5)


def test_given_sides_are_treated_alike(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "sides"
    for side in ("train", "val", "test"):
        shutil.copytree(photos, root / side)
        (root / side / "cat" / "07.jpg").write_bytes(b"")
    kept, left = sound(read_folder(root))
    assert [one.side for one in left.images] == ["test", "train", "val"]
    for side in ("train", "val", "test"):
        (root / side / "cat" / "07.jpg").unlink()
    clean = read_folder(root)
    assert (kept.fingerprint, kept.content) == (clean.fingerprint, clean.content)
    assert kept.given == clean.given
    for path in (root / "val" / "owl").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="class 'owl' has no image in val"):
        sound(read_folder(root), allow=0.5)


def test_a_test_set_of_bad_images_alone_is_none(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "sides"
    shutil.copytree(photos, root / "train")
    (root / "test" / "cat").mkdir(parents=True)
    (root / "test" / "cat" / "a.jpg").write_bytes(b"")
    kept, _ = sound(read_folder(root))
    shutil.rmtree(root / "test")
    assert kept.given is None
    assert len(kept) == 30
    assert kept.describe()["given_test_images"] == 0


def test_images_in_memory_are_sound(digits: ImageIndex) -> None:
    kept, left = sound(digits)
    assert left == LeftOut((), len(digits))
    assert left.sentence() == ""
    assert kept.fingerprint == digits.fingerprint
    assert sound(kept)[0] is kept


def test_a_sound_folder_stays_as_it_is(photos: Path) -> None:
    kept, left = sound(read_folder(photos))
    assert (len(left), kept.names) == (0, read_folder(photos).names)
    assert kept.fingerprint == read_folder(photos).fingerprint


# once is enough


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that were looked at."""
    seen: list[str] = []
    real = hashes_module._look

    def look(index: ImageIndex, i: int) -> hashes_module._Look:
        seen.append(index.names[i])
        return real(index, i)

    monkeypatch.setattr(hashes_module, "_look", look)
    return seen


@pytest.mark.parametrize("with_test", [False, True])
def test_every_image_is_looked_at_once(
    photos: Path, tmp_path: Path, looks: list[str], monkeypatch: pytest.MonkeyPatch, with_test: bool
) -> None:
    spoil(photos)
    root = photos
    if with_test:
        root = tmp_path / "sides"
        shutil.copytree(photos, root / "train")
        shutil.copytree(photos, root / "test")
    seen: list[int] = []
    kept, _ = sound(read_folder(root), on_look=seen.append, workers=2)
    total = 60 if with_test else 30
    assert (len(looks), seen[-1]) == (total, total)
    for index in (kept, sound(read_folder(root), on_look=seen.append)[0], pickle.loads(pickle.dumps(kept))):
        assert sound(index)[0] is index
        assert len(index.twins) == total - (6 if with_test else 3)
        check(index, cache=tmp_path / "own" / "hashes")
        hash_images(index.open_part, cache=tmp_path / "own" / "hashes")
    assert len(looks) == total
    assert len(seen) == total


def test_only_what_may_have_passed_is_looked_at_again(
    photos: Path, tmp_path: Path, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(photos)
    os.mkfifo(photos / "cat" / "pipe.jpg")
    (photos / "owl" / "gone.jpg").symlink_to("nowhere.jpg")
    for _ in range(2):
        kept, left = sound(read_folder(photos), allow=0.2)
        assert (len(kept), len(left)) == (27, 5)
    assert len(looks) == 32 + 2
    assert set(looks[32:]) == {"cat/pipe.jpg", "owl/gone.jpg"}
    picture(seed=77).save(photos / "owl" / "nowhere.jpg")
    kept, _ = sound(read_folder(photos), allow=0.2)
    assert {"owl/gone.jpg", "owl/nowhere.jpg"} <= set(kept.names)


def test_the_files_are_hashed_once_and_not_for_each_part(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(photos)
    read: list[Path] = []
    real = reading.read_bytes
    monkeypatch.setattr("bagoftricks.data.index.read_bytes", lambda path: read.append(path) or real(path))  # type: ignore[func-returns-value]
    sound(read_folder(photos))
    read.clear()
    kept, _ = sound(read_folder(photos))
    assert kept.fingerprint == kept.open_part.content
    assert len(kept.twins) == 27
    assert len(read) == 30  # to know that they are those that were looked at


# the check


def test_the_check_says_the_same_before_and_after(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "sides"
    shutil.copytree(photos, root / "train")
    shutil.copytree(photos, root / "test")
    for name in spoil(root / "train"):
        shutil.copy(root / "train" / name, root / "test" / name)
    raw = read_folder(root)
    assert check(raw).to_dict() == check(sound(raw)[0]).to_dict()
    found = check(raw)
    assert (found.images, found.undecodable, found.counts) == (60, 6, {"cat": 10, "dog": 10, "owl": 10})
    assert found.findings[0].startswith("6 images cannot be decoded and are left out: train/cat/02.jpg (empty file), ")
    assert found.copies.across_sides == {"test-pool": 27}  # broken files are no copies of one another
    one = replace(found, undecodable=1)
    assert next(soundness_sentence(one)).startswith("1 image cannot be decoded and is left out: ")


def soundness_sentence(found):  # type: ignore[no-untyped-def]
    from bagoftricks.data.findings import _broken

    return _broken(found)


# a folder that changes while it is read


@pytest.mark.parametrize("change", ["removed", "cut", "replaced", "now a pipe"])
@pytest.mark.parametrize("when", ["listed", "hashed"])
def test_a_file_that_changes_meanwhile_is_left_out(photos: Path, change: str, when: str) -> None:
    index = read_folder(photos)
    if when == "hashed":
        assert len(index.contents) == 30
    path = photos / "dog" / "03.jpg"
    data = path.read_bytes()
    path.unlink()
    if change == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif change == "replaced":
        shutil.copy(photos / "cat" / "00.jpg", path)
    elif change == "now a pipe":
        os.mkfifo(path)
    results: list[tuple[ImageIndex, LeftOut]] = []
    within(LIMIT_S, lambda: results.append(sound(index)))
    kept, left = results[0]
    if change == "replaced" and when == "listed":
        assert len(left) == 0
        return
    assert [one.name for one in left.images] == ["dog/03.jpg"]
    if when == "hashed" and change in ("cut", "replaced"):
        assert left.reasons == {"changed while it was in use": 1}
    path.unlink(missing_ok=True)
    assert kept.fingerprint == read_folder(photos).fingerprint
    if change != "removed":  # and back: what was seen meanwhile is not held against it
        path.write_bytes(data)
        assert len(sound(read_folder(photos))[1]) == 0


def test_a_file_that_changes_after_the_look_stops_the_cache(photos: Path, tmp_path: Path) -> None:
    kept, _ = sound(read_folder(photos))
    shutil.copy(photos / "cat" / "00.jpg", photos / "dog" / "03.jpg")
    with pytest.raises(RunError, match=r"dog/03\.jpg: cannot be decoded \(changed while it was in use\)"):
        open_images(kept, 32, tmp_path / "cache")


def test_a_class_that_vanishes(photos: Path) -> None:
    index = read_folder(photos)
    shutil.rmtree(photos / "dog")
    with pytest.raises(UserError, match="10 of 30 images cannot be used and are left out: 10 No such file"):
        sound(index)
    with pytest.raises(UserError, match="class 'dog' has no image"):
        sound(index, allow=1)
    check(index)  # a report of it is possible all the same


def test_a_class_that_vanishes_while_it_is_listed(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.iterdir

    def iterdir(path: Path):  # type: ignore[no-untyped-def]
        if path.name == "cat":
            shutil.rmtree(photos / "dog", ignore_errors=True)
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(UserError, match=r"dog: cannot be read \(No such file or directory\)"):
        read_folder(photos)


def test_a_folder_that_never_stands_still(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files come, go and are cut all the time; whatever was kept is whole."""
    monkeypatch.setattr("bagoftricks.data.soundness.PAUSES_S", (0.0, 0.0))
    stop = threading.Event()
    whole = {path: path.read_bytes() for path in photos.rglob("*.jpg")}

    def stir() -> None:
        draw = np.random.default_rng(0)
        paths = sorted(whole)
        while not stop.is_set():
            path = paths[draw.integers(len(paths))]
            if draw.random() < 0.3:
                path.unlink(missing_ok=True)
            else:
                data = whole[path]
                path.write_bytes(data[: draw.integers(len(data))] if draw.random() < 0.5 else data)

    thread = threading.Thread(target=stir)
    thread.start()
    try:
        for _ in range(20):
            try:
                kept, left = sound(read_folder(photos), allow=1, workers=4)
            except (UserError, RunError):
                continue
            assert len(kept) + len(left) == left.of
    finally:
        stop.set()
        thread.join()
    for path, data in whole.items():
        path.write_bytes(data)
    assert len(sound(read_folder(photos))[1]) == 0  # nothing of it is remembered wrongly


def test_the_default_share() -> None:
    assert soundness.ALLOWED == 0.1
