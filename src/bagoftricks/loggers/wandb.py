"""Weights & Biases: files of its offline mode; nothing leaves the machine before `wandb sync FOLDER/logs/wandb/*run-*`.

Unless the user has set WANDB_MODE. Nobody is ever asked to log in. A run that is continued gets a folder more, under
the same W&B id; `wandb sync` makes one run of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bagoftricks.loggers.base import LoggedRun, file_name, load

EXIT = {"done": 0, "failed": 1, "interrupted": 130}


class WandbLogger:
    """Writes one W&B run for each run; the seeds of a cell are a group."""

    def __init__(self, folder: Path, project: str) -> None:
        self.mode = None if os.environ.get("WANDB_MODE") else "offline"
        if self.mode == "offline":  # it would report its own errors to its makers even then
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")  # no talk, and in a terminal no question for an account
        (self._wandb,) = load("wandb", "wandb")
        self.folder, self.project = folder / "logs", file_name(project)
        # statistics of the machine would be of this process, which computes nothing
        self._settings = self._wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
        self._runs: dict[str, Any] = {}

    def start(self, run: LoggedRun) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)  # W&B would write elsewhere
        self._runs[run.id] = self._wandb.init(
            project=self.project,
            id=run.id,
            name=run.name,
            group=run.cell,
            config={"cell": run.cell, "seed": run.seed, **run.config},
            dir=str(self.folder),  # it adds "wandb"
            mode=self.mode,
            resume="allow",
            reinit="create_new",  # beside the runs that are open
            settings=self._settings,
        )

    def epoch(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        self._runs[run_id].log(dict(values), step=step, commit=True)

    def finish(self, run_id: str, step: int, values: Mapping[str, float], status: str) -> None:
        run = self._runs.pop(run_id)
        run.summary.update({**values, "status": status})
        run.finish(exit_code=EXIT[status])

    def close(self) -> None:
        for run in self._runs.values():
            run.finish(exit_code=EXIT["interrupted"])
