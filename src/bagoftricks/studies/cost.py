"""What a study will cost, said before it starts: time from a short measurement on this machine, disk from sizes."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagoftricks.studies.run import Plan, Run

PROBE_IMAGES = 16
EVALUATION_SHARE = 0.35
"""Cost of evaluating an image as a share of training on it: forward alone, of forward and twice as much backward."""


@dataclass(frozen=True)
class Cost:
    """An estimate; times on a shared machine are rough."""

    runs: int
    """Runs still to do."""
    images: int
    """Images that they train on."""
    images_per_s: float
    """Measured on the most frequent architecture, one run at a time."""
    seconds: float
    disk_bytes: int
    """Cache, results, and models where they are kept."""

    def to_dict(self) -> dict[str, Any]:
        return vars(self)


def estimate(plan: Plan, out: Path, *, keep_models: bool = False) -> Cost:
    """Returns the cost of the runs that a study folder lacks. Takes seconds: two small training steps are timed."""
    from bagoftricks.data.cache import LIMIT_BYTES, estimate_bytes
    from bagoftricks.data.split import split
    from bagoftricks.models.resnet import cost as model_cost

    missing = plan.missing(out)
    if not missing:
        return Cost(0, 0, 0.0, 0.0, 0)
    classes = plan.index.num_classes
    work = {_shape(run): model_cost(run.cell.recipe.model, classes, run.cell.recipe.input.size)[1] for run in missing}
    parameters = model_cost(missing[0].cell.recipe.model, classes)[0]
    common = Counter(map(_shape, missing)).most_common(1)[0][0]
    rate = _probe(next(run for run in missing if _shape(run) == common), plan)

    images, each = 0, []
    for run in missing:
        sides = split(plan.index, run.cell.recipe.split, run.seed)
        trained = run.cell.recipe.epochs * len(sides.train)
        evaluated = run.cell.recipe.epochs * len(sides.val)
        images += trained
        each.append((trained + EVALUATION_SHARE * evaluated) / rate * work[_shape(run)] / work[common])
    largest = max(len(split(plan.index, run.cell.recipe.split, run.seed).val) for run in missing)
    kept = len(missing) * (largest * classes * 4 + (parameters * 4 if keep_models else 0))
    caches = [estimate_bytes(plan.index, size) for size in {run.cell.recipe.input.size for run in missing}]
    cache = sum(size for size in caches if size <= LIMIT_BYTES)
    seconds = max(sum(each) / plan.jobs, *each)
    return Cost(len(missing), images, rate, seconds, kept + cache)


def _shape(run: Run) -> tuple[str, int]:
    return run.cell.recipe.model.name, run.cell.recipe.input.size


def _probe(run: Run, plan: Plan) -> float:
    """Returns images per second of one small training step, after one to warm up."""
    import torch
    import torch.nn.functional as F

    from bagoftricks.models.resnet import build

    recipe, hardware = run.cell.recipe, plan.hardware
    hardware.prepare()
    count = min(PROBE_IMAGES, recipe.batch_size)
    model = build(recipe.model, plan.index.num_classes).to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = recipe.optimizer.build(model.parameters())
    x_NCHW = torch.zeros(count, 3, recipe.input.size, recipe.input.size, device=hardware.device)
    x_NCHW = x_NCHW.to(memory_format=torch.channels_last)
    label_N = torch.zeros(count, dtype=torch.int64, device=hardware.device)
    elapsed = 0.0
    for _ in range(2):
        started = time.perf_counter()
        with hardware.autocast():
            logits_NK = model(x_NCHW)
        loss = F.cross_entropy(logits_NK.float(), label_N)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()
        elapsed = time.perf_counter() - started
    return count / elapsed
