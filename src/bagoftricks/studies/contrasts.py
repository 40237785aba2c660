"""Contrasts: the runs of a study, which effects they can tell, as weights over cells, and which they cannot.

Nothing is assumed additive: an effect is the mean difference over pairs of cells that differ in one factor alone, an
interaction the mean difference of differences over fours of cells that differ in two. What a design has no such pairs
or fours for is named with the reason, not estimated from a model.

| kind               | what it is                                                                               |
|--------------------|------------------------------------------------------------------------------------------|
| main               | a level against the first, averaged over combinations of all other factors               |
| interaction        | how much more one level does where another is on: (ab - b) - (a - none), averaged alike  |
| simple             | as main, but some other factor stands at one level in all of its pairs                   |
| simple interaction | as interaction, but some other factor stands at one level in all of its fours            |
| successive         | a step of a ladder: a cell against the one before it                                     |

An interaction is the full difference of differences, as the product term of a regression on 0/1 factors gives it, and
not half of it, as in the -1/+1 coding of industrial designs: 0.4 points mean 0.4 more points where both are on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bagoftricks.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]
Cell = tuple[str, ...]
"""A level of each factor, in the factors' order."""
Change = tuple[int, str, str]
"""Index of a factor, its level, and the reference."""
Levels = Mapping[str, tuple[str, ...]]
"""Levels by factor; the first is the reference."""
MOST_EFFECTS = 1_000
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


@dataclass(frozen=True)
class Contrast:
    """An effect, as weights over cells that sum to 0."""

    kind: str
    """main, interaction, simple, simple interaction or successive."""
    factors: tuple[str, ...]
    levels: tuple[tuple[str, str], ...]
    """For each of `factors`, the level and its reference."""
    weights: Mapping[Cell, float]
    given: Mapping[str, str]
    """Other factors that stand at one level throughout, with that level: what a simple effect holds for."""
    over: Mapping[str, tuple[str, ...]]
    """Other factors that the average runs over, with the levels that take part."""
    combinations: int
    """Combinations of the other factors that the average runs over."""
    possible: int
    """Combinations of the other factors that a full design would have."""
    bare: bool
    """Whether every factor of `given` stands at its reference."""

    @property
    def name(self) -> str:
        """Unique within a study: "schedule.decay: cosine - constant"."""
        parts = [f"{f}: {a} - {b}" for f, (a, b) in zip(self.factors, self.levels, strict=True)]
        given = ", ".join(f"{factor} = {level}" for factor, level in self.given.items())
        return " x ".join(parts) + (f" | {given}" if given else "")

    def differences(self, values: FloatArray, cells: Sequence[Cell]) -> FloatArray:
        """Returns the contrast in each block; NaN where the block lacks a cell that it needs.

        Args:
            values: (..., blocks, cells), NaN where there is no result; any number of studies before.
            cells: names the last axis.
        """
        place = {cell: i for i, cell in enumerate(cells)}
        needed = values[..., [place[cell] for cell in self.weights]]
        return np.asarray(needed @ np.array(list(self.weights.values())))


@dataclass(frozen=True)
class NotEstimable:
    """An effect that the design cannot tell."""

    name: str
    why: str


def find_contrasts(levels: Levels, cells: Sequence[Cell]) -> tuple[list[Contrast], list[NotEstimable]]:
    """Returns the main effects and two-way interactions that cells allow, and those they do not.

    Args:
        levels: levels by factor; every other level is set against the first.
        cells: what has results.

    Raises:
        UserError: if there would be more than `MOST_EFFECTS`.
    """
    steps = [[(i, level, all_[0]) for level in all_[1:]] for i, all_ in enumerate(levels.values())]
    wanted: list[tuple[Change, ...]] = [(change,) for each in steps for change in each]
    wanted += [pair for one, other in combinations(steps, 2) for pair in product(one, other)]
    if len(wanted) > MOST_EFFECTS:
        raise UserError(
            f"{len(wanted):,} effects of {len(levels)} factors: at most {MOST_EFFECTS:,}; name fewer factors"
        )
    found, not_found = [], [
        NotEstimable(factor, f"has one level only: {all_[0]}") for factor, all_ in levels.items() if len(all_) == 1
    ]  # fmt: skip
    there = frozenset(cells)
    for changes in wanted:
        groups = _matched(changes, cells, there)
        if groups:
            found.append(_contrast(changes, groups, levels, cells))
        else:
            not_found.append(NotEstimable(_name(changes, levels), _why_not(changes, cells, list(levels))))
    return found, not_found


