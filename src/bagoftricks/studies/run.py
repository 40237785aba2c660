"""Runs a study: plans it, executes what is missing, and keeps a plan that reports can read.

A study folder holds `plan.json` (the study, its cells, runs and conditions), `runs/`, `failures/` and `cache/`, and
`memory.json` once the device had no memory for whole batches. Several processes may execute one study in one folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.data.cache import open_images
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.soundness import ALLOWED
from bagoftricks.errors import StorageError, UserError, unknown
from bagoftricks.files import cache_folder, check_output, storage_errors, waiting_for, write_json
from bagoftricks.store import Store
from bagoftricks.studies.best import keep_best
from bagoftricks.studies.continuing import check_continues, merged
from bagoftricks.studies.design import Cell, Study
from bagoftricks.studies.portrait import picture_mistakes, portray
from bagoftricks.studies.study_file import load_study, study_to_dict
from bagoftricks.study_folder import read_plan

if TYPE_CHECKING:
    from bagoftricks.studies.engine import Event
    from bagoftricks.training.hardware import Hardware


KEEP = ("none", "best", "all")


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
    hardware: Hardware
    jobs: int
    """Runs at a time."""
    runs: tuple[Run, ...]
    leaks: Mapping[int, int] = field(default_factory=dict)
    """By seed, pairs of copies of an image of which one is trained on and the other validates."""

    @property
    def speedup(self) -> int:
        """How many runs are done in the time of one that was measured alone, with its share of the CPU's threads.

        On a GPU, which that one had to itself, no more than one.
        """
        return self.jobs if self.hardware.device == "cpu" else 1

    def missing(self, out: Path) -> list[Run]:
        """Returns the runs that a study folder does not hold yet."""
        store = Store(out)
        return [run for run in self.runs if store.get(run.id) is None]

    def finished(self, out: Path) -> str:
        """Says how many of the runs a study folder holds."""
        return f"{len(self.runs) - len(self.missing(out))} of {len(self.runs)} runs are finished"

    def to_dict(self) -> dict[str, Any]:
        """What `plan.json` holds."""
        about = self.index.describe() | {"fingerprint": self.index.fingerprint, "class_names": list(self.index.classes)}
        return {
            "schema": Store.SCHEMA,
            "study": study_to_dict(self.study),
            "data": about | {"leaks": {str(seed): pairs for seed, pairs in self.leaks.items()}},
            "hardware": vars(self.hardware),
            "cells": [
                {"name": cell.name, "levels": dict(cell.levels), "recipe": cell.recipe.canonical()}
                for cell in self.study.cells
            ],
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
    deterministic: bool = False,
    kernels: str = "auto",
    allow_corrupt: float = ALLOWED,
    on_hash: Callable[[int], None] = lambda done: None,
) -> Plan:
    """Returns every run of a study with its identity; writes nothing.

    The threads of a run are fixed when a folder's study begins, as the cores shared among its jobs, and kept
    afterwards whatever `jobs` is then: they change results in the last digits.

    Args:
        study: what to run.
        data: "digits", a folder or an index; by default what the study names.
        out: the study folder, if it may exist already.
        jobs: runs at a time, lowered where they would ask for more cores than there are.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32 or bf16.
        deterministic: whether a GPU must give the same bits twice; a folder that was begun so goes on so.
        kernels: auto, torch or native; a folder goes on with those it was begun with.
        allow_corrupt: largest share of images that may be left out because they cannot be used, from 0 to 1.
        on_hash: called with the number of images looked at, for faults and for copies (once a data set).

    Raises:
        UserError: if study, data and folder do not fit together.
    """
    from bagoftricks.data.duplicates import hash_images
    from bagoftricks.data.soundness import sound
    from bagoftricks.data.sources import open_data
    from bagoftricks.data.split import leaks, split
    from bagoftricks.training.checks import check_fit, check_held_back
    from bagoftricks.training.hardware import cores, detect, thread_limit
    from bagoftricks.training.train import run_identity

    if jobs < 1:
        raise UserError(f"--jobs {jobs}: must be at least 1")
    source = data if data is not None else study.data
    if source is None:
        raise UserError(f"study '{study.name}' names no data: pass --data with a folder, or 'digits'")
    index = open_data(source)
    if out:
        check_output(out, index.folders)
    cells = study.cells
    workers = cores()
    index, _ = sound(index, workers=workers, on_look=on_hash, allow=allow_corrupt)
    hash_images(index.open_part, workers=workers, progress=on_hash, cache=cache_folder() / "hashes")
    for cell in cells:
        for seed in study.seeds if cell.recipe.teacher else study.seeds[:1]:
            check_fit(cell.recipe, index, seed)
    for recipe in {(cell.recipe.init, cell.recipe.split): cell.recipe for cell in cells}.values():
        for seed in study.seeds[1:]:
            check_held_back(recipe, index, seed)
    pairs = {seed: leaks(index, split(index, study.recipe.split, seed)) for seed in study.seeds}
    earlier = read_plan(out) if out and Store(out).plan.exists() else None
    threads = int(earlier["hardware"]["threads"]) if earlier else thread_limit(jobs)
    exact = deterministic or bool(earlier and earlier["hardware"].get("deterministic"))
    hardware = detect(device, precision, threads, deterministic=exact, kernels=kernels)
    there = earlier["hardware"] if earlier else {}
    if kernels == "auto" and (there.get("device"), there.get("precision")) == (hardware.device, hardware.precision):
        before = str(there.get("kernels", "torch"))  # a folder goes on with those that it was begun with
        hardware = detect(hardware.device, hardware.precision, threads, deterministic=exact, kernels=before)
    runs = tuple(
        Run(run_identity(cell.recipe, index, seed, hardware), cell, seed) for seed in study.seeds for cell in cells
    )
    plan = Plan(study, index, hardware, min(jobs, max(1, workers // threads)), runs, pairs)
    if earlier and out:
        check_continues(earlier, plan, out)
    return plan


def run_study(
    study: Study | str | Path,
    data: str | Path | ImageIndex | None = None,
    *,
    out: str | Path,
    jobs: int = 1,
    device: str = "auto",
    precision: str = "auto",
    deterministic: bool = False,
    kernels: str = "auto",
    allow_corrupt: float = ALLOWED,
    keep: str = "none",
    retries: int = 2,
    stall_minutes: float = 10.0,
) -> Path:
    """Executes the runs of a study that `out` does not hold yet; failures are recorded and do not stop the others.

    In a script, call this under `if __name__ == "__main__":`, as each run is a process.

    Args:
        study: a study, a preset's name, or a TOML file.
        data: "digits", a folder or an index; by default what the study names.
        out: the study folder, created.
        jobs: runs at a time, lowered where they would ask for more cores than there are.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32 or bf16.
        deterministic: whether a GPU must give the same bits twice.
        kernels: auto (our own in training where they can be had), torch or native.
        allow_corrupt: largest share of images that may be left out because they cannot be used, from 0 to 1.
        keep: whose weights stay: none, best (the runs of the cell with the best mean of the primary metric, once all
            are done) or all; about 100 MB a run for a ResNet-50.
        retries: how often a run is tried again whose process died or hung.
        stall_minutes: without a step, an image or an epoch, after which a run's process counts as hung.

    Returns:
        The study folder, for `bagoftricks.write_report`.

    Raises:
        UserError: if study, data and folder do not fit together; nothing is written then.
        RunError: if the images cannot be decoded.
        StorageError: if the disk is full, or the folder has gone or cannot be written to; the same call continues.
    """
    out = Path(out)
    chosen = study if isinstance(study, Study) else load_study(study)
    plan = plan_study(
        chosen,
        data,
        out=out,
        jobs=jobs,
        device=device,
        precision=precision,
        deterministic=deterministic,
        kernels=kernels,
        allow_corrupt=allow_corrupt,
    )
    execute_plan(plan, out, keep=keep, retries=retries, stall_minutes=stall_minutes)
    return out


def execute_plan(
    plan: Plan,
    out: Path,
    *,
    keep: str = "none",
    samples: bool = True,
    retries: int = 2,
    stall_minutes: float = 10.0,
    on_event: Callable[[Event], None] = lambda event: None,
    on_image: Callable[[int], None] = lambda done: None,
) -> str:
    """Executes what `out` lacks of a plan that was made for it.

    Args:
        plan: from `plan_study`.
        out: the study folder, created.
        keep: whose weights stay: none, best or all; see `run_study`.
        samples: whether images are kept for the report: one of each class, and the worst mistakes.
        retries: how often this process tries a run again whose own process died or hung.
        stall_minutes: without a step, an image or an epoch, after which a run's process counts as hung.
        on_event: called with what happens to each run.
        on_image: called with the number of images decoded, while the cache is built; with 0, about each second, while
            another process builds it.

    Returns:
        Notes on weights and pictures that could not be kept, a line each, or "".

    Raises:
        UserError: if another process has begun the folder with other settings meanwhile.
        RunError: if the images cannot be decoded.
        StorageError: if the disk is full, or the folder has gone or cannot be written to; says what is finished.
    """
    if keep not in KEEP:
        raise unknown("policy of keeping weights", keep, KEEP)
    check_limits(retries, stall_minutes)
    try:
        with storage_errors(out):
            _execute(plan, out, keep != "none", samples, retries, 60 * stall_minutes, on_event, on_image)
            store = Store(out)
            notes = [keep_best(plan, store) if keep == "best" else "", picture_mistakes(plan, store) if samples else ""]
    except StorageError as error:
        raise StorageError(f"{error}; {plan.finished(out)}") from error
    return "\n".join(filter(None, notes))


def check_limits(retries: int, stall_minutes: float) -> None:
    """Refuses limits of `execute_plan` that make no sense.

    Raises:
        UserError: if so.
    """
    if retries < 0:
        raise UserError(f"--retries {retries}: must be at least 0")
    if not 0 < stall_minutes < math.inf:
        raise UserError(f"--stall-minutes {stall_minutes}: must be above 0")


def _execute(
    plan: Plan,
    out: Path,
    keep_models: bool,
    samples: bool,
    retries: int,
    stall_s: float,
    on_event: Callable[[Event], None],
    on_image: Callable[[int], None],
) -> None:
    """Builds what is missing of the cache, joins the folder's plan, and trains."""
    from bagoftricks.studies.engine import Task, run_all

    store, missing = Store(out), plan.missing(out)
    for run_id in {run.id for run in plan.runs} - {run.id for run in missing}:
        store.clear(run_id)
    for size in sorted({run.cell.recipe.input.size for run in missing}):
        open_images(plan.index, size, store.cache, workers=plan.hardware.threads * plan.jobs, progress=on_image)
    with waiting_for(store.locks / "plan"):
        if store.plan.exists():  # perhaps only since this plan was made
            check_continues(read_plan(out), plan, out)
        write_json(store.plan, merged(plan, store))
    portray(plan, store, samples=samples)

    def task(run: Run) -> Task:
        where = (plan.index, out, plan.hardware, keep_models)
        return Task(run.id, run.name, run.cell.name, run.cell.recipe, run.seed, *where)

    run_all([task(run) for run in missing], plan.jobs, on_event, retries=retries, stall_s=stall_s)
