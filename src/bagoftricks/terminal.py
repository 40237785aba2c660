"""Standard output and standard error, as commands write to them; either reader may go away."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from rich.console import Console

WIDTH = 160
"""Columns of a table that is not shown on a terminal."""


class _Output(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Ends the command as a plain print would: rich itself ends the process, as failed."""
        raise BrokenPipeError


class _Notes(Console):
    def on_broken_pipe(self) -> None:
        """Goes on in silence: nobody listens, but the work was asked for."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def output() -> Console:
    """Returns what results are written to."""
    return _Output(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def error_console() -> Console:
    """Returns what notes and progress are written to."""
    return _Notes(stderr=True, highlight=False, soft_wrap=True)
