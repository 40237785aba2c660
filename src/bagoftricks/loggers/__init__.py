"""Logs of runs to other tools: TensorBoard, MLflow, Weights & Biases. Each is an optional extra, and none a server.

They are copies for looking at, below `logs/` of the folder that holds the runs; the run folders are what counts, and
reports read nothing else. Used in the process that watches the trainings, never in those that train.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from bagoftricks.console import note
from bagoftricks.dotted import Value
from bagoftricks.errors import RunError, UserError, first_line, unknown
from bagoftricks.loggers.base import LoggedRun, Logger, series

if TYPE_CHECKING:
    from bagoftricks.studies.engine import Event

LOGGERS = {"tensorboard": "TensorBoardLogger", "mlflow": "MlflowLogger", "wandb": "WandbLogger"}
"""Modules of this folder, each also the name of an extra, and their classes."""
STATUSES = ("done", "failed", "interrupted")


class Loggers:
    """Several logs written side by side. Runs may be open at the same time; each call names its run.

    A logger that raises is switched off, with one warning on standard error: it must not cost the run.
    """

    def __init__(self, loggers: Mapping[str, Logger]) -> None:
        self._loggers = dict(loggers)
        self._waiting: dict[str, LoggedRun] = {}
        self._steps: dict[str, int] = {}
        """The last epoch of each open run."""

    def start(self, run_id: str, name: str, config: Mapping[str, Value], *, cell: str, seed: int) -> None:
        """Announces a run. It is written from its first epoch, so that one that another process turns out to be
        training ("busy") leaves no trace.

        Args:
            run_id: the run's identity; a run logged before under the same one is continued.
            name: for people.
            config: recipe fields by their dotted names, without the seed.
            cell: what the seeds of one configuration share.
            seed: of the run.
        """
        self._waiting[run_id] = LoggedRun(run_id, name, dict(config), cell, seed)

    def epoch(self, run_id: str, row: Mapping[str, float]) -> None:
        """Writes an epoch's measures; `row` has its number, from 1, as "epoch"."""
        self._open(run_id)
        step = self._steps[run_id] = int(row["epoch"])
        values = series(row)
        self._each(lambda logger: logger.epoch(run_id, step, values))

    def finish(self, run_id: str, measures: Mapping[str, Any], status: str) -> None:
        """Writes the measures of the finished run, under `final/`, and how it ended.

        Args:
            run_id: a run that was started; of another, which failed in another process, there is nothing to write.
            measures: what the run gave; what is no number is left out. May be empty.
            status: done, failed or interrupted.
        """
        if status not in STATUSES:
            raise ValueError(f"status {status!r}: none of {', '.join(STATUSES)}")
        self._open(run_id)
        step = self._steps.pop(run_id, None)
        if step is None:
            return
        values = {f"final/{name}": value for name, value in series(measures).items()}
        self._each(lambda logger: logger.finish(run_id, step, values, status))

    def on_event(self, event: Event, measures: Mapping[str, Any]) -> None:
        """Writes what happens to a run of a study.

        Args:
            event: from `studies.run.execute_plan`.
            measures: what the run gave, where it is done.
        """
        task = event.task
        if event.kind == "started":
            self.start(task.id, task.name, task.recipe.flat(), cell=task.cell, seed=task.seed)
        elif event.kind == "epoch":
            self.epoch(task.id, event.row)
        elif event.kind in ("done", "failed"):
            self.finish(task.id, measures, event.kind)

    def close(self) -> None:
        """Finishes what is open as interrupted, and closes the logs."""
        self._waiting.clear()
        for run_id in list(self._steps):
            self.finish(run_id, {}, "interrupted")
        self._each(lambda logger: logger.close())
        self._loggers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, run_id: str) -> None:
        run = self._waiting.pop(run_id, None)
        if run is not None:
            self._steps[run_id] = 0
            self._each(lambda logger: logger.start(run))

    def _each(self, act: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                act(logger)
            except Exception as error:
                del self._loggers[name]
                note(f"Warning: the log to {name} is switched off: {first_line(error)}")
                with suppress(Exception):
                    logger.close()


def open_loggers(names: Sequence[str], folder: Path, project: str) -> Loggers:
    """Opens the logs that a user asked for.

    Args:
        names: of "tensorboard", "mlflow" and "wandb"; none gives loggers that do nothing.
        folder: of the study or the training; each log is a folder below its `logs/`.
        project: what the runs are filed under: MLflow's experiment, W&B's project.

    Raises:
        UserError: for an unknown name (naming the nearest), or a tool that is not installed (naming the extra).
        RunError: if a log cannot be opened.
    """
    for name in names:
        if name not in LOGGERS:
            raise unknown("logger", name, LOGGERS)
    opened: dict[str, Logger] = {}
    for name in names:
        kind = getattr(import_module(f"bagoftricks.loggers.{name}"), LOGGERS[name])
        try:
            opened[name] = kind(folder, project)
        except UserError:
            raise
        except Exception as error:
            raise RunError(f"log to {name}, below {folder / 'logs'}: {first_line(error)}") from error
    return Loggers(opened)