def successive_contrasts(factor: str, order: Sequence[str]) -> list[Contrast]:
    """Returns each cell of a ladder against the one before it."""
    return [
        Contrast("successive", (factor,), ((after, before),), {(after,): 1.0, (before,): -1.0}, {}, {}, 1, 1, False)
        for before, after in pairwise(order)
    ]


def two_way_rank(levels: Levels, cells: Sequence[Cell]) -> tuple[int, int]:
    """Returns the parameters of the two-way model, intercept included, and how many of them the cells determine."""
    coded = [
        np.array([[cell[i] == level for level in all_[1:]] for cell in cells], dtype=np.float64)
        for i, all_ in enumerate(levels.values())
    ]
    columns = [np.ones((len(cells), 1)), *coded]
    columns += [(a[:, :, None] * b[:, None, :]).reshape(len(cells), -1) for a, b in combinations(coded, 2)]
    matrix = np.concatenate(columns, axis=1)
    return matrix.shape[1], int(np.linalg.matrix_rank(matrix))


def _corners(cell: Cell, changes: Sequence[Change]) -> dict[Cell, float]:
    """The cell with each change made or not, and the sign: + where an even number is left out."""
    corners = {}
    for made in product((True, False), repeat=len(changes)):
        corner = list(cell)
        for (i, level, reference), on in zip(changes, made, strict=True):
            corner[i] = level if on else reference
        corners[tuple(corner)] = math.prod(1.0 if on else -1.0 for on in made)
    return corners


def _matched(changes: Sequence[Change], cells: Sequence[Cell], there: frozenset[Cell]) -> list[dict[Cell, float]]:
    """Every pair, or four, of cells that differ in the changes alone."""
    bases = (cell for cell in cells if all(cell[i] == reference for i, _, reference in changes))
    groups = (_corners(cell, changes) for cell in bases)
    return [group for group in groups if there.issuperset(group)]


def _contrast(
    changes: Sequence[Change], groups: list[dict[Cell, float]], levels: Levels, cells: Sequence[Cell]
) -> Contrast:
    changed = {i for i, _, _ in changes}
    given, over, possible, names = {}, {}, 1, list(levels)
    for i, (factor, all_) in enumerate(levels.items()):
        if i in changed or len({cell[i] for cell in cells}) == 1:
            continue
        taking_part = {next(iter(group))[i] for group in groups}
        possible *= len(all_)
        if len(taking_part) == 1:
            given[factor] = taking_part.pop()
        else:
            over[factor] = tuple(level for level in all_ if level in taking_part)
    kind = "main" if len(changes) == 1 else "interaction"
    if given:
        kind = "simple" if len(changes) == 1 else "simple interaction"
    return Contrast(
        kind=kind,
        factors=tuple(names[i] for i, _, _ in changes),
        levels=tuple((level, reference) for _, level, reference in changes),
        weights={cell: sign / len(groups) for group in groups for cell, sign in group.items()},
        given=given,
        over=over,
        combinations=len(groups),
        possible=possible,
        bare=bool(given) and all(level == levels[factor][0] for factor, level in given.items()),
    )


def _name(changes: Sequence[Change], levels: Levels) -> str:
    names = list(levels)
    return " x ".join(f"{names[i]}: {level} - {reference}" for i, level, reference in changes)


def _why_not(changes: Sequence[Change], cells: Sequence[Cell], names: Sequence[str]) -> str:
    """What is missing, in words."""
    for i, *sides in changes:
        for level in sides:
            if not any(cell[i] == level for cell in cells):
                return f"no finished run has {names[i]} = {level}"
    if len(changes) == 1:
        return "no two cells differ in it alone"
    (i, *first), (j, *second) = changes
    for a, b in product(first, second):
        if not any(cell[i] == a and cell[j] == b for cell in cells):
            return f"no cell has {names[i]} = {a} with {names[j]} = {b}"
    return "its four combinations never stand together with everything else equal"
