"""What a study folder holds: its plan, the state of every run, the measures, the curves."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.data.names import shown
from bagoftricks.reports.guard import RESULT, check_folder, check_plan, check_shape
from bagoftricks.reports.privacy import error_without_paths, public_names, without_paths
from bagoftricks.store import RESULT as RESULT_FILE
from bagoftricks.store import Store
from bagoftricks.studies.best import metric_of
from bagoftricks.studies.pairing import pairing_warnings
from bagoftricks.study_folder import read_plan

if TYPE_CHECKING:
    from bagoftricks.studies.effects import Analysis

MEASURES = ("top1", "top5", "mean_class_acc", "macro_f1", "loss")
HEADINGS = {
    "top1": "Top-1",
    "top5": "Top-5",
    "mean_class_acc": "Mean per class",
    "macro_f1": "Macro F1",
    "loss": "Loss",
}
WARNED = {"Initial weights": "weights", "Teacher": "teacher"}
"""Parts of a run's result that may hold a warning, by what they are called."""
STATES = ("done", "running", "failed", "left")


@dataclass(frozen=True)
class RunRow:
    """One run of the plan, as it stands."""

    id: str
    cell: str
    seed: int
    state: str
    """done, running, failed or left."""
    result: Mapping[str, Any]
    """The stored result of a done run; empty otherwise."""
    history: tuple[Mapping[str, float], ...]
    """One row for each epoch so far."""
    error: str = ""


