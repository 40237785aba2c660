"""The best cell of a study: which it is, what its runs said of the images they held out, whose weights stay."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bagoftricks.errors import RunError
from bagoftricks.store import Store
from bagoftricks.study_folder import read_plan

if TYPE_CHECKING:
    from bagoftricks.studies.plan import Plan

MOST_RUNS = 20
"""Runs whose predictions are looked at: a study of hundreds of seeds is described no better by all of them."""


@dataclass(frozen=True)
class HeldOut:
    """What one run says of its validation set. Shapes: N images, K classes."""

    seed: int
    logits_NK: npt.NDArray[np.float32]
    label_N: npt.NDArray[np.int64]
    member_N: npt.NDArray[np.int64]
    """Indices into the data set."""
    names: tuple[str, ...] | None
    """File names in the order of `member_N`; None for a run of an earlier version."""


def common_seeds(cells: Iterable[tuple[str, int]]) -> list[int]:
    """Returns the seeds that every cell of these (cell, seed) pairs has, ascending."""
    pairs = set(cells)
    names = {cell for cell, _ in pairs}
    return [seed for seed in sorted({seed for _, seed in pairs}) if all((name, seed) in pairs for name in names)]


def candidates(values: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Returns those of the (cell, seed) pairs whose cell has at least half of all seeds.

    A cell that failed in most of them would leave the others few seeds in common to be compared on.
    """
    pairs = sorted(set(values))
    count = Counter(cell for cell, _ in pairs)
    seeds = len({seed for _, seed in pairs})
    return [pair for pair in pairs if 2 * count[pair[0]] >= seeds] or pairs


def best_cell(values: Mapping[tuple[str, int], float]) -> str:
    """Returns the cell with the highest mean over the seeds that all candidates have; where there are none, its own.

    Args:
        values: the metric of each (cell, seed), at least one; higher is better.
    """
    pairs = candidates(values)
    seeds = common_seeds(pairs) or sorted({seed for _, seed in pairs})

    def mean(cell: str) -> float:
        return statistics.fmean(values[cell, seed] for seed in seeds if (cell, seed) in values)

    return max(sorted({cell for cell, _ in pairs}), key=mean)


def metric_of(results: Iterable[Mapping[str, Any]], named: str) -> str:
    """Returns the metric that a study names, or Top-1 where some run of an earlier version lacks it."""
    return named if all(named in result for result in results) else "top1"


def read_held_out(store: Store, runs: Iterable[tuple[str, int]]) -> list[HeldOut]:
    """Returns what complete runs, given as (id, seed), say of their validation sets; what cannot be read is left out.

    At most 20, the first seeds; of those with other classes than the first one, none.
    """
    found: list[HeldOut] = []
    for run_id, seed in sorted(runs, key=lambda run: run[1])[:MOST_RUNS]:
        run = store.get(run_id)
        try:
            arrays, names = (run.predictions(), run.names()) if run else ({}, None)
        except RunError:
            continue
        if not {"logits", "labels", "members"} <= set(arrays) or len(arrays["labels"]) == 0:
            continue
        one = HeldOut(seed, arrays["logits"], arrays["labels"], arrays["members"], tuple(names) if names else None)
        if not found or one.logits_NK.shape[1] == found[0].logits_NK.shape[1]:
            found.append(one)
    return found


def keep_best(plan: Plan, store: Store) -> str:
    """Removes the weights of every cell but the best, and returns a note on what the best one lacks, or "".

    Best is the mean of the primary metric over the seeds that all cells have finished; earlier seeds of the folder
    count, whether this plan has them or not. As long as a run is missing, every model stays: with it another cell may
    be the best.
    """
    from bagoftricks.training.keeping import drop_card

    runs = [(run["id"], run["cell"], run["seed"]) for run in read_plan(store.root)["runs"]]
    done = {(cell, seed): run.result for run_id, cell, seed in runs if (run := store.get(run_id))}
    if missing := len(runs) - len(done):
        return (
            f"No weights were removed, as another cell may yet be the best: {missing} of {len(runs)} runs "
            f"{'is' if missing == 1 else 'are'} not finished; the same command tries again"
        )
    metric = metric_of(done.values(), plan.study.metric)
    best = best_cell({key: float(result[metric]) for key, result in done.items()})
    others = {run_id for run_id, cell, _ in runs if cell != best}
    for run in store.models():
        if run.id in others:
            drop_card(run)
            store.drop_model(run.id)
    kept = {run.id for run in store.models()}
    lacking = [seed for run_id, cell, seed in runs if cell == best and (cell, seed) in done and run_id not in kept]
    if not lacking:
        return ""
    return (
        f"Best is {best}, but its weights of seeds {', '.join(map(str, lacking))} were not kept when it was trained; "
        "another --out trains them again"
    )
