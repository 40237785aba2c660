"""The paper's study in pieces: whole runs that fit the time left, and small archives of them to carry elsewhere."""

from __future__ import annotations

import json
import signal
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.budget import Budget

DONE, ARCHIVE = "study-done.json", "study-{:03d}.tar.gz"
ARCHIVE_BYTES = 12 * 2**20
"""About how large one archive may grow: what carries files between machines has limits."""
FIRST_S = 60.0
"""Seconds that must be left before a first run is begun, when nobody knows yet how long one takes."""


def continue_study(
    study: Any, data: Path, folder: Path, done: set[str], budget: Budget, *, device: str, jobs: int, images: Path
) -> dict[str, Any]:
    """Executes runs of a study until the budget is used up; seeds in order, so that whole blocks come first.

    Args:
        study: what to run.
        data: its images.
        folder: the study's, created; it need not hold what was done elsewhere.
        done: identities of runs that were done before, here or elsewhere.
        budget: of seconds.
        device: auto, cpu, cuda or mps.
        jobs: runs at a time.
        images: folder for decoded images, which are large and stay there.

    Returns:
        How many runs there are, are done, and were done now; whether the budget cut it off; failures by run.
    """
    from bagoftricks.files import write_json
    from bagoftricks.store import Store
    from bagoftricks.studies.plan import plan_study
    from bagoftricks.studies.run import execute_plan

    folder.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    link = folder / "cache"
    if link.is_symlink():
        link.unlink()
    if not link.exists():
        link.symlink_to(images.resolve())
    plan = plan_study(study, data, out=folder, jobs=jobs, device=device)
    store = Store(folder)
    if not store.plan.exists():
        write_json(store.plan, plan.to_dict())
    before = {run.id for run in plan.runs if run.id in done or store.get(run.id)}
    waiting = [run for run in plan.runs if run.id not in before]
    failures: dict[str, str] = {}

    def note(event: Any) -> None:
        if event.kind == "failed":
            failures[event.task.name] = event.text

    cut_off = False
    try:
        with alarm(budget.left):
            while waiting:
                if not budget.allows("runs", FIRST_S):
                    cut_off = True
                    break
                wave, waiting = waiting[: plan.jobs], waiting[plan.jobs :]
                began = time.monotonic()
                execute_plan(replace(plan, runs=tuple(wave)), folder, samples=False, on_event=note)
                budget.took("runs", time.monotonic() - began)
    except KeyboardInterrupt:
        cut_off = True
    finally:
        link.unlink(missing_ok=True)
    finished = {run.id for run in plan.runs if run.id in done or store.get(run.id)}
    return {
        "runs": len(plan.runs),
        "done": len(finished),
        "now": len(finished - before),
        "seeds_complete": _complete(plan, finished),
        "cut_off": cut_off,
        "failures": failures,
        "device": vars(plan.hardware),
        "ids": sorted(finished),
    }


def _complete(plan: Any, finished: set[str]) -> int:
    """Returns how many seeds have all their runs."""
    by_seed: dict[int, list[bool]] = {}
    for run in plan.runs:
        by_seed.setdefault(run.seed, []).append(run.id in finished)
    return sum(map(all, by_seed.values()))


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises KeyboardInterrupt inside the block after so many seconds: runs at work are ended, finished ones stay."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def read_done(folders: Sequence[Path]) -> set[str]:
    """Returns the runs that earlier calls have noted as done."""
    found: set[str] = set()
    for folder in folders:
        if (folder / DONE).is_file():
            found |= set(json.loads((folder / DONE).read_text(encoding="utf-8"))["ids"])
    return found


def pack(folder: Path, outs: Sequence[Path], skip: set[str], limit: int = ARCHIVE_BYTES) -> list[Path]:
    """Writes what a study folder holds into archives of about `limit` bytes, numbered on from those there are.

    Args:
        folder: the study's.
        outs: where archives go, then folders with earlier ones.
        skip: runs that were packed before.
        limit: an archive is closed once it is larger; one run is never divided.
    """
    runs = sorted(p for p in (folder / "runs").glob("*") if (p / "result.json").is_file() and p.name not in skip)
    if not runs:
        return []
    earlier = [path for out in outs for path in out.glob("study-[0-9][0-9][0-9].tar.gz")]
    number = max((int(path.name[6:9]) for path in earlier), default=-1) + 1
    written: list[Path] = []
    waiting = list(runs)
    while waiting:
        path = outs[0] / ARCHIVE.format(number + len(written))
        partial = path.with_name(f".{path.name}.tmp")
        with tarfile.open(partial, "w:gz", compresslevel=1) as archive:  # predictions are compressed already
            for name in ("plan.json", "models", "data", "failures"):
                if (folder / name).exists():
                    archive.add(folder / name, name)
            while waiting:
                archive.add(waiting[0], f"runs/{waiting.pop(0).name}")
                if partial.stat().st_size > limit:
                    break
        partial.replace(path)
        written.append(path)
    return written


def unpack(archives: Sequence[Path], folder: Path) -> int:
    """Puts archives together into one study folder, for `tricks report`; returns the number of runs in it.

    The plan of the last archive stands: later plans hold earlier ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(archives):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    return sum(1 for p in (folder / "runs").glob("*/result.json"))
