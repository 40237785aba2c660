"""MLflow: a local SQLite store, written without a server; its telemetry is off.

The package mlflow-skinny, SQLAlchemy and alembic suffice to write (files as a store are no longer kept up by MLflow).
Look at them, with the whole of mlflow, by `mlflow ui --backend-store-uri sqlite:///FOLDER/logs/mlflow/mlflow.db`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bagoftricks.loggers.base import LoggedRun, load

RUN_ID = "bagoftricks.run_id"
"""The tag by which a run is found again."""
STATUS = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
MOST_PARAMS = 100
"""In one request."""


class MlflowLogger:
    """Writes one MLflow run for each run, all in one experiment."""

    def __init__(self, folder: Path, project: str) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before the import, which would start it
        mlflow, self._entities, *_ = load("mlflow", "mlflow", "mlflow.entities", "sqlalchemy", "alembic")
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # "Creating initial tables…"
        place = (folder / "logs" / "mlflow").absolute()
        place.mkdir(parents=True, exist_ok=True)
        self._client = mlflow.MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
        experiment = self._client.get_experiment_by_name(project)
        self._experiment: str = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(project, artifact_location=(place / "artifacts").as_uri())
        )
        self._runs: dict[str, str] = {}
        """MLflow's id of each open run."""
        self._logged: dict[str, dict[str, int]] = {}
        """The last step of each metric of each open run."""

    def start(self, run: LoggedRun) -> None:
        earlier = self._client.search_runs([self._experiment], f"tags.`{RUN_ID}` = '{run.id}'", max_results=1)
        if earlier:
            found = earlier[0]
            self._runs[run.id] = found.info.run_id
            self._logged[run.id] = {name: self._last_step(found.info.run_id, name) for name in found.data.metrics}
            self._client.update_run(found.info.run_id, status="RUNNING")
            return
        tags = {RUN_ID: run.id, "cell": run.cell, "seed": str(run.seed)}
        created = self._client.create_run(self._experiment, tags=tags, run_name=run.name)
        self._runs[run.id], self._logged[run.id] = created.info.run_id, {}
        params = [self._entities.Param(name, str(value)) for name, value in run.config.items()]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(created.info.run_id, params=params[first : first + MOST_PARAMS])

    def epoch(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        logged, now = self._logged[run_id], int(time.time() * 1000)
        # a run that starts over repeats itself: its measures are not logged twice
        fresh = {name: value for name, value in values.items() if step > logged.get(name, -1)}
        metrics = [self._entities.Metric(name, value, now, step) for name, value in fresh.items()]
        self._client.log_batch(self._runs[run_id], metrics=metrics)
        logged |= dict.fromkeys(fresh, step)

    def finish(self, run_id: str, step: int, values: Mapping[str, float], status: str) -> None:
        self.epoch(run_id, step, values)
        self._client.set_terminated(self._runs.pop(run_id), STATUS[status])

    def close(self) -> None:
        """Nothing is held between calls."""

    def _last_step(self, mlflow_id: str, metric: str) -> int:
        history: list[Any] = self._client.get_metric_history(mlflow_id, metric)
        return max((entry.step for entry in history), default=-1)
