"""Effects: what each factor of a study does to a metric, how surely, and what the study cannot tell.

What is estimated: the mean effect over splits and seeds of this data set. Each contrast (`contrasts`) is computed
inside each block, where all cells share the split, the initialisation and the order of images; the paired t over blocks
decides (`inference`), corrected within its family (`verdicts`). Blocks that lack a needed run are left out of that
contrast and counted; where runs fail because of their recipe, what remains flatters it. Bouthillier et al. 2021,
arXiv:2103.03098, on what a block must vary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bagoftricks.errors import UserError, unknown
from bagoftricks.intervals import wilson
from bagoftricks.studies import inference
from bagoftricks.studies.contrasts import (
    Contrast,
    Grid,
    Levels,
    NotEstimable,
    find_contrasts,
    read_grid,
    run_name,
    successive_contrasts,
    two_way_rank,
)
from bagoftricks.studies.inference import detectable, seeds_needed
from bagoftricks.studies.verdicts import FAMILIES, SEEDS_FOR_VERDICT, Effect, Settings, judge, plain, sentence

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SEEDS_FOR_VERDICT",
    "Analysis",
    "Effect",
    "Settings",
    "analyse",
    "detectable",
    "seeds_needed",
    "sentence",
    "successive",
]

MOST_NAMED = 100
"""How many failed or missing runs are named; all are counted."""
UNITS = ("points", "raw")


@dataclass(frozen=True)
class Runs:
    """What became of the runs; expected are all cells in all blocks."""

    expected: int
    done: int
    failed: int
    missing: int
    failed_runs: tuple[str, ...]
    missing_runs: tuple[str, ...]
    """The first `MOST_NAMED` of each."""


@dataclass(frozen=True)
class Analysis:
    """Every effect of a study."""

    settings: Settings
    levels: Levels
    """Levels by factor, the reference first."""
    effects: tuple[Effect, ...]
    not_estimable: tuple[NotEstimable, ...]
    runs: Runs
    parameters: int | None
    """Of the two-way model, intercept included; None for successive differences."""
    estimable: int | None
    """How many of them the finished cells determine."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns what JSON can hold: no NaN, no infinity; each effect with its sentence."""
        table = asdict(self)
        for row, effect in zip(table["effects"], self.effects, strict=True):
            del row["settings"]
            row |= {"correction": effect.correction, "sentence": sentence(effect)}
        return table


def analyse(
    frame: pd.DataFrame,
    factors: Sequence[str],
    block: str,
    metric: str,
    *,
    higher_is_better: bool = True,
    margin: float = 0.005,
    alpha: float = 0.05,
    family: str = "main+two-way",
    status: str | None = None,
    levels: Mapping[str, Sequence[str]] | None = None,
    titles: Mapping[str, str] | None = None,
    unit: str = "points",
    test_train_ratio: float = 0.25,
) -> Analysis:
    """Returns the main effects and two-way interactions of a study's results.

    Args:
        frame: a tidy table, one row a run.
        factors: its columns of levels; every level is set against the factor's first.
        block: its column of seeds.
        metric: its column of results, in [0, 1]; any numbers where `unit` is "raw".
        higher_is_better: whether a larger metric is better.
        margin: a difference below it does not matter; above 0, in the units of the metric (0.005 is half a point).
        alpha: bound on the family-wise error; intervals have level 1 - alpha.
        family: what is declared: "main+two-way", "main", or "all" (simple effects too: for one-at-a-time designs).
        status: column that tells failed runs from done ones.
        levels: order of a factor's levels where the table's is not meant.
        titles: names of factors for people.
        unit: "points" for percentage points, or "raw".
        test_train_ratio: test over training images, for the Nadeau-Bengio interval beside.

    Raises:
        UserError: if the table or a setting is wrong.
    """
    if not factors:
        raise UserError("no factors: name the columns that the study varied")
    grid = read_grid(frame, factors, block, metric, status=status, levels=levels)
    settings = _settings(metric, block, higher_is_better, margin, alpha, family, unit, test_train_ratio)
    observed = grid.observed
    found, not_found = find_contrasts(grid.levels, observed)
    parameters, rank = two_way_rank(grid.levels, observed) if observed else (None, None)
    return _analysis(grid, settings, found, not_found, titles or {}, parameters, rank)


