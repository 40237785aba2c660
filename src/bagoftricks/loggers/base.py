"""What a logger is given, what it must do, and the names that all of them share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from bagoftricks.dotted import Value
from bagoftricks.errors import UserError, first_line, install


@dataclass(frozen=True)
class LoggedRun:
    """One training, as loggers know it."""

    id: str
    """The run's identity, in a study its folder's name: what is logged under the same one belongs together."""
    name: str
    """For people."""
    config: Mapping[str, Value]
    """Recipe fields by their dotted names."""
    cell: str
    """The cell of the study; trainings that differ in their seed alone share it."""
    seed: int


class Logger(Protocol):
    """Writes the logs of one tool; may raise whatever it likes, `Loggers` sees to it."""

    def start(self, run: LoggedRun) -> None:
        """Opens a run, the one already logged under the same id if there is one."""

    def epoch(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        """Writes measures after epoch `step`, counted from 1."""

    def finish(self, run_id: str, step: int, values: Mapping[str, float], status: str) -> None:
        """Writes the final measures and how the run ended: done, failed or interrupted."""

    def close(self) -> None:
        """Frees what is held; every run is finished by then."""


def series(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns an epoch's numbers under names that the tools group: `train/loss`, `eval/top1`; the rest as it is.

    The epoch itself is left out: it is the step.
    """
    return {
        re.sub(r"^(train|eval)_", r"\1/", name): float(value)
        for name, value in row.items()
        if name != "epoch" and isinstance(value, int | float)
    }


def file_name(name: str) -> str:
    """Returns a name that is safe as a file's and as a W&B project's, at most 50 characters long."""
    return re.sub(r"[^\w.+=-]+", "_", name)[:50].strip(".") or "run"


def load(extra: str, *modules: str) -> list[Any]:
    """Imports the modules that a tool consists of.

    Raises:
        UserError: if one is absent, naming the extra to install.
    """
    try:
        return [import_module(module) for module in modules]
    except ImportError as error:
        raise UserError(f"log to {extra}: {first_line(error)}; run: {install(extra)}") from error
