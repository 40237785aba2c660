"""Reads a user's files, whatever lies there: nothing blocks, nothing is read without bound."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from bagoftricks.data.names import shown
from bagoftricks.errors import RunError, first_line

MOST_BYTES = 2**28
"""Of an image file."""
NO_MEMORY, CHANGED = "too little memory", "changed while it was in use"
NUMBERS = ("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "ENOMEM", "EMFILE", "ENFILE", "EBUSY", "EHOSTDOWN", "EREMOTEIO")
MOMENTARY = frozenset((NO_MEMORY, *(os.strerror(getattr(errno, name)) for name in NUMBERS if hasattr(errno, name))))
"""Reasons that tell of this moment, as of a network drive that is away, and nothing of the image."""


class BadImageError(RunError):
    """An image that cannot be used, and why."""

    def __init__(self, name: str, reason: str, passing: bool = False) -> None:
        super().__init__(name, reason, passing)
        self.reason = reason
        """Its kind first; details follow in parentheses."""
        self.passing = passing
        """Whether the fault may be gone next time: it lies with the machine or the file system, not the content."""
        self._name = name

    def bare(self) -> BadImageError:
        """Returns the same error, of which nothing keeps alive what was read and decoded before it was raised."""
        return BadImageError(self._name, self.reason, self.passing)

    def __str__(self) -> str:
        advice = "" if self.passing else "; repair or remove it"
        return f"{shown(self._name)}: cannot be decoded ({self.reason}){advice}"


def read_bytes(path: Path) -> bytes:
    """Returns what a file holds; a pipe, socket or device is never opened, so that nothing blocks.

    Raises:
        BadImageError: if it is no regular file, cannot be read, or is larger than 256 MiB.
    """
    try:
        _check_regular(path, path.stat())
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(path, flags)
        try:
            _check_regular(path, os.fstat(descriptor))  # what is there now
            parts, size = [], 0
            while part := os.read(descriptor, 2**24):
                parts.append(part)
                if (size := size + len(part)) > MOST_BYTES:
                    raise BadImageError(str(path), f"larger than {MOST_BYTES // 2**20} MiB")
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise BadImageError(str(path), reason, passing=True) from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_regular(path: Path, status: os.stat_result) -> None:
    kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "named pipe"), (stat.S_ISSOCK, "socket"))
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in kinds if test(status.st_mode)), "device")
        raise BadImageError(str(path), f"a {kind}, not a file", passing=True)
    if status.st_size > MOST_BYTES:
        raise BadImageError(str(path), f"larger than {MOST_BYTES // 2**20} MiB")
