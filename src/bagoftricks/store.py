"""Run folders: written by training, read by studies and reports. `study_folder` reads what stands beside the runs.

```
plan.json              of a study: what is varied, its cells and runs, the data, the hardware
cache/                 decoded images; may be deleted at any time
data/                  of a study, for its report: check.json, samples.jpg, mistakes.json
models/<name>.json     of a study: each architecture's layers, for its report
runs/<id>/             complete, or not there
  recipe.toml          every field, resolved
  environment.json     versions, machine, threads, precision
  metrics.jsonl        a line an epoch
  predictions.npz      logits (N x K), labels (N), members (N, indices into the data set), names (of files, as bytes)
  result.json          the last epoch's measures, seconds, what the initial weights gave
  model.safetensors    with config.json, where the model is kept
runs/<id>.partial/     while it trains, and after it was killed
  checkpoint/          from which it continues; see `training.checkpoint`
locks/<id>             while it trains; held by the process that does
test.json              what was measured on the locked test set, and when: it is spent then
failures/<id>.json     why a run failed; removed when it succeeds
```
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from bagoftricks.data import untrusted
from bagoftricks.data.arrays import read_arrays
from bagoftricks.errors import RunError, UserError, first_line
from bagoftricks.files import (
    is_locked,
    locked,
    publish_folder,
    remove_folder,
    storage_errors,
    write_json,
    write_text,
)

MODEL, CONFIG = "model.safetensors", "config.json"
RESULT, METRICS, RECIPE, ENVIRONMENT, PREDICTIONS = (
    "result.json",
    "metrics.jsonl",
    "recipe.toml",
    "environment.json",
    "predictions.npz",
)
NAMES = "names"
"""Of the array in `predictions.npz`."""
PARTIAL = ".partial"
"""Suffix of the folder of an unfinished run."""
CHECKPOINT = "checkpoint"
"""Folder in that of an unfinished run."""


class BusyError(RunError):
    """Another process is at work on the same run."""


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
        return read_object(self.folder / RESULT)

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """One row an epoch."""
        return read_rows(self.folder / METRICS)

    @cached_property
    def environment(self) -> dict[str, Any]:
        return read_object(self.folder / ENVIRONMENT)

    def predictions(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays `logits` (N, K), `labels` (N) and `members` (N) of the validation set.

        Raises:
            RunError: if the file is missing or damaged.
        """
        return self._arrays(names=False)

    def names(self) -> list[str] | None:
        """Returns the name of each image of the validation set, in the order of `members`.

        None for a run of an earlier version, which did not keep them.

        Raises:
            RunError: if the file is missing or damaged.
        """
        packed = self._arrays(names=True)
        return unpack_names(packed[NAMES]) if packed else None

    def _arrays(self, *, names: bool) -> dict[str, npt.NDArray[Any]]:
        path = self.folder / PREDICTIONS
        try:
            return {name: array for name, array in read_arrays(path).items() if (name == NAMES) == names}
        except (OSError, ValueError, EOFError, BadZipFile, zlib.error, NotImplementedError) as error:
            raise RunError(f"{path}: cannot be read ({first_line(error)}); remove its folder, and run again") from error


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
        self.locks = root / "locks"
        self.data_check = root / "data" / "check.json"
        self.samples = root / "data" / "samples.jpg"
        self.mistakes = root / "data" / "mistakes.json"
        self.structures = root / "models"

    def get(self, run_id: str) -> StoredRun | None:
        """Returns a run if it is complete."""
        folder = self.runs / untrusted.check_id(run_id)
        return StoredRun(folder) if (folder / RESULT).is_file() else None

    def clear(self, run_id: str) -> None:
        """Removes the checkpoint of a complete run, which a kill just after it was put in place leaves there."""
        shutil.rmtree(self.runs / run_id / CHECKPOINT, ignore_errors=True)

    def failure(self, run_id: str) -> str | None:
        """Returns why a run failed, if it did."""
        path = self.failures / f"{run_id}.json"
        return str(read_object(path).get("error")) if path.is_file() else None

    def record_failure(self, run_id: str, name: str, error: str) -> None:
        """Keeps why a run failed."""
        write_json(self.failures / f"{run_id}.json", {"run": name, "error": error})

    def progress(self, run_id: str) -> list[dict[str, float]] | None:
        """Returns the epochs so far of a run that somebody is training now; None where nobody is."""
        if not is_locked(self.locks / run_id):
            return None
        return read_rows(self._partial(run_id) / METRICS)

    @contextmanager
    def claim(self, run_id: str) -> Iterator[None]:
        """Keeps other processes from training the same run; the claim dies with the process that holds it.

        Once it is held, `get` sees what other machines have finished: a network drive's client may remember for a
        minute that a run was not there, until its folder changes.

        Raises:
            BusyError: if another process has it.
        """
        with locked(self.locks / run_id) as taken:
            if not taken:
                raise BusyError(f"run {run_id}: another process is training it")
            fresh = self.runs / f"{run_id}.claim{PARTIAL}"
            fresh.mkdir(parents=True, exist_ok=True)
            fresh.rmdir()
            yield

    def drop_model(self, run_id: str) -> None:
        """Removes a complete run's weights; its results stay."""
        for name in (MODEL, CONFIG):
            (self.runs / run_id / name).unlink(missing_ok=True)

    def models(self) -> list[StoredRun]:
        """Returns the complete runs whose weights were kept, by id."""
        return [StoredRun(folder) for folder in self.finished() if (folder / MODEL).is_file()]

    def finished(self) -> list[Path]:
        """Returns the folders of the complete runs, by id; one that is being written is none of them."""
        return sorted(p.parent for p in self.runs.glob(f"*/{RESULT}") if p.parent.suffix != PARTIAL)

    @contextmanager
    def writing(self, run_id: str) -> Iterator[RunWriter]:
        """Yields a writer for a run that this process has claimed.

        The run's folder appears complete when the block ends, and not at all if it raises. A checkpoint that an earlier
        attempt left is kept until then.

        Raises:
            StorageError: if the disk is full, or the folder has gone or cannot be written to.
        """
        partial = self._partial(untrusted.check_id(run_id))
        if partial.is_symlink():  # what it leads to is another's, and nothing there is removed
            partial.unlink()
        partial.mkdir(parents=True, exist_ok=True)  # that of an attempt that died holds a checkpoint
        with storage_errors(self.root):
            for left in partial.iterdir():
                if left.name != CHECKPOINT or left.is_symlink():
                    remove_folder(left)
            yield RunWriter(partial)
            publish_folder(partial, self.runs / run_id, without=CHECKPOINT)
        (self.failures / f"{run_id}.json").unlink(missing_ok=True)

    def _partial(self, run_id: str) -> Path:
        return self.runs / f"{run_id}{PARTIAL}"


