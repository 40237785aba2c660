"""Effects: what each factor of a study does to a metric, how surely, and what the study cannot tell.

What is estimated: the mean effect over splits and seeds of this data set. Each contrast (`contrasts`) is computed
inside each block, where all cells share the split, the initialisation and the order of images; the paired t over blocks
decides (`measure`, `inference`), corrected within its family (`verdicts`). Blocks that lack a needed run are left out
of that contrast and counted; cells with a run in less than half of them are left out of averages and named. Where runs
fail because of their recipe, what remains flatters it. Beside it stand comparisons of whole cells (`cells`) and one
model of all runs (`mixed`). Bouthillier et al. 2021, arXiv:2103.03098, on what a block must vary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bagoftricks.errors import UserError, unknown
from bagoftricks.studies.cells import MOST_COMPARED, CellComparisons
from bagoftricks.studies.contrasts import (
    Contrast,
    NotEstimable,
    find_contrasts,
    successive_contrasts,
    too_many_pairs,
    two_way_rank,
)
from bagoftricks.studies.grid import Grid, Levels, read_grid, run_name
from bagoftricks.studies.inference import detectable, seeds_needed
from bagoftricks.studies.measure import measure
from bagoftricks.studies.mixed import Secondary, fit_secondary
from bagoftricks.studies.verdicts import FAMILIES, SEEDS_FOR_VERDICT, Effect, Settings, judge, sentence
from bagoftricks.studies.wholes import cell_names, compare_wholes

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
    """Of the two-way model, intercept included; None for successive differences, and without interactions."""
    estimable: int | None
    """How many of them the finished cells determine."""
    notes: tuple[str, ...]
    cells: CellComparisons | None = None
    """Whole cells compared; None below two cells or two blocks that have them all."""
    fit: Callable[[], Secondary | None] | None = field(default=None, repr=False, compare=False)
    """What computes `secondary`, once it is asked for: importing statsmodels takes a second and more."""

    @cached_property
    def secondary(self) -> Secondary | None:
        """The secondary model; None below two blocks, or where no degree of freedom is left."""
        return self.fit() if self.fit else None

    def to_dict(self) -> dict[str, Any]:
        """Returns what JSON can hold: no NaN, no infinity; each effect with its sentence."""
        table = asdict(replace(self, fit=None))
        del table["fit"]
        table["secondary"] = asdict(self.secondary) if self.secondary else None
        if self.cells:
            table["cells"]["best"] = list(self.cells.best)
        for row, effect in zip(table["effects"], self.effects, strict=True):
            del row["settings"], row["cells"]
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
    test_train_ratio: float | None = 0.25,
    cell: str | None = None,
    baseline: Mapping[str, str] | None = None,
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
        test_train_ratio: test over training images, for the Nadeau-Bengio interval beside; None for none, where all
            blocks share one split.
        cell: column of the cells' names for people; without it they are named by their levels.
        baseline: levels of the cell that all others are set against, by factor; a factor left out stands at its first
            level. Where that cell did not run, the first that did.

    Raises:
        UserError: if the table or a setting is wrong.
    """
    if not factors:
        raise UserError("no factors: name the columns that the study varied")
    grid = read_grid(frame, factors, block, metric, status=status, levels=levels)
    settings = _settings(metric, block, higher_is_better, margin, alpha, family, unit, test_train_ratio)
    _check_range(grid, settings)
    observed = grid.observed
    found, not_found, wanted = _found(grid)
    modelled = bool(observed) and not too_many_pairs(grid.levels)
    parameters, rank = two_way_rank(grid.levels, observed) if modelled else (None, None)
    cells = compare_wholes(grid, settings, cell_names(frame, grid, factors, cell), baseline)
    return _analysis(grid, settings, found, not_found, titles or {}, parameters, rank, cells, wanted)