def successive(
    frame: pd.DataFrame,
    order: Sequence[str],
    *,
    cell: str = "cell",
    block: str = "seed",
    metric: str = "top1",
    higher_is_better: bool = True,
    margin: float = 0.005,
    alpha: float = 0.05,
    status: str | None = None,
    unit: str = "points",
    test_train_ratio: float = 0.25,
) -> Analysis:
    """Returns the successive differences of a ladder: each cell against the one before it, all declared.

    A step's effect holds on top of what stands below it; a ladder cannot tell it from an interaction.

    Args:
        frame: a tidy table, one row a run; rows of cells that `order` leaves out are not looked at.
        order: the cells' names from the bottom up, at least two.
        cell: the column of those names.
        block: as for `analyse`, and so the others.
        metric: in [0, 1], unless `unit` is "raw".
        higher_is_better: whether a larger metric is better.
        margin: in the units of the metric.
        alpha: bound on the family-wise error.
        status: column that tells failed runs from done ones.
        unit: "points" or "raw".
        test_train_ratio: for the Nadeau-Bengio interval.

    Raises:
        UserError: if the table, the order or a setting is wrong.
    """
    if len(order) < 2 or len(set(order)) < len(order):
        raise UserError(f"order {list(order)}: at least two cells, each once")
    if cell not in frame.columns:
        raise UserError(f"no column '{cell}'; there are: {', '.join(map(str, frame.columns))}")
    names = frame[cell].astype(str)
    for name in order:
        if name not in set(names):
            raise unknown("cell", name, set(names))
    grid = read_grid(frame[names.isin(order)], [cell], block, metric, status=status, levels={cell: order})
    settings = _settings(metric, block, higher_is_better, margin, alpha, "main+two-way", unit, test_train_ratio)
    return _analysis(grid, settings, successive_contrasts(cell, order), [], {}, None, None)


def _settings(
    metric: str,
    block: str,
    higher_is_better: bool,
    margin: float,
    alpha: float,
    family: str,
    unit: str,
    ratio: float,
) -> Settings:
    if not (math.isfinite(margin) and margin > 0):
        raise UserError(f"margin {margin}: must be above 0")
    if not 0 < alpha < 0.5:
        raise UserError(f"alpha {alpha}: must be above 0 and below 0.5")
    if family not in FAMILIES:
        raise unknown("family", family, FAMILIES)
    if unit not in UNITS:
        raise unknown("unit", unit, UNITS)
    if not (math.isfinite(ratio) and ratio >= 0):
        raise UserError(f"ratio of test to training images {ratio}: must be from 0")
    scale = 100 if unit == "points" else 1
    return Settings(metric, block, higher_is_better, margin * scale, alpha, family, unit, ratio)


def _analysis(
    grid: Grid,
    settings: Settings,
    found: Sequence[Contrast],
    not_found: Sequence[NotEstimable],
    titles: Mapping[str, str],
    parameters: int | None,
    rank: int | None,
) -> Analysis:
    done = grid.values[np.isfinite(grid.values)]
    if settings.unit == "points" and done.size and not (done.min() >= 0 and done.max() <= 1):
        worst = done.max() if done.max() > 1 else done.min()
        raise UserError(f"'{settings.metric}' holds {worst:g}: must be from 0 to 1, unless its unit is 'raw'")
    effects = [_measure(contrast, grid, settings, titles) for contrast in found]
    for declared in (True, False):
        chosen = [i for i, e in enumerate(effects) if (e.kind in FAMILIES[settings.family]) == declared]
        for i, judged in zip(chosen, judge([effects[i] for i in chosen], declared), strict=True):
            effects[i] = judged

    def names(runs: Sequence[tuple[tuple[str, ...], str]]) -> tuple[str, ...]:
        return tuple(run_name(cell, b, list(grid.levels), settings.block) for cell, b in runs[:MOST_NAMED])

    expected = grid.values.size
    runs = Runs(expected, int(done.size), len(grid.failed), len(grid.missing), names(grid.failed), names(grid.missing))
    notes = []
    if lost := [cell for cell in grid.cells if cell not in set(grid.observed)]:
        shown = "; ".join(", ".join(cell) for cell in lost[:MOST_NAMED])
        notes.append(f"no run of these cells is finished, so that no effect includes them: {shown}")
    if runs.failed:
        notes.append("where runs fail because of their recipe, the effects over the remaining blocks flatter it")
    if effects and not any(effect.declared for effect in effects):
        notes.append("nothing of the declared family can be estimated: every effect here is exploratory")
    return Analysis(settings, dict(grid.levels), tuple(effects), tuple(not_found), runs, parameters, rank, tuple(notes))