@dataclass(frozen=True)
class RunWriter:
    """Writes one run's files into its partial folder."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Folder of the run's checkpoint."""
        return self.folder / CHECKPOINT

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


def kept_model(folder: Path) -> Path:
    """Returns a model's folder: this one, or, of trainings or a study, that of the only run which kept its model.

    Raises:
        UserError: if none or several of its runs kept one.
    """
    if (folder / "config.json").is_file() or not (folder / "runs").is_dir():
        return folder
    kept = [run.folder for run in Store(folder).models()]
    if len(kept) > 1:
        raise UserError(f"{folder}: {len(kept)} of its runs kept a model; name one of them, as {kept[0]}")
    if not kept:
        raise UserError(f"{folder}: none of its runs kept a model; studies keep them with --keep best")
    return kept[0]


def pack_names(names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Returns names as one array of bytes, UTF-8 joined by NUL, which no file name holds; any bytes survive."""
    return np.frombuffer("\0".join(names).encode(errors="surrogateescape"), dtype=np.uint8)


def unpack_names(packed: npt.NDArray[np.uint8]) -> list[str]:
    """Returns what `pack_names` was given; one name at least."""
    return packed.tobytes().decode(errors="surrogateescape").split("\0")


def read_rows(path: Path) -> list[dict[str, float]]:
    """Reads JSON lines; a last line that is still being written is left out."""
    if not path.is_file():
        return []
    try:
        return untrusted.read_rows(path)
    except ValueError as error:
        raise RunError(f"{path}: damaged ({first_line(error)}); remove its folder, and run again") from error


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object that was written here.

    Raises:
        RunError: if the file is damaged.
    """
    try:
        return untrusted.read_object(path)
    except ValueError as error:
        raise RunError(f"{path}: damaged ({first_line(error)}); remove it, and run the study again") from error
