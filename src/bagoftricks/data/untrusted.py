"""What somebody else may have written: read within bounds, and written so that no spreadsheet computes it.

Everything here refuses with `RefusedError`, a `ValueError`: whoever reads says which file it is, and what to do.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from bagoftricks.data.names import shown
from bagoftricks.errors import UserError, first_line

MOST_JSON = 2**26
"""Bytes of a JSON file: a plan of 100,000 runs takes about 10 million."""
MOST_TOML = 2**18
"""Bytes of a TOML file: the largest preset takes 6,000."""
MOST_LINE = 4_000
"""Characters of its lines: the time to read a dotted key grows with the square of its length."""
MOST_DEPTH = 24
"""Tables and lists inside each other."""
MOST_DIGITS = 40
"""Of a whole number."""
MOST_NAME = 200
"""Bytes of a run's id."""


class RefusedError(ValueError):
    """Something that somebody else wrote is not what it must be: says in what."""


def open_plain(path: Path, most: int, *, follow: bool = False) -> IO[bytes]:
    """Opens a file for reading that is neither a pipe nor a device nor, unless `follow`, a link.

    Raises:
        RefusedError: if it is one of these, or has more than `most` bytes.
        OSError: if it cannot be opened.
    """
    if not follow and path.is_symlink():
        raise RefusedError("is a link")
    flags = [
        getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY", *(() if follow else ("O_NOFOLLOW",)))
    ]
    descriptor = os.open(path, os.O_RDONLY | sum(flags))
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_size > most:
        os.close(descriptor)
        raise RefusedError(
            f"has {about.st_size:,} bytes, more than {most:,}" if stat.S_ISREG(about.st_mode) else "is no plain file"
        )
    return os.fdopen(descriptor, "rb")


def read_plain(path: Path, most: int, *, follow: bool = False) -> bytes:
    """Returns what `open_plain` opens, even where it grows meanwhile.

    Raises:
        RefusedError: as `open_plain`.
    """
    with open_plain(path, most, follow=follow) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise RefusedError(f"has more than {most:,} bytes")
    return content


def read_named(path: Path, what: str, most: int) -> str:
    """Returns the text of a file that a user named, perhaps by a link.

    Raises:
        UserError: if it is not there, has more than `most` bytes, or is no UTF-8 text.
    """
    if not path.is_file():
        raise UserError(f"{what} {path}: no such file")
    try:
        return read_plain(path, most, follow=True).decode("utf-8")
    except RefusedError as error:
        raise UserError(f"{what} {path}: larger than {most / 2**20:g} MiB; is it a {what}?") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {path}: is no UTF-8 text ({first_line(error)})") from error


def parse_json(text: str | bytes) -> Any:
    """Returns what JSON says; numbers are finite, and whole ones have at most 40 digits.

    Raises:
        RefusedError: for anything else, or tables and lists more than 24 deep.
    """
    try:
        value = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_whole)
        _check_depth(value)
    except RecursionError as error:
        raise RefusedError("is nested too deep") from error
    return value


def read_object(path: Path, most: int = MOST_JSON, *, follow: bool = False) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Raises:
        RefusedError: as `read_plain` and `parse_json`, or if it is no object.
        ValueError: if it is no JSON.
    """
    value = parse_json(read_plain(path, most, follow=follow))
    if not isinstance(value, dict):
        raise RefusedError("holds no object")
    return value


def read_rows(path: Path, most: int = MOST_JSON) -> list[dict[str, float]]:
    """Returns the rows of a file of JSON lines, each an object of numbers; a last line without an end is left out.

    Raises:
        RefusedError: as `read_plain` and `parse_json`, or for a row of anything else.
        ValueError: for a line that is no JSON.
    """
    rows = [parse_json(line) for line in read_plain(path, most).split(b"\n")[:-1] if line]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not all(type(value) in (int, float) for value in row.values()):
            raise RefusedError(f"row {number} is no object of numbers")
    return rows


def parse_toml(text: str) -> dict[str, Any]:
    """Returns what TOML says.

    Raises:
        RefusedError: for more than 256 KiB, lines of more than 4,000 characters, or tables and lists more than 24 deep.
        ValueError: if it is no TOML.
    """
    if len(text) > MOST_TOML:
        raise RefusedError(f"has more than {MOST_TOML:,} characters")
    long = next((i for i, line in enumerate(text.split("\n"), start=1) if len(line) > MOST_LINE), None)
    if long:
        raise RefusedError(f"line {long} has more than {MOST_LINE:,} characters; write it as several")
    try:
        table = tomllib.loads(text)
        _check_depth(table)
    except RecursionError as error:
        raise RefusedError("is nested too deep") from error
    return table


def _number(text: str) -> float:
    value = float(text)  # of NaN and Infinity too, which JSON does not have
    if not math.isfinite(value):
        raise RefusedError(f"holds {text[:20]}, which is no number")
    return value


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise RefusedError(f"holds a whole number of {len(text):,} digits")
    return int(text)


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > MOST_DEPTH:
        raise RefusedError("is nested too deep")
    if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:  # TOML writes them in base 16, too
        raise RefusedError(f"holds a whole number of more than {MOST_DIGITS} digits")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(inner, depth + 1)


def check_id(name: Any) -> str:
    """Returns a run's id, which becomes a file name, if it is one name and nothing else.

    Raises:
        RefusedError: if it leads elsewhere, is hidden, or longer than 200 bytes.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[^\W_][^/\\:]*", name) or not name.isprintable():
        raise RefusedError(f"names a run '{shown(str(name))[:60]}', which is no identity")
    if len(name.encode()) > MOST_NAME:
        raise RefusedError(f"names a run by {len(name.encode()):,} bytes")
    return name


