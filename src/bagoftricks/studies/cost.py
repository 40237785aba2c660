"""What a study will cost, said before it starts: time from a short measurement on this machine, disk from sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from bagoftricks.errors import DeviceMemoryError, UserError
from bagoftricks.studies.design import Study
from bagoftricks.studies.memory import smaller
from bagoftricks.studies.plan import Plan, Run

PROBE_IMAGES = 16
PROBE_STEPS, PROBE_S = 5, 2.0
"""Steps that are timed, fewer where they take longer than this together; their median counts."""
PROCESS_BYTES = 450 * 2**20
"""Of a Python that has imported torch, as measured."""
HEADROOM = 1.6
"""Peak memory of a step over what autograd keeps: gradients of activations, workspaces, what malloc does not give back.
Measured on a CPU with ResNet-50, batch 64: 1.5 at 64 pixels in bf16, 1.6 at 128 in bf16 and fp32, 1.35 at 224."""
CHECKPOINTS, CHECKPOINT_STATES = 2, 3
"""Of a run at work there are two while one replaces the other; each has the weights and the optimiser's two moments."""
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
    """Cache, results, checkpoints, and models while the study runs."""
    kept_bytes: int
    """Of these, models that stay."""
    memory_bytes: int
    """Of the heaviest run at work; on a GPU, of its memory."""
    seconds_by_seed: Mapping[int, float]
    """Of the runs to do of each seed."""
    longest_by_seed: Mapping[int, float]
    """Of the longest one among them."""

    def to_dict(self) -> dict[str, Any]:
        return vars(self)


def estimate(plan: Plan, out: Path, *, keep: str = "none") -> Cost:
    """Returns the cost of the runs that a study folder lacks. Takes seconds: two small training steps are timed."""
    from bagoftricks.data.cache import LIMIT_BYTES, estimate_bytes
    from bagoftricks.data.split import Split, SplitConfig, split
    from bagoftricks.models.build import cost as model_cost

    missing = plan.missing(out)
    if not missing:
        return Cost(0, 0, 0.0, 0.0, 0, 0, 0, {}, {})
    classes = plan.index.num_classes
    costs = {_shape(run): model_cost(run.cell.recipe.model, classes, run.cell.recipe.input.size) for run in missing}
    work = {shape: multiply_adds for shape, (_, multiply_adds) in costs.items()}
    parameters = [costs[_shape(run)][0] for run in missing]
    common = Counter(map(_shape, missing)).most_common(1)[0][0]
    usual = next(run for run in missing if _shape(run) == common)
    rate, memory = _probe(usual, plan)

    def weight(run: Run) -> float:
        return work[_shape(run)] * run.cell.recipe.batch_size

    heaviest = max(missing, key=weight)
    if weight(heaviest) > 1.2 * weight(usual):  # else it is within what such an estimate is good for
        with suppress(DeviceMemoryError):  # its runs will take fewer images at once
            memory = max(memory, _probe(heaviest, plan)[1])

    @lru_cache(None)
    def sides_of(config: SplitConfig, seed: int) -> Split:
        return split(plan.index, config, seed)

    images, each = 0, []
    by_seed: dict[int, float] = dict.fromkeys(plan.study.seeds, 0.0)
    longest: dict[int, float] = dict.fromkeys(plan.study.seeds, 0.0)
    for run in missing:
        sides = sides_of(run.cell.recipe.split, run.seed)
        trained = run.cell.recipe.epochs * len(sides.train)
        evaluated = run.cell.recipe.epochs * len(sides.val)
        images += trained
        train_work = (run.cell.recipe.cost + _teacher_share(run, classes)) * trained
        each.append((train_work + EVALUATION_SHARE * evaluated) / rate * work[_shape(run)] / work[common])
        by_seed[run.seed] = by_seed.get(run.seed, 0.0) + each[-1]
        longest[run.seed] = max(longest.get(run.seed, 0.0), each[-1])
    largest = max(len(sides_of(run.cell.recipe.split, run.seed).val) for run in missing)
    results = len(missing) * largest * classes * 4
    weights = 0 if keep == "none" else 4 * sum(parameters)
    stay = len(plan.study.seeds) * 4 * max(parameters) if keep == "best" else weights
    checkpoints = plan.jobs * CHECKPOINTS * CHECKPOINT_STATES * 4 * max(parameters)
    caches = [estimate_bytes(plan.index, size) for size in {run.cell.recipe.input.size for run in missing}]
    cache = sum(size for size in caches if size <= LIMIT_BYTES)
    seconds = max(sum(each) / plan.speedup, *each)
    return Cost(
        runs=len(missing),
        images=images,
        images_per_s=rate,
        seconds=seconds,
        disk_bytes=results + weights + cache + checkpoints,
        kept_bytes=min(stay, weights),
        memory_bytes=memory,
        seconds_by_seed=by_seed,
        longest_by_seed=longest,
    )