@dataclass(frozen=True)
class Spread:
    """A measure over the runs of a cell."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """Sample standard deviation; None for a single run."""
        return statistics.stdev(self.values) if self.n > 1 else None


@dataclass(frozen=True)
class Results:
    """A study folder, read once."""

    root: Path
    plan: Mapping[str, Any]
    runs: tuple[RunRow, ...]

    @cached_property
    def cells(self) -> list[str]:
        """Names of the cells, in the design's order."""
        return [cell["name"] for cell in self.plan["cells"]]

    @cached_property
    def measures(self) -> list[str]:
        """The measures that there are: no Top-5 below six classes."""
        found = {name for run in self.done for name in run.result}
        return [name for name in MEASURES if name in found]

    @cached_property
    def metric(self) -> str:
        """The primary metric; where runs of an earlier version lack it, Top-1."""
        named = str(self.plan["study"].get("metric", "top1"))
        return metric_of((run.result for run in self.done), named) if self.done else named

    @cached_property
    def analysis(self) -> Analysis | None:
        """The effects on the primary metric, computed once; see `reports.analysis.study_analysis`."""
        from bagoftricks.reports.analysis import study_analysis  # which reads results, and imports pandas

        return study_analysis(self)

    @cached_property
    def levels(self) -> dict[str, dict[str, str]]:
        """Levels of each cell as the study's factors spell them: where one says 0.0, a cell may say 0."""
        factors = self.plan["study"].get("factors", {})
        return {
            cell["name"]: {
                name: str(next((own for own in factors.get(name, ()) if own == level), level))
                for name, level in cell.get("levels", {}).items()
            }
            for cell in self.plan["cells"]
        }

    @cached_property
    def done(self) -> list[RunRow]:
        return [run for run in self.runs if run.state == "done"]

    @cached_property
    def _by_cell(self) -> dict[str, list[RunRow]]:
        """The runs of each cell, by seed: looked up for every figure of every table."""
        rows: dict[str, list[RunRow]] = {}
        for run in sorted(self.runs, key=lambda run: run.seed):
            rows.setdefault(run.cell, []).append(run)
        return rows

    def of_cell(self, cell: str) -> list[RunRow]:
        """Returns the done runs of a cell, by seed."""
        return [run for run in self._by_cell.get(cell, ()) if run.state == "done"]

    def means(self, measure: str) -> dict[str, float]:
        """Returns the mean of a measure for each cell that has one, in the design's order."""
        return {cell: spread.mean for cell in self.cells if (spread := self.spread(cell, measure))}

    def best(self, measure: str, cells: Sequence[str] | None = None) -> str | None:
        """Returns the cell with the best mean; None where there are not two to choose from."""
        means = {cell: mean for cell, mean in self.means(measure).items() if cells is None or cell in cells}
        if len(means) < 2:
            return None
        return (min if measure == "loss" else max)(means, key=lambda cell: means[cell])

    def spread(self, cell: str, measure: str) -> Spread | None:
        """Returns a measure over a cell's done runs; None where there is none."""
        values = tuple(float(run.result[measure]) for run in self.of_cell(cell) if measure in run.result)
        return Spread(values) if values else None

    def counts(self, cell: str | None = None) -> dict[str, int]:
        """Returns how many runs are in each state, of a cell or of all."""
        chosen = [run.state for run in (self.runs if cell is None else self._by_cell.get(cell, ()))]
        return {state: chosen.count(state) for state in STATES}

    def warnings(self) -> list[tuple[str, str]]:
        """What the reader must know: pairs of what it is about and a sentence."""
        done = ((run.cell, run.seed, run.result) for run in self.done)
        about = [(head, text) for head, part in WARNED.items() for text in self._warnings_of(part)]
        about += self._judged_anew()
        return about + [("Pairing", text) for text in pairing_warnings(self.plan, done)]

    def _judged_anew(self) -> Iterator[tuple[str, str]]:
        """What results were judged by before: whoever chooses after a look finds more than there is."""
        study = self.plan["study"]
        for what, now in (("metric", study.get("metric", "top1")), ("design", study.get("design", "full"))):
            others = [other for other in dict.fromkeys(one[what] for one in study.get("earlier", ())) if other != now]
            if others:
                yield (
                    what.capitalize(),
                    f"results of this folder were judged by another {what} before ({', '.join(others)}; now {now}): "
                    "chosen with results at hand, it bounds no error, so take these verdicts for exploratory",
                )

    def _warnings_of(self, part: str) -> list[str]:
        """Each distinct warning of a part of the runs' results, with its cells."""
        cells: dict[str, list[str]] = {}
        for run in self.done:
            for kind in ("warning", "leak"):
                warning = (run.result.get(part) or {}).get(kind)
                if warning and run.cell not in cells.setdefault(warning, []):
                    cells[warning].append(run.cell)
        return [f"{', '.join(names)}: {warning}" for warning, names in cells.items()]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: "cells" with counts and spreads, "runs" with states and measures."""
        cells = []
        for name in self.cells:
            spreads = {measure: self.spread(name, measure) for measure in self.measures}
            figures = {m: {"mean": s.mean, "sd": s.sd, "n": s.n} for m, s in spreads.items() if s}
            cells.append({"name": name, **self.counts(name), "measures": figures})
        runs = [
            {
                "id": run.id,
                "cell": run.cell,
                "seed": run.seed,
                "state": run.state,
                "epochs_done": len(run.history),
                **{measure: run.result[measure] for measure in self.measures if measure in run.result},
                **({"error": run.error} if run.error else {}),
            }
            for run in self.runs
        ]
        return {
            "study": self.plan["study"]["name"],
            "metric": self.metric,
            "folder": str(self.root),
            **self.counts(),
            "cells": cells,
            "runs": runs,
        }


def read_results(root: Path) -> Results:
    """Reads a study folder, which somebody else may have written: see `reports.guard`.

    Raises:
        UserError: if it is none.
        RunError: if it is damaged, or what is in it leads elsewhere.
    """
    store = Store(root)
    check_folder(root)
    made = check_plan(read_plan(root), store.plan)
    names = public_names(made)
    plan = without_paths(made, names)
    return Results(root, plan, tuple(_row(store, run["id"], run["cell"], run["seed"], names) for run in plan["runs"]))


def _row(store: Store, run_id: str, cell: str, seed: int, names: Mapping[str, str]) -> RunRow:
    run, rows, error = store.get(run_id), None, None
    if run is None:
        with suppress(FileNotFoundError):  # it ended this moment, and its folder was renamed
            rows = store.progress(run_id)
        if rows is not None:
            return RunRow(run_id, cell, seed, "running", {}, tuple(rows))
        with suppress(FileNotFoundError):  # it succeeded this moment
            error = store.failure(run_id)
        run = store.get(run_id)
    if run:
        result = check_shape(run.result, RESULT, run.folder / RESULT_FILE)
        return RunRow(run_id, cell, seed, "done", result, tuple(run.history))
    if error:
        return RunRow(run_id, cell, seed, "failed", {}, (), shown(error_without_paths(error, names)))
    return RunRow(run_id, cell, seed, "left", {}, ())
