"""Runs a study: plans it, states its cost, executes what is missing, and keeps a plan that reports can read.

A study folder holds `plan.json` (the study, its cells, runs and conditions), `runs/`, `failures/` and `cache/`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import UserError
from bagoftricks.files import write_json
from bagoftricks.recipe import Recipe
from bagoftricks.store import Store
from bagoftricks.studies.design import Cell, Study, study_to_dict

PLAN = "plan.json"
SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """One cell in one block."""

    id: str
    cell: Cell
    seed: int

    @property
    def name(self) -> str:
        return f"{self.cell.name} seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A study on a data set on a machine: every run, with its identity."""

    study: Study
    index: ImageIndex
    hardware: Any
    jobs: int
    runs: tuple[Run, ...]

    def to_dict(self) -> dict[str, Any]:
        """What `plan.json` holds."""
        return {
            "schema": SCHEMA,
            "study": study_to_dict(self.study),
            "data": self.index.describe() | {"fingerprint": self.index.fingerprint, "class_names": self.index.classes},
            "hardware": vars(self.hardware),
            "cells": [{"name": cell.name, "levels": dict(cell.levels)} for cell in self.study.cells],
            "runs": [{"id": run.id, "cell": run.cell.name, "seed": run.seed} for run in self.runs],
        }


def plan_study(
    study: Study,
    data: str | Path | ImageIndex | None = None,
    *,
    out: Path | None = None,
    jobs: int = 1,
    device: str = "auto",
    precision: str = "auto",
) -> Plan:
    """Returns every run of a study with its identity; writes nothing.

    The threads of a run are fixed when a folder's study begins, as the cores shared among its jobs, and kept
    afterwards whatever `jobs` is then: they change results in the last digits.

    Raises:
        UserError: if study, data and folder do not fit together.
    """
    from bagoftricks.data.sources import open_data
    from bagoftricks.training.hardware import cores, detect
    from bagoftricks.training.train import check_fit, conditions, identity

    if not 1 <= jobs <= cores():
        raise UserError(f"--jobs {jobs}: must be between 1 and the {cores()} cores that this process may use")
    source = data if data is not None else study.data
    if source is None:
        raise UserError(f"study '{study.name}' names no data: pass --data with a folder, or 'digits'")
    index = open_data(source)
    earlier = read_plan(out) if out and (out / PLAN).exists() else None
    threads = earlier["hardware"]["threads"] if earlier else max(1, cores() // jobs)
    hardware = detect(device, precision, threads)
    cells = study.cells
    for cell in cells:
        check_fit(cell.recipe, index, study.seeds[0])
    runs = tuple(
        Run(identity(cell.recipe, conditions(cell.recipe, index, seed, hardware)), cell, seed)
        for seed in study.seeds
        for cell in cells
    )
    if earlier:
        _check_continues(earlier, runs, index, out)
    return Plan(study, index, hardware, min(jobs, max(1, cores() // threads)), runs)


def read_plan(out: Path) -> dict[str, Any]:
    """Returns a study folder's plan.

    Raises:
        UserError: if there is none, or it is of a later version.
    """
    path = out / PLAN
    if not path.is_file():
        raise UserError(f"study folder {out}: no {PLAN} in it; is it the folder given as --out?")
    plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if plan.get("schema", 0) > SCHEMA:
        raise UserError(f"study folder {out}: written by a later version; upgrade bagoftricks")
    return plan


def _check_continues(earlier: dict[str, Any], runs: tuple[Run, ...], index: ImageIndex, out: Path | None) -> None:
    """A folder belongs to one study: more seeds or cells may join, but none may change its meaning."""
    if earlier["data"]["fingerprint"] != index.fingerprint:
        raise UserError(f"study folder {out}: holds a study of other data ({earlier['data']['name']}); choose another --out")
    known = {(run["cell"], run["seed"]): run["id"] for run in earlier["runs"]}
    for run in runs:
        if known.get((run.cell.name, run.seed), run.id) != run.id:
            raise UserError(
                f"study folder {out}: holds '{run.name}' with other settings "
                "(recipe, weights, threads, precision or device); choose another --out"
            )


def run_study(
    plan: Plan,
    out: Path,
    *,
    keep_models: bool = False,
    on_event: Callable[[Any], None] = lambda event: None,
    on_image: Callable[[int], None] = lambda done: None,
) -> None:
    """Executes the runs of a plan that `out` does not hold yet; failures are recorded and do not stop the others.

    Args:
        plan: from `plan_study`, with the same `out`.
        out: the study folder, created.
        keep_models: whether runs keep their weights (about 100 MB each for a ResNet-50).
        on_event: called with each `studies.engine.Event`.
        on_image: called with the number of images decoded, while the cache is built.
    """
    from bagoftricks.data.cache import open_images
    from bagoftricks.studies.engine import Event, Task, run_all

    store = Store(out)
    write_json(out / PLAN, _merged(plan, out))
    missing = [run for run in plan.runs if store.get(run.id) is None]
    if not missing:
        return
    for size in sorted({run.cell.recipe.input.size for run in missing}):
        open_images(plan.index, size, out / "cache", workers=plan.hardware.threads * plan.jobs, progress=on_image)

    def task(run: Run) -> Task:
        return Task(run.id, run.name, run.cell.recipe, run.seed, plan.index, out, plan.hardware, keep_models)

    def record(event: Event) -> None:
        if event.kind == "failed":
            store.record_failure(event.task.id, event.task.name, event.error)
        on_event(event)

    run_all([task(run) for run in missing], plan.jobs, record)


def _merged(plan: Plan, out: Path) -> dict[str, Any]:
    """The plan, with seeds and cells of an earlier one that it does not repeat."""
    merged = plan.to_dict()
    if (out / PLAN).exists():
        earlier = read_plan(out)
        for key, same in (("cells", lambda x: x["name"]), ("runs", lambda x: x["id"])):
            known = {same(item) for item in merged[key]}
            merged[key] += [item for item in earlier[key] if same(item) not in known]
        merged["study"]["seeds"] = sorted({run["seed"] for run in merged["runs"]})
    return merged
