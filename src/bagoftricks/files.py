"""Atomic writes, locks that die with their process, content hashes, and checks of what a user names."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bagoftricks.errors import StorageError, UserError, first_line

try:
    import fcntl
except ImportError:  # Windows: one process at a time is up to the user
    fcntl = None  # type: ignore[assignment]

NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""A lock that is a link is not created elsewhere, and one that is a pipe does not block."""
PATIENCE_S = 1.0
"""How long to wait for a lock: longer than anybody needs to look whether it is held."""
STORAGE = {
    errno.ENOSPC: "no room is left on the disk; make some",
    getattr(errno, "EDQUOT", -1): "the disk quota is used up; make room",
    errno.EROFS: "it can no longer be written to; mount it writable",
    errno.EIO: "the disk does not answer properly; look at it",
    errno.ESTALE: "the network drive has gone; mount it again",
}
"""What the system says of a disk that fails, and what to do."""


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turns what the system says of a disk that fails within the block into an error that names `folder`.

    Raises:
        StorageError: where the disk is full, the folder has gone, or cannot be written to any longer.
    """
    try:
        yield
    except OSError as error:
        reason = STORAGE.get(error.errno or 0)
        if not reason and error.errno in (errno.ENOENT, errno.ENOTDIR) and not folder.is_dir():
            reason = "the folder has gone; put it back, or choose another"
        if not reason and error.errno in (errno.EACCES, errno.EPERM) and not os.access(folder, os.W_OK):
            reason = "it can no longer be written to; change its permissions"
        if not reason:
            raise
        raise StorageError(f"{folder}: {reason}, and give the same command again: it continues") from error


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows syncs no folders
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows syncs what it may write to
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; on success it is synced and renamed to `path`, on failure removed."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")  # machines that share a folder share pids
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path, prefix: str = "") -> None:
    """Removes what a killed process left half-written, of files whose names begin so and that nobody writes to now."""
    for left in folder.glob(f".{prefix}*.tmp"):
        left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically, creating parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NaN is refused: JSON has none.

    Names of files and folders may hold bytes that are no UTF-8; where some do, all that is not ASCII is escaped.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    write_text(path, f"{text}\n")


def expanded(path: str | Path) -> Path:
    """Returns a path with the user's home for a leading `~`; as it is where `~` begins the name of a file.

    `Path.expanduser` raises where there is no user of that name.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111


def publish_folder(partial: Path, final: Path, *, without: str = "") -> None:
    """Makes `partial` appear as `final`, complete or not at all: every file is synced, then the folder renamed.

    What is called `without` in it, and serves to make it again, is removed only when the rest is in its place: a kill
    just before leaves it there.
    """
    scratch = partial / without if without else None
    for file in partial.rglob("*"):
        if file.is_file() and not (scratch and file.is_relative_to(scratch)):
            _sync(file)
    _sync(partial)
    remove_folder(final)
    partial.replace(final)
    _sync(final.parent)
    if without:
        shutil.rmtree(final / without, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Removes a folder and what is in it; of a link, the link alone."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def cache_folder() -> Path:
    """Returns the user's folder for what can be computed again: BAGOFTRICKS_CACHE, or the system's usual place."""
    if named := os.environ.get("BAGOFTRICKS_CACHE"):
        return expanded(named)
    usual = {"darwin": "~/Library/Caches", "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local")}
    return expanded(os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, "~/.cache")) / "bagoftricks"


def file_digest(path: Path) -> str:
    """Returns the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Yields whether this process could lock `path`, which is created, and removed when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NOFOLLOW)
        taken = _flock(descriptor, path, exclusive=True)
        if taken and _is_still(descriptor, path):
            break
        os.close(descriptor)
        if not taken and time.monotonic() > deadline:
            yield False
            return
        time.sleep(0.02)
    try:
        yield True
    finally:
        if os.name == "nt":  # Windows removes nothing that is open
            os.close(descriptor)
            with suppress(OSError):  # and another process may have opened it by now
                path.unlink(missing_ok=True)
        else:
            path.unlink(missing_ok=True)
            os.close(descriptor)


@contextmanager
def waiting_for(lock: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds a lock, once no other process does; `waiting` is called about each second until then."""
    while True:
        with locked(lock) as taken:
            if taken:
                yield
                return
        waiting()


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | NOFOLLOW)
    except OSError:
        return False
    try:
        return not _flock(descriptor, path, exclusive=False)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, path: Path, *, exclusive: bool) -> bool:
    if fcntl is None:
        return exclusive  # a file that is there counts as held
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise StorageError(
                f"{path.parent}: its drive has no file locks, which keep two processes from the same run "
                f"({error.strerror}); mount it with locks, or choose a folder on another drive"
            ) from error
        raise
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the locked file is the one that stands at `path`, and not one that its last owner has removed."""
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def read_text(path: Path, what: str) -> str:
    """Returns the text of a file that a user named.

    Raises:
        UserError: if it is not there, or no UTF-8 text.
    """
    if not path.is_file():
        raise UserError(f"{what} {path}: no such file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {path}: is no UTF-8 text ({first_line(error)})") from error


def check_output(out: Path, data: Iterable[Path] = ()) -> None:
    """Refuses a folder that cannot be written to, or that lies inside the user's data.

    Raises:
        UserError: if so; nothing is written.
    """
    for folder in data:
        if out.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"output folder {out}: lies inside the data folder {folder}, which is only ever read")
    there = next(parent for parent in (out.absolute(), *out.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise UserError(f"output folder {out}: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"output folder {out}: {there} cannot be written to")