def conform(value: Any, shape: Any, where: str = "") -> Any:
    """Returns `value` if it is built as `shape` says.

    Args:
        value: of JSON.
        shape: a type, or a tuple of types (`float` takes whole numbers, and `int` no truth values); a list of one
            shape, for lists of it; a table of shapes, for tables that have these keys, those with a "?" at the end
            perhaps; the key "*" is any other.
        where: its name, for the message.

    Raises:
        RefusedError: if it is not.
    """
    if isinstance(shape, Mapping):
        _kind(value, dict, where)
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if key != "*" and name in value:
                conform(value[name], inner, f"{where}.{name}")
            elif key == name != "*":
                raise RefusedError(f"lacks {f'{where}.{name}'.strip('.')}")
        for key in value.keys() - {key.removesuffix("?") for key in shape} if "*" in shape else ():
            conform(value[key], shape["*"], f"{where}.{shown(key)[:40]}")
    elif isinstance(shape, list):
        for i, one in enumerate(_kind(value, list, where)):
            conform(one, shape[0], f"{where}[{i}]")
    else:
        _kind(value, shape, where)
    return value


def _kind(value: Any, kinds: Any, where: str) -> Any:
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    if type(value) is float and not math.isfinite(value):
        raise RefusedError(f"{where.strip('.')} is no finite number")
    if type(value) in allowed or (type(value) is int and float in allowed):
        return value
    names = {
        dict: "a table",
        list: "a list",
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
    }
    wanted = " or ".join(names.get(kind, "nothing") for kind in allowed)
    raise RefusedError(f"{where.strip('.') or 'it'} must be {wanted}")


def spelled_out(value: Any) -> Any:
    """Returns a value of JSON with control and formatting characters of its texts spelled out: see `names.shown`."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, dict):
        return {shown(key): spelled_out(inner) for key, inner in value.items()}
    return [spelled_out(inner) for inner in value] if isinstance(value, list) else value


def csv_cell(value: Any) -> str:
    """Returns a text for a cell of CSV that no spreadsheet takes for a formula.

    One that begins with = + - or @ and is no number gets an apostrophe before it, as OWASP advises; a reader that is no
    spreadsheet sees it too. Class and file names are others' words, and a formula may send a table elsewhere.
    """
    text = shown(str(value))
    if not re.match(r"\s*[=+\-@]\s*\S", text):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def check_tree(folder: Path, most: Mapping[str, int], depth: int = 2) -> None:
    """Refuses links, pipes, devices and giants among what a folder holds, before any of it is read.

    Args:
        folder: which may itself be a link, as its user may keep it elsewhere; nothing is refused where there is none.
        most: bytes of a file by its suffix; "" is that of a file without any; others are left alone.
        depth: levels of folders that are looked at.

    Raises:
        RefusedError: naming what is there.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                _check_entry(entry, most, depth)
    except FileNotFoundError:  # it is written to now
        return


def _check_entry(entry: os.DirEntry[str], most: Mapping[str, int], depth: int) -> None:
    try:
        about = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # a temporary name, gone by now
        return
    name, bound = shown(entry.name)[:80], most.get(Path(entry.name).suffix)
    if stat.S_ISDIR(about.st_mode):
        if depth > 1:
            check_tree(Path(entry.path), most, depth - 1)
    elif stat.S_ISLNK(about.st_mode):
        raise RefusedError(f"{name} is a link; replace it with what it leads to")
    elif not stat.S_ISREG(about.st_mode):
        raise RefusedError(f"{name} is no plain file")
    elif bound is not None and about.st_size > bound:
        raise RefusedError(f"{name} has {about.st_size:,} bytes, more than {bound:,}")
