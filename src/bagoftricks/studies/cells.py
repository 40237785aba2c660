"""Whole cells compared: each against a baseline (Dunnett), and each against the best of the others (Hsu).

Arrays in, dataclasses out; nothing of factors. The design is a randomised complete block design: k cells, each run
once in each of b blocks. Its model is additive, y = cell + block + luck, with luck of one variance in all cells; the
residual mean square s^2 has (k - 1)(b - 1) degrees of freedom and the difference of two cells the standard error
s sqrt(2 / b). So one cell with much more luck than the others, as one that diverges now and then, widens all intervals.

Sources: Dunnett 1955, "A multiple comparison procedure for comparing several treatments with a control", J. Am. Stat.
Assoc. 50, 1096-1121. Hsu 1984, "Constrained simultaneous confidence intervals for multiple comparisons with the best",
Ann. Stat. 12, 1136-1144; Hsu 1996, "Multiple Comparisons: Theory and Methods", chapters 3 and 4 (chapter 7 for blocks).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bagoftricks.studies.grid import FloatArray, enough_runs
from bagoftricks.studies.inference import TOLERANCE
from bagoftricks.studies.verdicts import SEEDS_FOR_VERDICT

MOST_COMPARED = 1_000
"""Cells that are compared; beyond, every interval is too wide to be of use."""


@dataclass(frozen=True)
class CellComparison:
    """One cell; differences are in the metric's own direction, so that below 0 is good where lower is better."""

    name: str
    mean: float
    """Over the blocks compared."""
    difference: float
    """From the baseline: this cell's mean minus the baseline's; 0 for the baseline itself."""
    low: float | None
    high: float | None
    """Its simultaneous 1 - alpha interval: all differences from the baseline lie in theirs; None for the baseline."""
    p: float | None
    """Two-sided, simultaneous: the chance of any difference from the baseline as large, were all zero."""
    beats: str
    """better or worse than the baseline where that is shown, else "not shown"; "baseline" for itself."""
    to_best: float
    """This cell's mean minus the best mean of the other cells."""
    best_low: float
    best_high: float
    """Hsu's simultaneous 1 - alpha interval of it, constrained to contain 0."""
    may_be_best: bool


@dataclass(frozen=True)
class CellComparisons:
    """All cells over the blocks that have a run of each."""

    cells: tuple[CellComparison, ...]
    baseline: str
    blocks: tuple[str, ...]
    left_out: tuple[str, ...]
    """Blocks that lack a run of some cell."""
    cells_left_out: tuple[str, ...]
    """Cells with a run in less than half of the blocks, which would cost all others their blocks."""
    df: int
    """(k - 1)(b - 1)."""
    sd: float
    """Square root of the residual mean square."""
    critical: float
    """Dunnett's two-sided critical value: simultaneous intervals reach this many standard errors."""
    critical_best: float
    """Dunnett's one-sided one, which Hsu's intervals use."""
    alpha: float
    higher_is_better: bool
    exploratory: bool
    """Fewer blocks than a verdict needs."""

    @property
    def best(self) -> tuple[str, ...]:
        """Cells that may be the best: with a chance of 1 - alpha or more the best cell is among them."""
        return tuple(cell.name for cell in self.cells if cell.may_be_best)


def compare_cells(
    values: npt.ArrayLike,
    cells: Sequence[str],
    blocks: Sequence[str],
    *,
    baseline: int | None = None,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    tolerance: float = TOLERANCE,
) -> CellComparisons | None:
    """Returns Dunnett's comparisons with a baseline and Hsu's with the best, in blocks; None where there is too little.

    Cells with a run in less than half of the blocks are left out and named, then blocks that lack a run of what stays.

    Args:
        values: (blocks, cells) the metric in any unit; NaN where there is no result.
        cells: names of the columns.
        blocks: names of the rows.
        baseline: index of the cell that others are set against; the first that stays where None or left out.
        higher_is_better: whether a larger metric is better.
        alpha: each of the two families of intervals holds at 1 - alpha; above 0, below 0.5.
        tolerance: residuals within it are rounding.

    Returns:
        None below two cells or two blocks that have them all, above `MOST_COMPARED` cells, and where all differences
        between cells are the same in every block: there is no luck to test against.
    """
    table = np.asarray(values, dtype=np.float64)
    stays, whole = _complete(table)
    y = table[np.ix_(whole, stays)]
    b, k = y.shape
    if b < 2 or not 2 <= k <= MOST_COMPARED:
        return None
    names = [name for name, there in zip(cells, stays, strict=True) if there]
    at = int(stays[:baseline].sum()) if baseline is not None and stays[baseline] else 0
    df = (k - 1) * (b - 1)
    residuals = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean()
    sd = 0.0 if np.abs(residuals).max() <= tolerance else math.sqrt(float((residuals**2).sum()) / df)
    if sd == 0:
        return None
    critical, critical_best = (dunnett_critical(k - 1, df, alpha, two_sided=two) for two in (True, False))
    return CellComparisons(
        cells=_rows(y.mean(axis=0), names, at, sd * math.sqrt(2 / b), df, alpha, higher_is_better, tolerance),
        baseline=names[at],
        blocks=tuple(block for block, there in zip(blocks, whole, strict=True) if there),
        left_out=tuple(block for block, there in zip(blocks, whole, strict=True) if not there),
        cells_left_out=tuple(cell for cell, there in zip(cells, stays, strict=True) if not there),
        df=df,
        sd=sd,
        critical=critical,
        critical_best=critical_best,
        alpha=alpha,
        higher_is_better=higher_is_better,
        exploratory=b < SEEDS_FOR_VERDICT,
    )