def _found(grid: Grid) -> tuple[list[Contrast], list[NotEstimable], list[Contrast]]:
    """Returns the contrasts of the runs, what cannot be told, and the contrasts that the design has with all its runs.

    Averages do without cells that have a run in less than half of the blocks, where anything is left to average over:
    a block without such a cell's run would be lost to the whole effect.
    """
    observed = grid.observed
    found, not_found = find_contrasts(grid.levels, observed, grid.cells)
    wanted = found if len(observed) == len(grid.cells) else find_contrasts(grid.levels, grid.cells)[0]
    if sparse := set(grid.sparse):
        rest = find_contrasts(grid.levels, [cell for cell in observed if cell not in sparse], grid.cells)[0]
        without = {(contrast.factors, contrast.levels): contrast for contrast in rest}
        found = [without.get((contrast.factors, contrast.levels), contrast) for contrast in found]
    return found, not_found, wanted


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
    test_train_ratio: float | None = 0.25,
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
        test_train_ratio: for the Nadeau-Bengio interval; None for none.

    Raises:
        UserError: if the table, the order or a setting is wrong.
    """
    if len(order) < 2 or len(set(order)) < len(order):
        raise UserError(f"order {list(order)}: at least two cells, each once")
    if cell not in frame.columns:
        raise UserError(f"no column '{cell}'; there are: {', '.join(map(str, frame.columns))}")
    names = frame[cell].astype(str)
    there = set(names)
    for name in order:
        if name not in there:
            raise unknown("cell", name, there)
    grid = read_grid(frame[names.isin(order)], [cell], block, metric, status=status, levels={cell: order})
    settings = _settings(metric, block, higher_is_better, margin, alpha, "main+two-way", unit, test_train_ratio)
    _check_range(grid, settings)
    cells = compare_wholes(grid, settings, [name for (name,) in grid.cells], None)
    return _analysis(grid, settings, successive_contrasts(cell, order), [], {}, None, None, cells)


def _settings(
    metric: str,
    block: str,
    higher_is_better: bool,
    margin: float,
    alpha: float,
    family: str,
    unit: str,
    ratio: float | None,
) -> Settings:
    if not (math.isfinite(margin) and margin > 0):
        raise UserError(f"margin {margin}: must be above 0")
    if not 0 < alpha < 0.5:
        raise UserError(f"alpha {alpha}: must be above 0 and below 0.5")
    if family not in FAMILIES:
        raise unknown("family", family, FAMILIES)
    if unit not in UNITS:
        raise unknown("unit", unit, UNITS)
    if ratio is not None and not (math.isfinite(ratio) and ratio >= 0):
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
    cells: CellComparisons | None,
    wanted: Sequence[Contrast] = (),
) -> Analysis:
    family = FAMILIES[settings.family]
    planned, left = ({(c.factors, c.levels) for c in some if c.kind in family} for some in (wanted, found))
    lost = len(planned - left)
    effects = [measure(contrast, grid, settings, titles) for contrast in found]
    for declared in (True, False):
        chosen = [i for i, e in enumerate(effects) if (e.kind in family) == declared]
        family_of_them = judge([effects[i] for i in chosen], declared, lost if declared else 0)
        for i, judged in zip(chosen, family_of_them, strict=True):
            effects[i] = judged

    def names(runs: Sequence[tuple[tuple[str, ...], str]]) -> tuple[str, ...]:
        return tuple(run_name(cell, b, list(grid.levels), settings.block) for cell, b in runs[:MOST_NAMED])

    expected, done = grid.values.size, int(np.isfinite(grid.values).sum())
    runs = Runs(expected, done, len(grid.failed), len(grid.missing), names(grid.failed), names(grid.missing))
    notes = []
    observed = set(grid.observed)
    if unseen := [cell for cell in grid.cells if cell not in observed]:
        shown = "; ".join(", ".join(cell) for cell in unseen[:MOST_NAMED])
        notes.append(f"no run of these cells is finished, so that no effect includes them: {shown}")
    sparse = grid.sparse
    if sparse and any(contrast.kind != "successive" for contrast in found):
        shown = "; ".join(", ".join(cell) for cell in sparse[:MOST_NAMED])
        notes.append(
            f"these cells have a run in less than half of the {settings.block}s, so that effects average over the "
            f"others wherever there are any: {shown}"
        )
    if runs.failed:
        notes.append("where runs fail because of their recipe, the effects over the remaining blocks flatter it")
    if effects and not any(effect.declared for effect in effects):
        notes.append("nothing of the declared family can be estimated: every effect here is exploratory")
    if cells and cells.cells_left_out:
        notes.append(f"too few runs to be compared as whole cells: {'; '.join(cells.cells_left_out[:MOST_NAMED])}")
    if cells is None and len(grid.blocks) > 1 and len(grid.observed) > 1:
        if len(grid.observed) > MOST_COMPARED:
            why = f"more than {MOST_COMPARED:,}"
        elif np.isfinite(grid.values).all():
            why = f"they differ by the same in every {settings.block}, so that there is no luck to test against"
        else:
            why = f"no two {settings.block}s have a run of each"
        notes.append(f"cells are not compared as wholes: {why}")
    scale = 100.0 if settings.unit == "points" else 1.0
    fit = partial(fit_secondary, grid, tuple(found), tuple(effects), scale=scale)
    return Analysis(
        settings, dict(grid.levels), tuple(effects), tuple(not_found), runs, parameters, rank, tuple(notes), cells, fit
    )


def _check_range(grid: Grid, settings: Settings) -> None:
    done = grid.values[np.isfinite(grid.values)]
    if settings.unit == "points" and done.size and not (done.min() >= 0 and done.max() <= 1):
        worst = done.max() if done.max() > 1 else done.min()
        raise UserError(f"'{settings.metric}' holds {worst:g}: must be from 0 to 1, unless its unit is 'raw'")
