"""Runs a study: executes what a folder lacks of its plan, and keeps a plan that reports can read.

A study folder holds `plan.json` (the study, its cells, runs and conditions), `runs/`, `failures/` and `cache/`, and
`memory.json` once the device had no memory for whole batches. Several processes may execute one study in one folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bagoftricks.data.cache import open_images
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.soundness import ALLOWED
from bagoftricks.errors import StorageError, UserError, unknown
from bagoftricks.files import storage_errors, waiting_for, write_json
from bagoftricks.store import Store
from bagoftricks.studies.best import keep_best
from bagoftricks.studies.continuing import check_continues, merged
from bagoftricks.studies.design import Study
from bagoftricks.studies.plan import Plan, Run, plan_study
from bagoftricks.studies.portrait import picture_mistakes, portray
from bagoftricks.studies.study_file import load_study
from bagoftricks.study_folder import read_plan

if TYPE_CHECKING:
    from bagoftricks.studies.engine import Event

KEEP = ("none", "best", "all")


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