def _measure(contrast: Contrast, grid: Grid, settings: Settings, titles: Mapping[str, str]) -> Effect:
    """Returns the effect with everything that does not depend on its family."""
    scale = 100.0 if settings.unit == "points" else 1.0
    d = contrast.differences(grid.values, grid.cells) * scale
    whole = np.isfinite(d)
    d, n = d[whole], int(whole.sum())
    effect = Effect(
        kind=contrast.kind,
        name=contrast.name,
        titles=tuple(titles.get(factor, plain(factor)) for factor in contrast.factors),
        factors=contrast.factors,
        levels=contrast.levels,
        given=dict(contrast.given),
        bare=contrast.bare,
        over=dict(contrast.over),
        combinations=contrast.combinations,
        possible=contrast.possible,
        n=n,
        blocks=tuple(b for b, kept in zip(grid.blocks, whole, strict=True) if kept),
        left_out=tuple(b for b, kept in zip(grid.blocks, whole, strict=True) if not kept),
        differences=tuple(map(float, d)),
        settings=settings,
        notes=_notes(contrast, grid, n),
    )
    if n == 0:
        return effect
    tolerance = inference.TOLERANCE * max(scale, scale * float(np.nanmax(np.abs(grid.values))))
    favoured = d if settings.higher_is_better else -d
    better = float(np.mean(np.where(np.abs(d) <= tolerance, 0.5, favoured > 0)))
    low, high = wilson(better * n, n, alpha=settings.alpha)
    effect = replace(effect, estimate=float(d.mean()), better=better, better_low=low, better_high=high)
    return effect if n == 1 else _test(effect, d, tolerance)


def _test(effect: Effect, d: inference.FloatArray, tolerance: float) -> Effect:
    """Returns the effect with its tests, from two blocks on."""
    settings = effect.settings
    test = inference.paired_t(d, alpha=settings.alpha, tolerance=tolerance)
    corrected = inference.paired_t(d, alpha=settings.alpha, overlap=settings.test_train_ratio, tolerance=tolerance)
    flips = inference.sign_flip(d, tolerance=tolerance)
    mean, sd, t = float(test.mean), float(test.sd), float(test.t)
    notes = effect.notes
    if sd == 0:
        what = "no spread to test against" + ("" if mean == 0 else "; p = 0 and the interval without width are a limit")
        notes = (*notes, f"the difference is the same in every {settings.block}: {what}")
    return replace(
        effect,
        estimate=mean,
        sd=sd,
        low=float(test.low),
        high=float(test.high),
        t=t if math.isfinite(t) else None,
        p=float(test.p),
        sign_flip_p=flips.p,
        sign_flip_floor=flips.floor,
        sign_flip_exact=flips.exact,
        d_z=mean / sd if sd else None,
        equivalence_p=float(inference.tost(d, settings.margin, tolerance=tolerance)),
        corrected_low=float(corrected.low),
        corrected_high=float(corrected.high),
        corrected_p=float(corrected.p),
        notes=notes,
    )


def _notes(contrast: Contrast, grid: Grid, n: int) -> tuple[str, ...]:
    notes = []
    if contrast.kind in ("main", "interaction") and contrast.combinations < contrast.possible:
        some = {f: used for f, used in contrast.over.items() if len(used) < len(grid.levels[f])}
        where = "".join(f"; {factor} at {', '.join(used)}" for factor, used in some.items())
        notes.append(
            f"averaged over {contrast.combinations} of {contrast.possible} combinations of the other factors{where}"
        )
    if lacking := len(grid.blocks) - n:
        notes.append(f"{lacking} of {len(grid.blocks)} blocks left out: a run that it needs is failed or missing")
    return tuple(notes)
