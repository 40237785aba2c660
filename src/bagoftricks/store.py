"""Run folders: written by training, read by studies and reports.

```
plan.json              of a study: what is varied, its cells and runs, the data, the hardware
cache/                 decoded images; may be deleted at any time
runs/<id>/             complete, or not there
  recipe.toml          every field, resolved
  environment.json     versions, machine, threads, precision
  metrics.jsonl        a line an epoch
  predictions.npz      logits (N x K), labels (N), members (N, indices into the data set)
  result.json          the last epoch's measures, seconds, what the initial weights gave
  model.safetensors    with config.json, where the model is kept
runs/<id>.partial/     while it trains; a lock tells whether anybody still does
failures/<id>.json     why a run failed; removed when it succeeds
```
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bagoftricks.errors import RunError, UserError
from bagoftricks.files import publish_folder, write_json, write_text

RESULT, METRICS, RECIPE, ENVIRONMENT, PREDICTIONS = (
    "result.json",
    "metrics.jsonl",
    "recipe.toml",
    "environment.json",
    "predictions.npz",
)
LOCK = "lock"


@dataclass(frozen=True)
class StoredRun:
    """A complete run on disk."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @cached_property
    def result(self) -> dict[str, Any]:
        """The measures after the last epoch and how they came about."""
        return json.loads((self.folder / RESULT).read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """One row an epoch."""
        return read_rows(self.folder / METRICS)

    @cached_property
    def environment(self) -> dict[str, Any]:
        return json.loads((self.folder / ENVIRONMENT).read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def predictions(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays `logits` (N, K), `labels` (N) and `members` (N) of the validation set."""
        with np.load(self.folder / PREDICTIONS, allow_pickle=False) as arrays:
            return dict(arrays)


class Store:
    """The runs below one folder."""

    SCHEMA = 1
    """Of `plan.json`; raised when a reader of the earlier one would misread it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plan = root / "plan.json"
        self.cache = root / "cache"
        self.runs = root / "runs"
        self.failures = root / "failures"

    def get(self, run_id: str) -> StoredRun | None:
        """Returns a run if it is complete."""
        folder = self.runs / run_id
        return StoredRun(folder) if (folder / RESULT).is_file() else None

    def failure(self, run_id: str) -> str | None:
        """Returns why a run failed, if it did."""
        path = self.failures / f"{run_id}.json"
        return str(json.loads(path.read_text(encoding="utf-8"))["error"]) if path.is_file() else None

    def record_failure(self, run_id: str, name: str, error: str) -> None:
        """Keeps why a run failed."""
        write_json(self.failures / f"{run_id}.json", {"run": name, "error": error})

    def progress(self, run_id: str) -> list[dict[str, float]] | None:
        """Returns the epochs so far of a run that somebody is training now; None where nobody is."""
        partial = self._partial(run_id)
        if not (partial / LOCK).is_file() or _is_free(partial / LOCK):
            return None
        return read_rows(partial / METRICS)

    @contextmanager
    def writing(self, run_id: str) -> Iterator[RunWriter]:
        """Yields a writer for a new run; the folder appears complete when the block ends, and not at all if it raises.

        Raises:
            RunError: if another process is at work on the same run.
        """
        partial = self._partial(run_id)
        partial.mkdir(parents=True, exist_ok=True)
        with (partial / LOCK).open("w") as lock:
            if not _lock(lock.fileno()):
                raise RunError(f"run {run_id}: another process is training it")
            for leftover in partial.iterdir():  # of an attempt that died
                if leftover.name != LOCK:
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield RunWriter(partial)
            (partial / LOCK).unlink()
            publish_folder(partial, self.runs / run_id)
            (self.failures / f"{run_id}.json").unlink(missing_ok=True)

    def _partial(self, run_id: str) -> Path:
        return self.runs / f"{run_id}.partial"


@dataclass(frozen=True)
class RunWriter:
    """Writes one run's files into its partial folder."""

    folder: Path

    def recipe(self, toml: str) -> None:
        write_text(self.folder / RECIPE, toml)

    def environment(self, values: dict[str, Any]) -> None:
        write_json(self.folder / ENVIRONMENT, values)

    def epoch(self, row: dict[str, float]) -> None:
        """Appends one epoch's measures."""
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def predictions(self, **arrays: npt.NDArray[Any]) -> None:
        with (self.folder / PREDICTIONS).open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def result(self, values: dict[str, Any]) -> None:
        write_json(self.folder / RESULT, values)


def read_plan(root: Path) -> dict[str, Any]:
    """Returns the plan of a study folder.

    Raises:
        UserError: if there is none, or it is of a later version.
    """
    path = Store(root).plan
    if not path.is_file():
        raise UserError(f"study folder {root}: no {path.name} in it; is it the folder given as --out?")
    plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if plan.get("schema", 0) > Store.SCHEMA:
        raise UserError(f"study folder {root}: written by a later version; upgrade bagoftricks")
    return plan


def read_rows(path: Path) -> list[dict[str, float]]:
    """Reads JSON lines; a last line that is still being written is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def _lock(descriptor: int) -> bool:
    """Takes an exclusive lock that dies with the process; False if somebody has it."""
    try:
        import fcntl
    except ImportError:  # Windows: one process at a time is up to the user
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_free(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR)
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)
