"""Runs one job in a process of its own: `python -m bench.contenders.worker JOB.json RESULT.json`.

Only one such process is alive at a time, so that no contender's loader decodes while another one computes.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from bench.contenders.job import Job, contenders


def run(job: Job) -> dict[str, Any]:
    """Returns the figures of one job."""
    known = {} if job.task == "matmul" else {name: c.module for name, c in contenders(1, job.device).items()}
    if known and job.contender not in known:
        raise ValueError(f"contender {job.contender}: choose from {', '.join(known)}")
    import torch

    torch.set_num_threads(job.threads)
    if job.task == "matmul":
        from bench.machine import matmul_rate

        return {"gflops": matmul_rate(job.options["dtype"], job.options["size"], job.device)}
    if job.device == "cuda":  # as the reference scripts of torchvision and timm do; ours decides for itself
        torch.backends.cudnn.benchmark = True
    module = importlib.import_module(f"bench.contenders.{known[job.contender]}")
    task = "evaluate" if job.task == "eval" else job.task
    found: dict[str, Any] = getattr(module, task)(job)
    return found


def main() -> None:
    """Reads the job, runs it, writes its result."""
    warnings.filterwarnings("ignore")
    job = Job.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result = run(job)
    target = Path(sys.argv[2])
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(target)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # loaders with persistent workers, and compilers' pools, may keep an interpreter from ending


if __name__ == "__main__":
    main()
