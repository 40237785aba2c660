"""What a user did wrong, in one line; what went wrong while running, in one line."""

from __future__ import annotations

import difflib
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

MOST_CHOICES = 20
"""How many valid names an error lists."""


class UserError(Exception):
    """The request was wrong: the message says what, where and what to do. Exit status 2."""


class RunError(Exception):
    """Something failed while running: the message says what, where and what to do. Exit status 1."""


class StorageError(RunError):
    """The disk is full, or a folder can no longer be written to: what is finished is kept, and all else waits."""


class DeviceMemoryError(RunError):
    """The device has too little memory for a batch; a smaller micro-batch may fit."""


def unknown(kind: str, name: str, options: Iterable[str]) -> UserError:
    """Returns the error for a `name` that is none of `options`, naming the nearest valid one."""
    choices = {option.lstrip("-"): option for option in sorted(options)}
    near = difflib.get_close_matches(name.lstrip("-"), choices, n=1, cutoff=0.6)
    if near:
        hint = f"did you mean '{choices[near[0]]}'?"
    elif len(choices) <= MOST_CHOICES:
        hint = f"choose from: {', '.join(choices.values())}"
    else:
        hint = "nothing similar is known"
    return UserError(f"unknown {kind} '{name}': {hint}")


def first_line(error: BaseException) -> str:
    """Returns what an exception says, in one line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def install(extra: str) -> str:
    """Returns the command that installs an extra where bagoftricks is: in a checkout, or as a package."""
    checkout = Path(__file__).parents[2]
    editable = (checkout / "pyproject.toml").is_file()
    what = f"--editable '{checkout}[{extra}]'" if editable else f"'bagoftricks[{extra}]'"
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else "uv" if shutil.which("uv") else ""
    pip = f"{uv} pip install --python {sys.executable}" if uv else f"{sys.executable} -m pip install"
    return f"{pip} {what}"
