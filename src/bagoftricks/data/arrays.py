"""Arrays in files that nobody has vouched for: `.npz` without pickles, lying shapes or bombs."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt

from bagoftricks.data.names import shown
from bagoftricks.data.untrusted import RefusedError, open_plain

MOST_ARRAYS = 2**32
"""Bytes of all arrays of a file together, as unpacked: logits of 1,000,000 images of 1,000 classes."""
SMALL, MOST_RATIO = 2**26, 200
"""Bytes up to which a file may unpack to any size, and how many times its own size it may above."""
MOST_MEMBERS = 64
"""Arrays in a file."""
DIRECTORY_ENTRY = 512
"""Bytes of a zip's directory for each member, ten times the least: reading it takes fifteen times its size."""


def read_arrays(path: Path, most: int = MOST_ARRAYS) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays of numbers of an `.npz` file; nothing in it is unpickled.

    Shapes are compared with the bytes that are there before any memory is asked for.

    Raises:
        RefusedError: for a link, a pipe, more than `most` bytes, other contents than numbers, or a shape that lies.
        ValueError, OSError, EOFError, BadZipFile, zlib.error: if it is damaged.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    with open_plain(path, most) as file:
        check_directory(file, MOST_MEMBERS)
        with ZipFile(file) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > min(most, max(SMALL, MOST_RATIO * file.seek(0, os.SEEK_END))):
                raise RefusedError(f"unpacks to {total:,} bytes, too many for what it is")
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays or member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
                    raise RefusedError("is packed in an unusual way, or names an array twice")
                with archive.open(member) as packed:
                    arrays[name] = _read_array(packed, member.file_size, shown(name)[:40])
    return arrays


def _read_array(packed: IO[bytes], length: int, name: str) -> npt.NDArray[Any]:
    version = np.lib.format.read_magic(packed)
    if version not in ((1, 0), (2, 0)):
        raise RefusedError(f"array '{name}' is of an unknown version")
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = reader(packed)  # evaluates literals alone, of at most 10,000 characters
    if dtype.kind not in "biuf":
        raise RefusedError(f"array '{name}' holds no numbers")
    if any(side < 0 for side in shape) or packed.tell() + math.prod(shape) * dtype.itemsize != length:
        raise RefusedError(f"array '{name}' has not as many bytes as its shape says")
    flat = np.frombuffer(bytearray(packed.read(length)), dtype=dtype)
    if flat.size != math.prod(shape):
        raise RefusedError(f"array '{name}' ends early")
    return flat.reshape(shape, order="F" if columns_first else "C")


def check_directory(file: IO[bytes], most: int) -> None:
    """Refuses a zip whose directory is too large for `most` members, before anybody reads it into memory.

    Raises:
        RefusedError: if it is, or the zip is of the kind for more than 65,534 members while `most` are fewer.
        BadZipFile: if it is no zip.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 2**16 - 22))
    tail = file.read()
    place = tail.rfind(b"PK\5\6")  # the record at the end; a comment of up to 65,535 bytes follows
    file.seek(0)
    if place < 0 or len(tail) - place < 22:
        raise BadZipFile("is no zip file")
    size: int
    *_, size, _, _ = struct.unpack("<4s4H2LH", tail[place : place + 22])
    if b"PK\6\7" in tail[max(0, place - 20) : place]:  # of a zip64, whose sizes stand elsewhere
        (start,) = struct.unpack("<Q", tail[place - 12 : place - 4])
        file.seek(min(start, end))
        size = int.from_bytes(file.read(48)[40:], "little")
        file.seek(0)
    if size > (most + 1) * DIRECTORY_ENTRY:
        raise RefusedError(f"has a directory of {size:,} bytes, too many for {most:,} members")
