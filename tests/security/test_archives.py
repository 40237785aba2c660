"""Archives that mean harm, beside those of tests/data/test_archives.py."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from bagoftricks.data import fetch
from bagoftricks.errors import RunError
from tests.data.test_archives import check_nothing_left, make_tar, make_zip, tar_member, unpack
from tests.data.test_fetch import make_archive


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "\x1b[2J", "a\tb", "a\x7f", "sub\n/a"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_with_control_characters(tmp_path: Path, kind: str, name: str) -> None:
    make = (
        make_zip(tmp_path / "x.zip", {name: b""}) if kind == "zip" else make_tar(tmp_path / "x.tar", [tar_member(name)])
    )
    with pytest.raises(RunError, match="holds control characters") as caught:
        unpack(make)
    assert str(caught.value).isprintable()
    check_nothing_left(make)


def test_a_null_in_a_name(tmp_path: Path) -> None:
    """A zip's name ends there; a tar's extended header may go on."""
    archive = make_zip(tmp_path / "x.zip", {"goodX/../../up": b"evil"})
    archive.write_bytes(archive.read_bytes().replace(b"goodX", b"good\0"))
    assert [path.name for path in unpack(archive).iterdir()] == ["good"]
    info, content = tar_member("good", b"evil")
    info.pax_headers = {"path": "a\0b"}
    with tarfile.open(tmp_path / "y.tar", "w", format=tarfile.PAX_FORMAT) as opened:
        opened.addfile(info, io.BytesIO(content))
    (tmp_path / "out" / "new" / "good").unlink()
    (tmp_path / "out" / "new").rmdir()
    with pytest.raises(RunError, match="'a.x00b' holds control characters"):
        unpack(tmp_path / "y.tar")


@pytest.mark.parametrize("name", ["x" * 256, "a/" * 2_100 + "b"])
def test_names_that_no_disk_takes(tmp_path: Path, name: str) -> None:
    archive = make_zip(tmp_path / "x.zip", {name: b""})
    with pytest.raises(RunError, match="too long"):
        unpack(archive)
    check_nothing_left(archive)


@pytest.mark.parametrize(("one", "other"), [("A/b.jpg", "a/B.jpg"), ("stra\u00dfe", "STRASSE"), ("e\u0301", "\u00e9")])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_some_disks_hold_for_one(tmp_path: Path, one: str, other: str, kind: str) -> None:
    if kind == "zip":
        archive = make_zip(tmp_path / "x.zip", {one: b"1", other: b"2"})
    else:
        archive = make_tar(tmp_path / "x.tar", [tar_member(one, b"1"), tar_member(other, b"2")])
    with pytest.raises(RunError, match="occurs twice"):
        unpack(archive)
    check_nothing_left(archive)


def test_a_path_in_an_extended_header(tmp_path: Path) -> None:
    info, _ = tar_member("good")
    info.pax_headers = {"path": "../up"}
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as opened:
        opened.addfile(info)
    with pytest.raises(RunError, match="leaves the folder"):
        unpack(tmp_path / "x.tar")
    check_nothing_left(tmp_path / "x.tar")


@pytest.mark.parametrize("size", ["-1000", "-512", "99999999999999999999999"])
def test_sizes_in_an_extended_header(tmp_path: Path, size: str) -> None:
    """A negative one would lead back to what was read already."""
    info, _ = tar_member("bad")
    info.pax_headers = {"size": size}
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as opened:
        opened.addfile(tar_member("good")[0])
        opened.addfile(info)
    with pytest.raises(RunError):
        unpack(tmp_path / "x.tar")
    check_nothing_left(tmp_path / "x.tar")


def sparse_header(real: int) -> bytes:
    """A GNU sparse file of one byte, which says that it is `real` bytes large."""
    info, _ = tar_member("sparse", b"x")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"%011o\0%011o\0" % (real - 1, 1)
    header[483:495] = b"%011o\0" % real
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"x".ljust(512, b"\0") + bytes(1024)


@pytest.mark.parametrize("kind", ["gnu", "gnu, huge", "pax"])
def test_sparse_files(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "x.tar"
    if kind == "pax":
        info, content = tar_member("sparse", b"1\n900000\n1\n".ljust(513, b"x"))
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s",
                            "GNU.sparse.realsize": "900001"}  # fmt: skip
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as opened:
            opened.addfile(info, io.BytesIO(content))
    else:
        archive.write_bytes(sparse_header(900_000 if kind == "gnu" else 2**32))
    with pytest.raises(RunError, match="more than 1,000,000 bytes" if kind == "gnu, huge" else "sparse|seek|read"):
        unpack(archive)
    check_nothing_left(archive)


def test_entries_that_overlap(tmp_path: Path) -> None:
    """A thousand names for one content: ten kilobytes that unpack to a gigabyte."""
    archive = make_zip(tmp_path / "x.zip", {"0000": bytes(900_000)})
    content = archive.read_bytes()
    place, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entry = content[place:end]
    directory = b"".join(entry.replace(b"0000", b"%04d" % i) for i in range(5))
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 5, 5, len(directory), place, 0)
    archive.write_bytes(content[:place] + directory + tail)
    with pytest.raises(RunError, match="unpacks to more than 1,000,000 bytes"):
        unpack(archive)
    with pytest.raises(RunError, match="cannot be unpacked"):  # names within differ; later Pythons see the overlap
        unpack(archive, max_bytes=10_000_000)
    check_nothing_left(archive)


def test_a_zip_of_a_million_files_is_not_even_listed(tmp_path: Path) -> None:
    """Its directory alone would take a gigabyte of memory, before a member could be counted."""
    archive = tmp_path / "x.zip"
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    with archive.open("wb") as file:
        file.write(entry * 1_000_000)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry) * 1_000_000, 0, 0))
    with pytest.raises(RunError, match="has a directory of 47,000,000 bytes"):
        unpack(archive)
    check_nothing_left(archive)


def test_a_zip64_cannot_hide_its_directory(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    directory = bytes(100_000)
    zip64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 9, 9, len(directory), 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(directory), 1)
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, 100, 0, 0)
    archive.write_bytes(b"PK\3\4" + directory[4:] + zip64 + locator + tail)
    with pytest.raises(RunError, match="directory of 100,000 bytes"):
        unpack(archive)


def test_a_tar_of_a_million_files(tmp_path: Path) -> None:
    """Headers compress a hundredfold; no more of them is read than there may be members."""
    archive = tmp_path / "x.tar.gz"
    with gzip.open(archive, "wb", compresslevel=1) as file:
        for number in range(20):
            file.write(b"".join(tar_member(f"{number}/{i}")[0].tobuf() for i in range(100)))
    with pytest.raises(RunError, match="more than 10 members"):
        unpack(archive)
    check_nothing_left(archive)


def test_special_bits_of_a_zip(tmp_path: Path) -> None:
    out = unpack(make_zip(tmp_path / "x.zip", {"a": b"one"}, 0o106777))
    assert (out / "a").stat().st_mode & 0o7111 == 0


@pytest.mark.parametrize("kind", [0o010666, 0o020666, 0o060666, 0o140666])
def test_devices_in_a_zip(tmp_path: Path, kind: int) -> None:
    archive = make_zip(tmp_path / "x.zip", {"bad": b""}, kind)
    with pytest.raises(RunError, match="'bad' is a link or a device"):
        unpack(archive)
    check_nothing_left(archive)


def test_a_link_where_fetch_unpacks_is_not_followed(tmp_path: Path) -> None:
    """Who may write to the folder of data beforehand gets no file elsewhere, and none of the user's removed."""
    precious = tmp_path / "precious"
    (precious / "outer").mkdir(parents=True)
    (precious / "outer" / "mine").write_text("kept")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / ".101_ObjectCategories.partial").symlink_to(precious)
    (folder / "caltech-101.zip").write_bytes(make_archive())
    before = sorted(precious.iterdir())
    found = fetch.fetch_caltech101(folder, md5=None, categories=3, images=6)
    assert (found / "ant" / "image_0000.jpg").is_file()
    assert sorted(precious.iterdir()) == before
    assert (precious / "outer" / "mine").read_text() == "kept"


def test_the_fixtures_of_this_file_are_archives(tmp_path: Path) -> None:
    """What is refused above is refused for what it does, not because it is no archive."""
    (tmp_path / "x.tar").write_bytes(sparse_header(900_000))
    with tarfile.open(tmp_path / "x.tar") as opened:
        (member,) = opened.getmembers()
        assert member.issparse()
        assert member.size == 900_000
    assert zipfile.is_zipfile(make_zip(tmp_path / "x.zip", {"a": b""}))
