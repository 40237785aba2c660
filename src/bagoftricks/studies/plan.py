"""A study on a data set on a machine: every run with its identity, and whether it fits a folder. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.data.index import ImageIndex
from bagoftricks.data.soundness import ALLOWED
from bagoftricks.errors import UserError
from bagoftricks.files import cache_folder, check_output
from bagoftricks.store import Store
from bagoftricks.studies.continuing import check_continues
from bagoftricks.studies.design import Cell, Study
from bagoftricks.studies.study_file import study_to_dict
from bagoftricks.study_folder import read_plan

if TYPE_CHECKING:
    from bagoftricks.training.hardware import Hardware


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