def _rows(
    means: FloatArray,
    names: Sequence[str],
    at: int,
    se: float,
    df: int,
    alpha: float,
    higher_is_better: bool,
    tolerance: float,
) -> tuple[CellComparison, ...]:
    """Compares means, whose differences have the standard error se, with the one at `at` and with the best."""
    m = len(means) - 1
    half = dunnett_critical(m, df, alpha) * se
    half_best = dunnett_critical(m, df, alpha, two_sided=False) * se
    d = means - means[at]
    d = np.where(np.abs(d) <= tolerance, 0.0, d)
    p = _simultaneous_p(d, se, m, df)
    gap, low, high, may_be_best = best_intervals(means if higher_is_better else -means, half_best, tolerance)
    if not higher_is_better:
        gap, low, high = 0.0 - gap, 0.0 - high, 0.0 - low
    rows = []
    for i, name in enumerate(names):
        better = (d[i] > 0) == higher_is_better
        shown = "not shown" if p[i] > alpha else "better" if better else "worse"
        rows.append(
            CellComparison(
                name=name,
                mean=float(means[i]),
                difference=float(d[i]),
                low=None if i == at else float(d[i] - half),
                high=None if i == at else float(d[i] + half),
                p=None if i == at else float(p[i]),
                beats="baseline" if i == at else shown,
                to_best=float(gap[i]),
                best_low=float(low[i]),
                best_high=float(high[i]),
                may_be_best=bool(may_be_best[i]),
            )
        )
    return tuple(rows)


def best_intervals(
    means: FloatArray, half: float, tolerance: float = TOLERANCE
) -> tuple[FloatArray, FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Returns each mean minus the largest of the others, Hsu's constrained interval of it, and which may be the best.

    With D_i the difference and h the half width, the interval is from min(0, D_i - h) to max(0, D_i + h): a cell that
    is not the best has a difference below 0, so that no more need be claimed. One whose upper end is 0 is not the best.

    Args:
        means: (k,) larger is better, k at least 2.
        half: the one-sided Dunnett critical value times the standard error of a difference.
        tolerance: means no further apart than this are equal.
    """
    order = np.argsort(means, kind="stable")
    others = np.full(len(means), means[order[-1]])
    others[order[-1]] = means[order[-2]]
    gap = means - others
    gap = np.where(np.abs(gap) <= tolerance, 0.0, gap)
    # at half = 0 a tie for the best has no width: both stay
    may_be_best = (gap + half > 0) | (gap == 0)
    return gap, np.minimum(0.0, gap - half), np.maximum(0.0, gap + half), may_be_best


def dunnett_tail(t: float, comparisons: int, df: float, *, two_sided: bool = True) -> float:
    """Returns the chance that the largest of m Student t, correlated by 1/2, exceeds t (in absolute value).

    The t are (Z_i - Z_0) / (sqrt(2) S) with independent standard normal Z, and S^2 a chi-squared over its degrees of
    freedom. Given Z_0 and S they are independent, which leaves two integrals, both by the trapezoidal rule (over log S
    and Z_0), whose error vanishes fast as the integrands fade out at both ends: below 1e-9 where df is at least m, as
    in a block design, and below 1e-4 up to m = 100 otherwise.

    Args:
        t: from 0 where two-sided.
        comparisons: m, from 1.
        df: degrees of freedom of S, above 0.
        two_sided: whether absolute values are compared.
    """
    from scipy import special

    spread, weight, z, density = _nodes(df)
    reach = math.sqrt(2) * t * spread[:, None]
    inside = special.ndtr(z + reach)
    if two_sided:
        inside = inside - special.ndtr(z - reach)
    return float(min(1.0, max(0.0, 1.0 - weight @ (inside**comparisons @ density))))


@lru_cache(maxsize=1_000)
def dunnett_critical(comparisons: int, df: float, alpha: float = 0.05, *, two_sided: bool = True) -> float:
    """Returns what the largest of m correlated Student t exceeds with chance alpha.

    Args:
        comparisons: m, from 1: cells less the baseline.
        df: degrees of freedom of the residual mean square.
        alpha: above 0 and below 0.5.
        two_sided: whether absolute values are compared.
    """
    from scipy import optimize, special

    # Bonferroni's is never smaller; a little more, as with one comparison it is the same
    most = -1.01 * float(special.stdtrit(df, alpha / comparisons / (2 if two_sided else 1)))
    root: Any = optimize.brentq(
        lambda t: dunnett_tail(t, comparisons, df, two_sided=two_sided) - alpha, 0.0, most, xtol=1e-10
    )
    return float(root)


@lru_cache(maxsize=100)
def _nodes(df: float) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Returns nodes of S and their weights, and nodes of Z_0 and theirs; weights add up to 1."""
    from scipy import special

    least, most = special.gammaincinv(df / 2, 1e-14), special.gammainccinv(df / 2, 1e-14)
    low, high = 0.5 * math.log(2 * least / df), 0.5 * math.log(2 * most / df)
    log_s = np.linspace(low, high, max(61, int((high - low) / 0.17)))  # few degrees of freedom: a long left tail
    log_density = df * (log_s - np.exp(2 * log_s) / 2)
    weight = np.exp(log_density - log_density.max())
    z = np.linspace(-8.5, 8.5, 101)
    density = np.exp(-(z**2) / 2)
    return np.exp(log_s), weight / weight.sum(), z, density / density.sum()


def _complete(table: FloatArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Returns which cells stay, and which blocks then have a run of each."""
    stays = enough_runs(table)
    return stays, np.asarray(np.isfinite(table[:, stays]).all(axis=1))


def _simultaneous_p(d: FloatArray, se: float, comparisons: int, df: int) -> FloatArray:
    """Returns Dunnett's p of each difference."""
    return np.array([1.0 if t == 0 else dunnett_tail(t, comparisons, df) for t in np.abs(d) / se])
