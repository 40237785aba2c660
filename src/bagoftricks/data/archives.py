"""Extraction of archives that nobody has vouched for: no path, link or bomb gets out of its folder."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from bagoftricks.data.arrays import check_directory
from bagoftricks.data.download import quiet
from bagoftricks.data.names import shown
from bagoftricks.errors import RunError, UserError, first_line

BLOCK = 1 << 18
"""Bytes read at once."""
TAR_ROOM = 1 << 15
"""Most bytes of a tar between two files' contents: padding, a header, its extension, and what is read ahead. Python
before 3.11.10 takes time that grows with the square of an extension's length (CVE-2024-6232): a second for this much.
"""
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, OSError, ValueError, NotImplementedError,
)  # fmt: skip
"""What a damaged archive, or a full disk, raises."""


def extract(
    archive: Path,
    target: Path,
    *,
    max_bytes: int,
    max_files: int,
    on_file: Callable[[int, str], None] = quiet,
) -> Path:
    """Unpacks a zip, tar or tar.gz into the new folder `target`, which appears whole or not at all, and returns it.

    Names that leave the folder or hold control characters, links, devices, sparse files, encrypted members and names
    that occur twice are refused: twice also where only their case or their accents' encoding differs, so that every
    file system unpacks the same. Modes, owners and times are not restored.

    Args:
        archive: the file to unpack.
        target: a folder that does not exist yet.
        max_bytes: most bytes of all files together, as declared and as unpacked.
        max_files: most members, folders included.
        on_file: called after each file with the members so far and its name.

    Raises:
        UserError: if there is no such archive, or `target` exists.
        RunError: if the archive is damaged or refused, or the disk is full; nothing is left behind.
    """
    if not archive.is_file():
        raise UserError(f"archive {archive}: no such file")
    _check_new(target)
    temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}.partial")
    try:
        temporary.mkdir(parents=True)
        unpacker = _Unpacker(archive, temporary, max_bytes, max_files, on_file)
        with archive.open("rb") as file:
            magic = file.read(2)
            file.seek(0)
            if magic == b"PK":
                unpacker.unzip(file)
            elif magic == b"\x1f\x8b":
                unpacker.untar(gzip.GzipFile(fileobj=file))
            else:
                unpacker.untar(file)
        _check_new(target)
        if hasattr(os, "sync"):  # once: a sync of each of ten thousand files takes half a minute
            os.sync()
        temporary.rename(target)
    except BROKEN as error:
        raise RunError(f"{archive}: cannot be unpacked ({shown(first_line(error))[:300]})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _check_new(target: Path) -> None:
    if os.path.lexists(target):
        raise UserError(f"{target}: exists already; move it away first")


@dataclass
class _Unpacker:
    """Writes an archive's members below `root` while they stay within bounds."""

    archive: Path
    root: Path
    max_bytes: int
    max_files: int
    on_file: Callable[[int, str], None]
    members: int = 0
    written: int = 0
    names: set[str] = field(default_factory=set)
    """Of files, as file systems that fold case compare them."""

    def unzip(self, file: IO[bytes]) -> None:
        check_directory(file, self.max_files)
        with zipfile.ZipFile(file) as opened:
            infos = opened.infolist()
            declared = sum(info.file_size for info in infos)
            self._check_bounds(len(infos), declared)
            free = shutil.disk_usage(self.root).free
            if declared > free:
                raise RunError(
                    f"{self.archive}: unpacks to {declared / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free; make room"
                )
            for info in infos:
                self.members += 1
                if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise self.refusal(f"{info.filename!r} is a link or a device")
                if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise self.refusal(f"{info.filename!r} is encrypted, or compressed in an unusual way")
                if info.is_dir():
                    self._place(info.filename).mkdir(parents=True, exist_ok=True)
                else:
                    with opened.open(info) as source:
                        self._write(info.filename, source)

    def untar(self, file: Any) -> None:
        bounded: Any = _Bounded(self, file)
        with tarfile.open(fileobj=bounded, mode="r|") as opened:
            for member in opened:
                self.members += 1
                self._check_bounds(self.members, self.written + member.size)
                place = self._place(member.name)
                if not (member.isreg() or member.isdir()):
                    raise self.refusal(f"{member.name!r} is a link or a device")
                if member.issparse() or member.size < 0:
                    raise self.refusal(f"{member.name!r} is sparse, or has no true size")
                bounded.room = TAR_ROOM + (member.size if member.isreg() else 0)
                if hasattr(tarfile, "data_filter"):  # from 3.11.4: a second opinion
                    tarfile.data_filter(member, str(self.root))
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                else:
                    self._write(member.name, opened.extractfile(member))
        while block := file.read(BLOCK):  # padding, to the end, where gzip compares its checksum
            self.written += len(block)
            self._check_bounds(self.members, self.written)

    def _place(self, name: str) -> Path:
        """Returns where a member goes. Read as Windows does, a name splits at both kinds of slash."""
        path = PureWindowsPath(name)
        if path.anchor or ".." in path.parts:
            raise self.refusal(f"{name!r} leaves the folder")
        if any(unicodedata.category(character) == "Cc" for character in name):
            raise self.refusal(f"{name!r} holds control characters")
        return self.root / name

    def _write(self, name: str, source: Any) -> None:
        place = self._place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        folded = unicodedata.normalize("NFC", place.relative_to(self.root).as_posix()).casefold()
        if folded in self.names or os.path.lexists(place):
            raise self.refusal(f"{name!r} occurs twice")
        self.names.add(folded)
        with place.open("xb") as file:
            while block := source.read(BLOCK):
                self.written += len(block)
                self._check_bounds(self.members, self.written)
                file.write(block)
        self.on_file(self.members, name)

    def _check_bounds(self, members: int, size: int) -> None:
        if members > self.max_files:
            raise self.refusal(f"more than {self.max_files:,} members")
        if size > self.max_bytes:
            raise self.refusal(f"unpacks to more than {self.max_bytes:,} bytes")

    def refusal(self, why: str) -> RunError:
        return RunError(f"{self.archive}: refused, {why[:300]}; nothing was unpacked")


@dataclass
class _Bounded:
    """A tar's bytes, refused past what the next content and header may take: headers can be a bomb too."""

    unpacker: _Unpacker
    file: Any
    room: int = TAR_ROOM

    def read(self, size: int) -> bytes:
        block: bytes = self.file.read(size)
        self.room -= len(block)
        if self.room < 0:
            raise self.unpacker.refusal(f"holds more than {TAR_ROOM:,} bytes on end that are no file's content")
        return block
