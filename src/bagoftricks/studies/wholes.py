"""A study's cells compared as wholes: their names for people, and the baseline, for `cells`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bagoftricks.errors import UserError, unknown
from bagoftricks.studies import inference
from bagoftricks.studies.cells import CellComparisons, compare_cells
from bagoftricks.studies.grid import Cell, Grid, Levels
from bagoftricks.studies.verdicts import Settings

if TYPE_CHECKING:
    import pandas as pd


def cell_names(frame: pd.DataFrame, grid: Grid, factors: Sequence[str], column: str | None) -> list[str]:
    """Returns names of the grid's cells: a column's, or "a = 1, b = 0" without the factors that stand at one level."""
    if column is not None:
        if column not in frame.columns:
            raise UserError(f"no column '{column}'; there are: {', '.join(map(str, frame.columns))}")
        keys = zip(*(frame[name].map(str) for name in factors), strict=True)
        named = dict(zip(keys, frame[column].map(str), strict=True))
        names = [named[cell] for cell in grid.cells]
        if len(set(names)) == len(names):
            return names
    return [cell_name(cell, grid.levels) for cell in grid.cells]


def cell_name(cell: Cell, levels: Levels) -> str:
    """Returns a cell for people, by the levels of what varies: "a = 1, b = 0"."""
    return ", ".join(f"{f} = {level}" for (f, all_), level in zip(levels.items(), cell, strict=True) if len(all_) > 1)


def compare_wholes(
    grid: Grid, settings: Settings, names: Sequence[str], baseline: Mapping[str, str] | None
) -> CellComparisons | None:
    """Returns the cells against a baseline and against the best of the others, in the effects' unit.

    Args:
        grid: the runs.
        settings: of the analysis.
        names: of the grid's cells, see `cell_names`.
        baseline: levels of the baseline by factor; a factor left out stands at its first level.

    Raises:
        UserError: if no such cell has enough runs, where one was asked for.
    """
    for factor, level in (baseline or {}).items():
        if factor not in grid.levels:
            raise unknown("factor of the baseline", factor, grid.levels)
        if level not in grid.levels[factor]:
            raise unknown(f"level of {factor}", level, grid.levels[factor])
    chosen = tuple((baseline or {}).get(factor, all_[0]) for factor, all_ in grid.levels.items())
    at = grid.cells.index(chosen) if chosen in grid.cells else None
    scale = 100.0 if settings.unit == "points" else 1.0
    values = grid.values * scale
    finite = np.abs(values[np.isfinite(values)])
    found = compare_cells(
        values, names, grid.blocks, baseline=at, higher_is_better=settings.higher_is_better, alpha=settings.alpha,
        tolerance=inference.TOLERANCE * max(scale, float(finite.max(initial=0.0))),
    )  # fmt: skip
    if baseline and found and (at is None or found.baseline != names[at]):
        raise UserError(f"baseline {cell_name(chosen, grid.levels)}: has too few finished runs; choose another cell")
    return found
