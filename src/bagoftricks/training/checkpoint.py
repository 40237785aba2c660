"""Checkpoints within a run: all that its next step depends on, so that a killed run goes on to the very same weights.

Written by a thread from a copy, while training goes on; under a temporary name, synced, then renamed: whoever is
killed, the last whole one stands. Random draws need no state: each comes from (seed, name, step), see `rng`.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bagoftricks
from bagoftricks.errors import RunError, first_line
from bagoftricks.files import replacing, storage_errors, sweep
from bagoftricks.models.state import check_archive

MINUTES = 5.0
"""Between two checkpoints within an epoch, by default; there is one after each epoch as well."""
NAME = "state.pt"


@dataclass(frozen=True)
class State:
    """Where a training stands. Read with `weights_only`, so that it cannot execute anything."""

    epoch: int
    """Of the next step, from 0."""
    step: int
    """The next step of that epoch, from 0."""
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    meter: Mapping[str, Tensor]
    """Sums over the steps of this epoch."""
    losses: Tensor
    """(steps,) of this epoch, those to come 0."""
    rows: list[dict[str, float]]
    """Measures of the epochs that are complete."""
    seconds: float
    """Trained in this epoch so far."""
    total_seconds: float
    """Spent on the run so far, interruptions apart."""
    tricks: Mapping[str, Any] = field(default_factory=dict)
    """What tricks keep beside the network, by their names."""


class Checkpoints:
    """The checkpoint of one run, in a folder that no other process writes to."""

    def __init__(self, folder: Path, conditions: Mapping[str, Any], minutes: float = MINUTES) -> None:
        """Prepares to read and write; nothing is touched yet.

        Args:
            folder: where the checkpoint lies; created.
            conditions: what must be equal for a checkpoint to be continued, beside the versions of torch and of this
                program: the micro-batch, and all else that is no part of the run's identity.
            minutes: between two checkpoints within an epoch; 0 writes none at all.
        """
        self.path, self.minutes = folder / NAME, minutes
        self.conditions = {**conditions, "torch": str(torch.__version__), "bagoftricks": bagoftricks.__version__}
        self.spent_s = 0.0
        """Seconds that the continued run had taken before."""
        self._last = time.monotonic()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def load(self) -> State | None:
        """Returns the state to continue from; None where there is none, or one that this program did not leave.

        Raises:
            RunError: where it cannot be read now, which says nothing against it.
        """
        sweep(self.path.parent)
        try:
            check_archive(self.path, most=2**63)  # our own, however large the network
            kept = torch.load(self.path, map_location="cpu", weights_only=True)
            if kept["conditions"] != self.conditions:
                return None
            state = State(**kept["state"])
        except FileNotFoundError:
            return None
        except (OSError, MemoryError) as error:
            raise RunError(f"{self.path}: cannot be read ({first_line(error)}); try the same command again") from error
        except (RuntimeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError) as error:
            if "allocate" in str(error):  # torch's own words for too little memory
                raise RunError(f"{self.path}: too little memory to read it; try the same command again") from error
            self.path.unlink(missing_ok=True)  # damaged on the disk, or of another format: the run starts anew
            return None
        self.spent_s = state.total_seconds
        return state

    def due(self) -> bool:
        """Whether it is time for another one within an epoch."""
        return 0 < 60 * self.minutes <= time.monotonic() - self._last

    def save(self, state: State) -> None:
        """Begins to write a copy of `state`; where the one before is still being written, this one is left out.

        Raises:
            StorageError: if the one before could not be written.
        """
        if self._thread and self._thread.is_alive():
            return
        self.wait()
        if self.minutes <= 0:
            return
        copied = {name: _copied(value) for name, value in vars(state).items()}
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._write, args=(copied,), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Waits until the last one is written.

        Raises:
            StorageError: if it could not be.
        """
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._error:
            error, self._error = self._error, None
            raise error

    def stop(self) -> None:
        """Waits until nothing is being written any more, and raises nothing: for a run that has failed already."""
        if self._thread:
            self._thread.join()

    def _write(self, state: dict[str, Any]) -> None:
        folder = self.path.parent
        try:
            with storage_errors(folder.parent.parent):
                folder.mkdir(exist_ok=True)
                with replacing(self.path) as temporary, temporary.open("wb") as file:
                    _save({"conditions": self.conditions, "state": state}, file)
        except BaseException as error:
            self._error = error


def _save(values: dict[str, Any], file: BufferedWriter) -> None:
    """Writes by torch; of a disk that fails the system's own error is raised, which torch hides behind another."""
    met: list[OSError] = []

    class Noting:
        def write(self, data: Any) -> int:
            try:
                return file.write(data)
            except OSError as error:
                met.append(error)
                raise

        def flush(self) -> None:
            file.flush()

    try:
        torch.save(values, Noting())  # type: ignore[arg-type]
    except RuntimeError:
        if met:
            raise met[0] from None
        raise


def _copied(value: Any) -> Any:
    """Returns a copy on the CPU, of tensors in the same memory layout, since that decides in which order one adds."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(part) for part in value)
    return value