def seeds_within(plan: Plan, cost: Cost, hours: float) -> int:
    """Returns how many of the plan's seeds, from the first, can be done in `hours`; 0 where not even one can."""
    spent, longest, count = 0.0, 0.0, 0
    for seed in plan.study.seeds:
        spent += cost.seconds_by_seed.get(seed, 0.0)
        longest = max(longest, cost.longest_by_seed.get(seed, 0.0))
        if max(spent / plan.speedup, longest) > hours * 3600:
            break
        count += 1
    return count


def trimmed(plan: Plan, cost: Cost, hours: float, *, allowed: bool) -> Study:
    """Returns the study with as many of its seeds as fit into `hours`.

    Raises:
        UserError: if trimming is not allowed, or not even one seed fits, saying what would.
    """
    count, seeds = seeds_within(plan, cost, hours), plan.study.seeds
    needs = f"study '{plan.study.name}': about {cost.seconds / 3600:.2g} h to do, more than --max-hours {hours:g}"
    others = "fewer epochs, a smaller --size or fewer cells"
    if not count:
        raise UserError(f"{needs}; one seed alone takes {_first_seed_s(plan, cost) / 3600:.2g} h: {others}")
    if not allowed:
        raise UserError(f"{needs}; {count} of its {len(seeds)} seeds would fit (--trim), or {others}")
    return replace(plan.study, seeds=seeds[:count])


def _first_seed_s(plan: Plan, cost: Cost) -> float:
    seed = plan.study.seeds[0]
    return max(cost.seconds_by_seed[seed] / plan.speedup, cost.longest_by_seed[seed])


def given_up(before: Study, after: Study) -> str:
    """Says what a study loses with its seeds: the smallest effect that it can find, and below five the verdict."""
    from bagoftricks.studies.effects import SEEDS_FOR_VERDICT, detectable
    from bagoftricks.studies.planning import family_of

    many, few = len(before.seeds), len(after.seeds)
    parts = [f"Trimmed to {few} of {many} seeds."]
    try:
        tests = family_of(before).tests
    except UserError:  # it compares nothing
        tests = 0
    if few > 1 and tests:
        sizes = f"from {detectable(many, 1.0, tests=tests):.1f} to {detectable(few, 1.0, tests=tests):.1f}"
        parts.append(f"The smallest effect found with 80 % power grows {sizes} standard deviations of a difference.")
    if few < SEEDS_FOR_VERDICT:
        parts.append(f"Below {SEEDS_FOR_VERDICT} seeds there is no verdict.")
    return " ".join(parts)


def _teacher_share(run: Run, classes: int) -> float:
    """Returns the time of a teacher's passes over that of the training without; 0 without a teacher."""
    from bagoftricks.models.build import cost as model_cost
    from bagoftricks.training.teacher import teacher_network

    recipe = run.cell.recipe
    teacher = teacher_network(recipe, run.seed)
    if teacher is None:
        return 0.0
    theirs, ours = (model_cost(model, classes, recipe.input.size)[1] for model in (teacher, recipe.model))
    passes = 1 / recipe.epochs if recipe.input.same_each_epoch else 1.0
    return passes * theirs / ours / 3  # a pass forward is a third of a step


def _shape(run: Run) -> tuple[str, int]:
    return run.cell.recipe.model.name, run.cell.recipe.input.size


def _probe(run: Run, plan: Plan) -> tuple[float, int]:
    """Returns (images per second, bytes of memory of a run) from small training steps, after one to warm up.

    On a GPU, which a few images do not fill, they are of the recipe's own batch, or of what the memory bears.

    Memory: what autograd keeps for each image, times the batch; parameters, gradients and the optimiser's two moments;
    and on a CPU the process itself.

    Raises:
        DeviceMemoryError: where not even two images fit.
    """
    import torch

    from bagoftricks.models.build import cost as model_cost
    from bagoftricks.training.device_memory import device_memory
    from bagoftricks.training.speed import median_seconds, training_step

    recipe, hardware, classes = run.cell.recipe, plan.hardware, plan.index.num_classes
    hardware.prepare()
    count = min(PROBE_IMAGES, recipe.batch_size) if hardware.device == "cpu" else recipe.batch_size
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        owner = tensor if tensor._base is None else tensor._base
        if not isinstance(owner, torch.nn.Parameter):
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    while True:
        try:
            with device_memory(recipe, "other work may have it, or the network is too large for it", count):
                step = training_step(recipe, classes, count, hardware)
                with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                    step()
                elapsed, _ = median_seconds(step, most=PROBE_STEPS, seconds=PROBE_S)
            break
        except DeviceMemoryError:
            fewer = smaller(count)
            if fewer is None:
                raise
            count = fewer
            kept.clear()
    del step
    if hardware.device == "cuda":
        torch.cuda.empty_cache()  # it is the runs' now, which are processes of their own
    parameters = model_cost(recipe.model, classes)[0]
    states = 4 * 4 * parameters
    process = PROCESS_BYTES if hardware.device == "cpu" else 0
    working = HEADROOM * sum(kept.values()) * recipe.batch_size / count
    return count / elapsed, int(process + states + working)
