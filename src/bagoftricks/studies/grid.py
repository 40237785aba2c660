"""The grid of a study's results: every cell in every block, read from a tidy table, one row a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bagoftricks.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]
Cell = tuple[str, ...]
"""A level of each factor, in the factors' order."""
Levels = Mapping[str, tuple[str, ...]]
"""Levels by factor; the first is the reference."""
MOST_CELLS = 20_000
MOST_RUNS = 5_000_000
DONE = frozenset({"done", "ok", "finished", "completed", "complete", "success"})
FAILED = frozenset({"failed", "failure", "error", "crashed", "crash", "diverged"})
"""What a column of states calls a run that counts and one that failed; any other state is a run still missing."""


@dataclass(frozen=True)
class Grid:
    """Results of a study: every cell in every block."""

    levels: Levels
    cells: tuple[Cell, ...]
    """Every combination that the table holds."""
    blocks: tuple[str, ...]
    values: FloatArray
    """(blocks, cells) the metric; NaN where there is no finished run."""
    failed: tuple[tuple[Cell, str], ...]
    missing: tuple[tuple[Cell, str], ...]
    """Runs without a value that are not known to have failed: no row, no finite value, or not finished."""

    @property
    def observed(self) -> list[Cell]:
        """Cells with a finished run in some block."""
        return [cell for cell, column in zip(self.cells, self.values.T, strict=True) if np.isfinite(column).any()]

    @property
    def sparse(self) -> list[Cell]:
        """Those of them with a run in less than half of the blocks: with them, an average would lose its blocks."""
        enough = dict(zip(self.cells, enough_runs(self.values), strict=True))
        return [cell for cell in self.observed if not enough[cell]]


def enough_runs(values: FloatArray) -> npt.NDArray[np.bool_]:
    """Returns (cells,) whether a cell has a run in at least half of the blocks that have any.

    Args:
        values: (blocks, cells), NaN where there is no run.
    """
    there = np.isfinite(values)
    return np.asarray(there.sum(axis=0) * 2 >= max(1, int(there.any(axis=1).sum())))


def read_grid(
    frame: pd.DataFrame,
    factors: Sequence[str],
    block: str,
    metric: str,
    *,
    status: str | None = None,
    levels: Mapping[str, Sequence[str]] | None = None,
) -> Grid:
    """Returns the runs of a tidy table, one row a run.

    Args:
        frame: columns for the factors (their values as text are the levels), the block and the metric.
        factors: names of those columns.
        block: column of the seed that all cells share.
        metric: column of numbers; empty, NaN or infinite is a missing run.
        status: column of states, see `DONE` and `FAILED`; without it a row with a value is done.
        levels: order of a factor's levels, the first the reference; others follow as they appear in the table.

    Raises:
        UserError: if a column is not there, a level or block is empty, a value no number, or a run there twice.
    """
    import pandas as pd

    _check_columns(frame, [*factors, block, metric, *([status] if status else [])])
    for name in (*factors, block):
        empty = frame[name].isna() | (frame[name].astype(str).str.strip() == "")
        if empty.any():
            raise UserError(f"column '{name}' is empty in {int(empty.sum())} rows: give every run a level and a block")
    numbers = pd.to_numeric(frame[metric], errors="coerce").astype(float)
    odd = frame[metric].notna() & numbers.isna()
    if odd.any():
        raise UserError(f"column '{metric}' holds '{frame[metric][odd].iloc[0]}', which is no number")
    order = {name: _levels(frame[name], (levels or {}).get(name, ())) for name in factors}
    cell_of: list[Cell] = list(zip(*(frame[name].map(str) for name in factors), strict=True))
    block_of = list(frame[block].map(str))
    cells, blocks = tuple(dict.fromkeys(cell_of)), tuple(dict.fromkeys(block_of))
    if len(cells) > MOST_CELLS or len(cells) * len(blocks) > MOST_RUNS:
        raise UserError(f"{len(cells):,} combinations in {len(blocks):,} blocks are too many: name fewer factors")
    states = ["done"] * len(frame) if status is None else [str(s).strip().lower() for s in frame[status]]

    row_of, column_of = {b: i for i, b in enumerate(blocks)}, {c: i for i, c in enumerate(cells)}
    values = np.full((len(blocks), len(cells)), np.nan)
    seen: set[tuple[Cell, str]] = set()
    failed = []
    for run, value, state in zip(zip(cell_of, block_of, strict=True), numbers, states, strict=True):
        if run in seen:
            raise UserError(f"two rows for {run_name(*run, factors, block)}: one row a run")
        seen.add(run)
        if state in FAILED:
            failed.append(run)
        elif state in DONE and math.isfinite(value):
            values[row_of[run[1]], column_of[run[0]]] = value
    gone = set(failed)
    lacking = ((cells[j], blocks[i]) for i, j in np.argwhere(np.isnan(values)))
    return Grid(order, cells, blocks, values, tuple(failed), tuple(run for run in lacking if run not in gone))


def run_name(cell: Cell, in_block: str, factors: Sequence[str], block: str) -> str:
    """Returns a run for people: "a = 1, b = 0, seed 3"."""
    return ", ".join([f"{f} = {level}" for f, level in zip(factors, cell, strict=True)] + [f"{block} {in_block}"])


def _check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if name not in frame.columns:
            raise UserError(f"no column '{name}'; there are: {', '.join(map(str, frame.columns))}")
        if name in names[:i]:
            raise UserError(f"column '{name}' cannot be two things at once: factor, block, metric or state")
    if frame.empty:
        raise UserError("the table has no rows")


def _levels(column: Any, first: Sequence[str]) -> tuple[str, ...]:
    """Levels as text: those named, then a categorical column's own order, then as they appear."""
    own = map(str, column.cat.categories) if hasattr(column, "cat") else ()
    there = list(dict.fromkeys(column.map(str)))
    return tuple(dict.fromkeys([*map(str, first), *(level for level in own if level in there), *there]))
