"""What a simulation found, and whether it keeps what is promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.calibrate.batch import ALPHA
from bench.calibrate.designs import FloatArray

COVERAGE = (0.93, 0.97)
"""Where 95 % intervals must lie."""
POWER_SLACK = 0.05


@dataclass(frozen=True)
class Effort:
    """How much is simulated."""

    studies: int
    """Of each scenario, through the inner functions."""
    proved: int
    """How many of those also go through `analyse`, which must say the same."""
    whole: int
    """Studies of each design that go through `analyse` alone."""


@dataclass(frozen=True)
class Figure:
    """One entry of a table; several of one row and column stand side by side there."""

    table: str
    row: str
    column: str
    shown: str
    studies: int
    """0 where the figure is computed and not simulated."""
    values: Mapping[str, float | int]
    holds: bool | None = None
    """Whether a promise is kept; None where nothing is promised."""


def percent(share: float) -> str:
    """Returns a share as a percentage with one decimal."""
    return f"{100 * share:.1f}"


def at_most(wrong: int, studies: int, bound: float = ALPHA) -> bool:
    """Returns whether a true rate of at most `bound` may show this many: all but one such simulation in 1,000 does."""
    from scipy import stats

    return wrong <= int(stats.binom.ppf(0.999, studies, bound))


def rate(
    table: str, row: str, column: str, wrong: npt.NDArray[np.bool_], blocks: int, *, promised: bool = True
) -> Figure:
    """Returns the figure of an error that must stay at or under 5 %, from (S,) whether a study erred."""
    count, studies = int(wrong.sum()), len(wrong)
    values = {"blocks": blocks, "rate": count / studies}
    return Figure(
        table, row, column, percent(count / studies), studies, values, at_most(count, studies) if promised else None
    )


def coverage(
    table: str, row: str, column: str, covered: npt.NDArray[np.bool_], blocks: int, *, most: float = COVERAGE[1]
) -> Figure:
    """Returns the figure of the effect whose interval's coverage is furthest from 95 %, from (S, E) whether it holds.

    Args:
        table: as for a figure.
        row: as for a figure.
        column: as for a figure.
        covered: whether the interval holds the truth.
        blocks: of each study.
        most: what it may not exceed: 1 where intervals that are too wide are known.
    """
    shares: FloatArray = covered.mean(axis=0)
    worst = float(shares[np.argmax(np.abs(shares - (1 - ALPHA)))])
    holds = bool(shares.min() >= COVERAGE[0] and shares.max() <= most)
    values = {"blocks": blocks, "lowest": float(shares.min()), "highest": float(shares.max())}
    return Figure(table, row, column, percent(worst), len(covered), values, holds)
