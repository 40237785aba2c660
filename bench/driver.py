"""Starts one contender at a time in a process of its own, and lays out the files that all of them read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contenders.job import Job, environment
from bench.photos import make_photos, plant, warm

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 900.0
"""Beyond a measurement's own seconds: imports, the cache, compilation, warm-up."""
SMALL = 8
"""Batches of the evaluation set on which flags are tried."""


@dataclass(frozen=True)
class Setting:
    """The data, laid out, and how to start processes."""

    data: Path
    tree: Path
    work: Path
    classes: int
    images: Mapping[str, int]
    """By side of the tree."""
    members: Mapping[str, list[int]]
    python: str = sys.executable


def prepare(
    data: Path | None, work: Path, *, batch: int, photos: int = 0, eval_images: int = 0, python: str = sys.executable
) -> Setting:
    """Lays out the tree of files under `work`, split as ours splits them at seed 0.

    Args:
        data: a folder of class folders; None makes photographs.
        work: created.
        batch: images a step.
        photos: how many to make.
        eval_images: most images of `eval`; 0 takes all.
        python: the interpreter of the contenders.
    """
    from bagoftricks.data.sources import open_data
    from bagoftricks.data.split import SplitConfig, split

    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    # the split looks for copies of images; in a cache of its own, so that ours pays for that in its own process
    os.environ["BAGOFTRICKS_CACHE"] = str(work / "layout-cache")
    source = data.resolve() if data else make_photos(work / f"photos-{photos}", photos)
    index = open_data(source)
    sides = split(index, SplitConfig(), 0)
    tree = work / "tree" / f"{index.fingerprint[:12]}-{batch}-{eval_images}"
    limit = eval_images or len(sides.val)
    members = plant(
        index,
        tree,
        {"train": sides.train, "val": sides.val, "eval": sides.val, "eval-small": sides.val},
        {"eval": limit, "eval-small": min(limit, SMALL * batch)},
    )
    warm(index)
    counts = {side: len(chosen) for side, chosen in members.items()}
    return Setting(source, tree, work, index.num_classes, counts, members, python)


def run_job(job: Job, setting: Setting, name: str, patience: float = PATIENCE_S) -> dict[str, Any]:
    """Runs a job to its end and returns {"result"} or {"error"}, with the seconds it took in all.

    Its output goes to `work/logs/<name>.log`. A job that hangs is ended with all its children.
    """
    folder = setting.work / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    asked, answer, log = (folder / f"{name}{suffix}" for suffix in (".job.json", ".result.json", ".log"))
    answer.unlink(missing_ok=True)
    asked.write_text(job.to_json(), encoding="utf-8")
    command = [setting.python, "-m", "bench.contenders.worker", str(asked), str(answer)]
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=child_environment(job, setting.work),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its loader workers can be ended with it
        )
        try:
            status: int | None = process.wait(job.seconds + patience)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            end(process)
    taken = {"seconds": time.monotonic() - began}
    if answer.is_file():
        return {"result": json.loads(answer.read_text(encoding="utf-8")), **taken}
    if status is None:
        return {"error": f"stopped after {job.seconds + patience:.0f} s", **taken}
    return {"error": last_line(log.read_text(encoding="utf-8", errors="replace")) or f"status {status}", **taken}


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends what is left of a process's session: loaders' workers outlive a parent that ends at once."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
        except (ProcessLookupError, PermissionError):
            break
        time.sleep(0.2)
    process.wait()


def child_environment(job: Job, work: Path) -> dict[str, str]:
    """Returns a contender's environment: the same threads for all, no network, caches under `work`."""
    paths = [str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": str(job.threads),
        "BAGOFTRICKS_CACHE": str(work / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    return {**os.environ, **own, **environment(job.options)}


def last_line(text: str) -> str:
    """Returns the last line that is not empty: of a traceback, the error."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
