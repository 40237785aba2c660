"""Contrasts: which effects the cells of a study can tell, as weights over cells, and which they cannot.

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

import numpy as np

from bagoftricks.errors import UserError
from bagoftricks.studies.design import MOST_EFFECTS
from bagoftricks.studies.grid import Cell, FloatArray, Levels

Change = tuple[int, str, str]
"""Index of a factor, its level, and the reference."""


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


def find_contrasts(
    levels: Levels, cells: Sequence[Cell], design: Sequence[Cell] | None = None
) -> tuple[list[Contrast], list[NotEstimable]]:
    """Returns the main effects and two-way interactions that cells allow, and those they do not.

    Where the two together are more than `MOST_EFFECTS`, interactions are not looked for; they are named as one.

    Args:
        levels: levels by factor; every other level is set against the first.
        cells: what has results.
        design: all cells that there should be, by default these. A factor that varies in it alone is held at a level:
            an effect is a simple one then.

    Raises:
        UserError: if there are more than `MOST_EFFECTS` levels to set against their first.
    """
    steps = [[(i, level, all_[0]) for level in all_[1:]] for i, all_ in enumerate(levels.values())]
    wanted: list[tuple[Change, ...]] = [(change,) for each in steps for change in each]
    if len(wanted) > MOST_EFFECTS:
        raise UserError(
            f"{len(wanted):,} effects of {len(levels)} factors: at most {MOST_EFFECTS:,}; name fewer factors"
        )
    found, not_found = [], [
        NotEstimable(factor, f"has one level only: {all_[0]}") for factor, all_ in levels.items() if len(all_) == 1
    ]  # fmt: skip
    if too_many_pairs(levels):
        pairs = count_effects(levels) - len(wanted)
        why = f"with {len(wanted):,} effects of single factors more than {MOST_EFFECTS:,}; none is looked for"
        not_found.append(NotEstimable(f"{pairs:,} interactions, factor x factor", why))
    else:
        wanted += [pair for one, other in combinations(steps, 2) for pair in product(one, other)]
    there = frozenset(cells)
    varied = {i for i in range(len(levels)) if len({cell[i] for cell in design or cells}) > 1}
    for changes in wanted:
        groups = _matched(changes, cells, there)
        if groups:
            found.append(_contrast(changes, groups, levels, varied))
        else:
            not_found.append(NotEstimable(_name(changes, levels), _why_not(changes, cells, list(levels))))
    return found, not_found


def count_effects(levels: Levels) -> int:
    """Returns how many main effects and two-way interactions the levels would have, each against the first."""
    steps = [len(all_) - 1 for all_ in levels.values()]
    return sum(steps) + (sum(steps) ** 2 - sum(n * n for n in steps)) // 2


def too_many_pairs(levels: Levels) -> bool:
    """Whether interactions are left out, since all effects together are more than `MOST_EFFECTS`."""
    return count_effects(levels) > MOST_EFFECTS


def successive_contrasts(factor: str, order: Sequence[str]) -> list[Contrast]:
    """Returns each cell of a ladder against the one before it."""
    return [
        Contrast("successive", (factor,), ((after, before),), {(after,): 1.0, (before,): -1.0}, {}, {}, 1, 1, False)
        for before, after in pairwise(order)
    ]


def two_way_matrix(levels: Levels, cells: Sequence[Cell]) -> FloatArray:
    """Returns the two-way model of cells, (cells, parameters): intercept, main effects, two-way interactions.

    A level's column is 1 at it and 0 elsewhere, less 1 over the number of levels (-0.5 and +0.5 for two), an
    interaction's the product of two. In a full design each coefficient is then the effect that `find_contrasts` calls
    main or interaction, over all combinations of the other factors.

    Args:
        levels: levels by factor, the reference first.
        cells: rows of the matrix.
    """
    coded = [
        np.array([[cell[i] == level for level in all_[1:]] for cell in cells], dtype=np.float64) - 1 / len(all_)
        for i, all_ in enumerate(levels.values())
        if len(all_) > 1
    ]
    columns = [np.ones((len(cells), 1)), *coded]
    columns += [(a[:, :, None] * b[:, None, :]).reshape(len(cells), -1) for a, b in combinations(coded, 2)]
    return np.concatenate(columns, axis=1)


def two_way_rank(levels: Levels, cells: Sequence[Cell]) -> tuple[int, int]:
    """Returns the parameters of the two-way model, intercept included, and how many of them the cells determine."""
    matrix = two_way_matrix(levels, cells)
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


def _contrast(changes: Sequence[Change], groups: list[dict[Cell, float]], levels: Levels, varied: set[int]) -> Contrast:
    changed = {i for i, _, _ in changes}
    given, over, possible, names = {}, {}, 1, list(levels)
    for i, (factor, all_) in enumerate(levels.items()):
        if i in changed or i not in varied:
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
