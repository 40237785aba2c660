"""Archives: what is good is unpacked, what is hostile is refused, and nothing half-done stays."""

from __future__ import annotations

import gzip
import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bagoftricks.data import archives as module
from bagoftricks.data.archives import extract
from bagoftricks.errors import RunError, UserError

CONTENT = np.random.default_rng(0).integers(0, 256, 1_000_000, dtype=np.uint8).tobytes()


Member = tuple[tarfile.TarInfo, bytes]
FILES = {"a.txt": b"one", "sub/deep/b.txt": b"two" * 1000, "sub/empty": b""}


def tar_member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(content), kind, link, 0o6777
    return info, content


def make_tar(path: Path, members: list[Member], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def make_zip(path: Path, members: dict[str, bytes], attributes: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = attributes << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def make_good(path: Path) -> Path:
    if path.suffix == ".zip":
        return make_zip(path, {"sub/": b"", **FILES})
    members = [tar_member("./sub", kind=tarfile.DIRTYPE), *(tar_member(f"./{name}", FILES[name]) for name in FILES)]
    return make_tar(path, members, "w:gz" if path.suffix == ".gz" else "w")


def unpack(archive: Path, *, max_bytes: int = 1_000_000, max_files: int = 10) -> Path:
    return extract(archive, archive.parent / "out" / "new", max_bytes=max_bytes, max_files=max_files)


def check_nothing_left(archive: Path) -> None:
    out = archive.parent / "out"
    assert not out.exists() or list(out.iterdir()) == []
    assert {path.name for path in archive.parent.iterdir()} <= {archive.name, "out"}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_extract(tmp_path: Path, name: str) -> None:
    told: list[str] = []
    archive = make_good(tmp_path / name)
    out = extract(
        archive, tmp_path / "new", max_bytes=3003, max_files=4, on_file=lambda _, name: told.append(Path(name).name)
    )
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == FILES
    assert told == ["a.txt", "b.txt", "empty"]
    assert (out / "a.txt").stat().st_mode & 0o6111 == 0
    assert {path.name for path in tmp_path.iterdir()} == {name, "new"}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
@pytest.mark.parametrize(
    ("limits", "message"),
    [({"max_bytes": 3002}, "more than 3,002 bytes"), ({"max_files": 3}, "more than 3 members")],
)
def test_bounds(tmp_path: Path, name: str, limits: dict[str, int], message: str) -> None:
    archive = make_good(tmp_path / name)
    with pytest.raises(RunError, match=message):
        unpack(archive, **limits)
    check_nothing_left(archive)


HOSTILE_NAMES = ["../up", "sub/../../up", "/tmp/absolute", "..\\up", "C:\\x", "C:x", "\\\\host\\share\\x"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar folder"])
def test_names_that_leave(tmp_path: Path, name: str, kind: str) -> None:
    if kind == "zip":
        archive = make_zip(tmp_path / "x.zip", {"good": b"", name: b"evil"})
    else:
        member = tar_member(name, kind=tarfile.DIRTYPE) if kind == "tar folder" else tar_member(name, b"evil")
        archive = make_tar(tmp_path / "x.tar.gz", [tar_member("good"), member])
    with pytest.raises(RunError, match="refused, .* leaves the folder"):
        unpack(archive)
    check_nothing_left(archive)


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"), (tarfile.SYMTYPE, "../up"), (tarfile.SYMTYPE, "good"),
        (tarfile.LNKTYPE, "../up"), (tarfile.LNKTYPE, "good"),
        (tarfile.CHRTYPE, ""), (tarfile.BLKTYPE, ""), (tarfile.FIFOTYPE, ""),
    ],
)  # fmt: skip
def test_links_and_devices(tmp_path: Path, kind: bytes, link: str) -> None:
    archive = make_tar(tmp_path / "x.tar", [tar_member("good"), tar_member("bad", kind=kind, link=link)], "w")
    with pytest.raises(RunError, match="refused, 'bad' is a link or a device"):
        unpack(archive)
    check_nothing_left(archive)


def test_links_in_a_zip(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {"bad": b"/etc/passwd"}, stat.S_IFLNK | 0o777)
    with pytest.raises(RunError, match="refused, 'bad' is a link or a device"):
        unpack(archive)
    check_nothing_left(archive)


def test_without_the_filter_of_later_pythons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    assert unpack(make_good(tmp_path / "x.tar")).is_dir()
    with pytest.raises(RunError, match="leaves the folder"):
        extract(make_tar(tmp_path / "y.tar", [tar_member("../up")], "w"), tmp_path / "y", max_bytes=10_000, max_files=9)


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_bomb(tmp_path: Path, name: str) -> None:
    zeros = bytes(20_000_000)
    archive = tmp_path / name
    if name == "x.zip":
        make_zip(archive, {"good": b"", "bomb": zeros})
    else:
        make_tar(archive, [tar_member("good"), tar_member("bomb", zeros)])
    assert archive.stat().st_size < 100_000
    with pytest.raises(RunError, match="unpacks to more than 1,000,000 bytes"):
        unpack(archive)
    check_nothing_left(archive)


def test_a_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {"bomb": bytes(2_000_000)})
    lying = archive.read_bytes().replace((2_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    archive.write_bytes(lying)
    with pytest.raises(RunError, match="CRC"):
        unpack(archive)
    check_nothing_left(archive)


def test_a_declared_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", [tar_member("bomb", bytes(2_000_000))], "w")
    archive.write_bytes(archive.read_bytes()[:1024])
    with pytest.raises(RunError, match="unpacks to more than 1,000,000 bytes"):
        unpack(archive)


def test_bytes_are_counted_as_they_are_written(tmp_path: Path) -> None:
    unpacker = module._Unpacker(tmp_path / "x.zip", tmp_path, 1000, 9, module.quiet)
    unpacker._write("a", io.BytesIO(bytes(1000)))
    with pytest.raises(RunError, match="unpacks to more than 1,000 bytes"):
        unpacker._write("b", io.BytesIO(b"1"))


@pytest.mark.parametrize("before", [0, 40])
def test_a_bomb_in_the_headers(tmp_path: Path, before: int) -> None:
    archive = tmp_path / "x.tar.gz"
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as opened:
        for i in range(before):  # many members do not add up to room for it
            opened.addfile(tar_member(f"{i}")[0])
        info, content = tar_member("good", b"x")
        info.pax_headers = {"comment": "0" * 40_000}
        opened.addfile(info, io.BytesIO(content))
    with pytest.raises(RunError, match="more than 32,768 bytes on end that are no file's content"):
        unpack(archive, max_files=50)
    check_nothing_left(archive)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_many_members_of_all_sizes(tmp_path: Path, form: int) -> None:
    draw = np.random.default_rng(1)
    files = {
        f"{'long name ' * 9}{i}/{'x' * 90}": CONTENT[: int(size)] for i, size in enumerate(draw.exponential(9000, 200))
    }
    files["big"] = CONTENT
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w", format=form) as opened:
        for name, content in files.items():
            opened.addfile(tar_member(name, content)[0], io.BytesIO(content))
    with archive.open("ab") as file:
        file.write(bytes(500_000))  # as tar pads for tapes
    out = unpack(archive, max_files=999, max_bytes=10_000_000)
    assert sum((out / name).read_bytes() == content for name, content in files.items()) == 201


def test_a_bomb_behind_the_end(tmp_path: Path) -> None:
    archive = make_good(tmp_path / "x.tar.gz")
    archive.write_bytes(archive.read_bytes() + gzip.compress(bytes(2_000_000)))
    with pytest.raises(RunError, match="unpacks to more than 1,000,000 bytes"):
        unpack(archive)


def test_names_that_occur_twice(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", [tar_member("a", b"1"), tar_member("./a", b"2")], "w")
    with pytest.raises(RunError, match="'./a' occurs twice"):
        unpack(archive)
    check_nothing_left(archive)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def cut_tail(content: bytes) -> bytes:
    return content[:-4]


@pytest.mark.parametrize("damage", [cut, flip, cut_tail, lambda _: b"<html>no such page</html>", lambda _: b""])
@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_damaged(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    archive = tmp_path / name
    if name == "x.zip":
        make_zip(archive, {"a": CONTENT[:9000]})
    else:
        make_tar(archive, [tar_member("a", CONTENT[:9000])])
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(RunError, match="cannot be unpacked") as caught:
        unpack(archive)
    assert "\n" not in str(caught.value)
    check_nothing_left(archive)


def test_encrypted(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {"a": b"one"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    archive.write_bytes(content)
    with pytest.raises(RunError, match="'a' is encrypted"):
        unpack(archive)


def test_extract_onto_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_good(tmp_path / "x.zip")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3002))
    with pytest.raises(RunError, match="unpacks to 0.0 MB, 0.0 MB are free"):
        unpack(archive)
    check_nothing_left(archive)


def test_extract_leaves_what_is_there(tmp_path: Path) -> None:
    archive = make_good(tmp_path / "x.zip")
    mine = tmp_path / "out" / "new" / "mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("kept")
    with pytest.raises(UserError, match="exists already"):
        unpack(archive)
    assert [path.name for path in mine.parent.iterdir()] == ["mine"]
    with pytest.raises(UserError, match="no such file"):
        unpack(tmp_path / "none.zip")


def test_a_folder_that_appears_meanwhile_is_left(tmp_path: Path) -> None:
    mine = tmp_path / "new" / "mine"

    def intrude(*_: object) -> None:
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("kept")

    with pytest.raises(UserError, match="exists already"):
        extract(make_good(tmp_path / "x.zip"), mine.parent, max_bytes=10_000, max_files=9, on_file=intrude)
    assert [path.name for path in mine.parent.iterdir()] == ["mine"]
    assert {path.name for path in tmp_path.iterdir()} == {"x.zip", "new"}


def test_an_interrupted_extraction_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    archive = make_good(tmp_path / "x.tar.gz")
    with pytest.raises(KeyboardInterrupt):
        extract(archive, tmp_path / "out" / "new", max_bytes=10_000, max_files=9, on_file=interrupt)
    check_nothing_left(archive)
