"""Paired inference over blocks: tests, intervals, corrections and power. Arrays in, arrays out; nothing of a study.

Shapes: `d` is (..., n): the difference that an effect makes in each of n blocks, any number of studies or effects
before it. Units are the caller's. What decides is the paired t: with few blocks no test of normality can be relied on,
and a sign-flip test cannot go below 2 / 2^n. The t is exact for Gaussian differences and close for symmetric ones;
where one level's results are skewed and the other's are not, it is too bold (exponential differences: 12 % false finds
at 5 blocks and 10 % at 10, for 5 %).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bagoftricks.errors import UserError

FloatArray = npt.NDArray[np.float64]

MOST_SIGNS = 10_000_000
"""At once: 80 MB, twice."""
EXACT_BLOCKS = 20
"""Up to here every assignment of signs is enumerated."""
DRAWS = 100_000
"""Random assignments of signs beyond that."""
TOLERANCE = 1e-12
"""Differences no further apart than this are equal: what rounding makes of metrics in [0, 1]."""
MOST_SEEDS = 1_000_000


@dataclass(frozen=True)
class TTest:
    """Paired t tests; every array has the shape of `d` without its last axis."""

    mean: FloatArray
    sd: FloatArray
    """Standard deviation of the differences, with n - 1."""
    t: FloatArray
    """Infinite where the differences are all equal and not zero, 0 where they are all zero."""
    p: FloatArray
    """Two-sided; the sign-flip test's where the differences are all equal, as there is no spread to test against."""
    low: FloatArray
    high: FloatArray


def paired_t(d: npt.ArrayLike, *, alpha: float = 0.05, overlap: float = 0.0, tolerance: float = TOLERANCE) -> TTest:
    """Returns the two-sided t test of mean difference 0, with n - 1 degrees of freedom, and its 1 - alpha interval.

    Args:
        d: (..., n) differences, n at least 2.
        alpha: 1 minus the interval's level.
        overlap: 0 for independent blocks. The ratio of test to training images gives the corrected resampled t of
            Nadeau and Bengio 2003 ("Inference for the generalization error", Machine Learning 52), whose variance is
            (1/n + ratio) s^2: for claims about new data, where blocks are overlapping splits of one data set.
        tolerance: differences that lie within it are equal, and a mean within it is zero.

    Raises:
        ValueError: below two blocks.
    """
    from scipy import stats

    mean, sd, se = _moments(d, overlap, tolerance)
    n = np.shape(d)[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, 0.0, mean / se)
    p = np.where((sd == 0) & (mean != 0), 2.0 / 2.0**n, 2 * stats.t.sf(np.abs(t), n - 1))
    half = stats.t.isf(alpha / 2, n - 1) * se
    return TTest(mean, sd, t, p, mean - half, mean + half)


def tost(d: npt.ArrayLike, margin: float, *, tolerance: float = TOLERANCE) -> FloatArray:
    """Returns the p of the two one-sided tests: that the mean difference is not inside (-margin, margin).

    It is 1 where the differences are all equal: few and coarse figures are equal by chance, which shows nothing.
    Source: Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15; the larger of the two p, n - 1 degrees.

    Args:
        d: (..., n) differences, n at least 2.
        margin: above 0, in the units of d.
        tolerance: as in `paired_t`.
    """
    from scipy import stats

    mean, _, se = _moments(d, 0.0, tolerance)
    room = margin - np.abs(mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(se > 0, room / se, -np.inf)
    return np.asarray(stats.t.sf(t, np.shape(d)[-1] - 1))


def _moments(d: npt.ArrayLike, overlap: float, tolerance: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns mean, standard deviation and standard error, exactly zero where only rounding keeps them from it."""
    values = np.asarray(d, dtype=np.float64)
    n = values.shape[-1]
    if n < 2:
        raise ValueError(f"{n} blocks: a t test needs at least two")
    mean = values.mean(axis=-1)
    sd = values.std(axis=-1, ddof=1)
    same = np.ptp(values, axis=-1) <= tolerance
    sd = np.where(same, 0.0, sd)
    mean = np.where(np.abs(mean) <= tolerance, 0.0, mean)
    return mean, sd, sd * math.sqrt(1 / n + overlap)


@dataclass(frozen=True)
class SignFlip:
    """A sign-flip permutation test."""

    p: float
    """Two-sided."""
    floor: float
    """The smallest p that these blocks can give: 2 / 2^n, or 1 / (draws + 1) where that is more."""
    exact: bool
    """Whether every assignment of signs was counted."""


def sign_flip(d: npt.ArrayLike, *, draws: int = DRAWS, seed: int = 0, tolerance: float = TOLERANCE) -> SignFlip:
    """Returns the permutation test of differences symmetric about 0: how often random signs give as large a mean.

    Args:
        d: (n,) differences, n at least 1. Up to `EXACT_BLOCKS` all 2^n assignments of signs are counted.
        draws: random assignments beyond; the observed one counts too, so that p is never 0 (Phipson and Smyth 2010).
        seed: of those draws.
        tolerance: sums that lie within it (times n) are equal.
    """
    values = np.asarray(d, dtype=np.float64)
    n = len(values)
    least = abs(float(values.sum())) - tolerance * n
    if n <= EXACT_BLOCKS:
        sums = values[:1]  # the first sign stays: the other half mirrors this one
        for value in values[1:]:
            sums = np.concatenate((sums + value, sums - value))
        return SignFlip(float(np.mean(np.abs(sums) >= least)), 2.0 / 2.0**n, exact=True)
    rng, reached, left = np.random.default_rng(seed), 0, draws
    most = max(1, min(10_000, MOST_SIGNS // n))
    while left:
        rows = min(left, most)
        signs = rng.integers(0, 2, (rows, n)) * 2.0 - 1.0
        reached += int(np.count_nonzero(np.abs(signs @ values) >= least))
        left -= rows
    return SignFlip((reached + 1) / (draws + 1), max(2.0 / 2.0**n, 1 / (draws + 1)), exact=False)


def holm(p: npt.ArrayLike) -> FloatArray:
    """Returns p adjusted by Holm 1979 over the last axis, for a bound on the family-wise error."""
    values = np.asarray(p, dtype=np.float64)
    m = values.shape[-1]
    order = np.argsort(values, axis=-1, kind="stable")
    steps = np.take_along_axis(values, order, axis=-1) * (m - np.arange(m))
    return _put_back(np.minimum(np.maximum.accumulate(steps, axis=-1), 1.0), order)


def benjamini_hochberg(p: npt.ArrayLike) -> FloatArray:
    """Returns p adjusted by Benjamini and Hochberg 1995 over the last axis, for a bound on the false discovery rate."""
    values = np.asarray(p, dtype=np.float64)
    m = values.shape[-1]
    order = np.argsort(values, axis=-1, kind="stable")
    steps = np.take_along_axis(values, order, axis=-1) * (m / np.arange(1, m + 1))
    lowest = np.flip(np.minimum.accumulate(np.flip(steps, axis=-1), axis=-1), axis=-1)
    return _put_back(np.minimum(lowest, 1.0), order)


def _put_back(sorted_values: FloatArray, order: npt.NDArray[np.intp]) -> FloatArray:
    back = np.empty_like(sorted_values)
    np.put_along_axis(back, order, sorted_values, axis=-1)
    return back


def power_of(n: int, d_z: float, *, tests: int = 1, alpha: float = 0.05) -> float:
    """Returns the power of the two-sided paired t at alpha / tests: both tails of the noncentral t.

    Integrated over the sample's variance (400 nodes, to 1e-3), as scipy's `nct` gives NaN for few blocks.

    Args:
        n: blocks, at least 2.
        d_z: mean difference over the standard deviation of the differences.
        tests: size of the family: the first step of Holm, which an effect that stands alone must pass.
        alpha: the family's.
    """
    from scipy import special

    spread, weight = _spread(n)
    critical = -float(special.stdtrit(n - 1, alpha / tests / 2)) * spread
    shift = abs(d_z) * math.sqrt(n)
    return float(weight @ (special.ndtr(shift - critical) + special.ndtr(-critical - shift)))


@lru_cache(maxsize=1_000)
def _spread(n: int) -> tuple[FloatArray, FloatArray]:
    """Returns the sample's sd over the true one at Gauss-Legendre's quantiles in (0, 1), and the weights of these."""
    from scipy import special

    nodes, weights = _legendre()
    return np.sqrt(2 * special.gammaincinv((n - 1) / 2, nodes) / (n - 1)), weights


@cache
def _legendre() -> tuple[FloatArray, FloatArray]:
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return (nodes + 1) / 2, weights / 2


def detectable(n: int, sd: float = 1.0, *, power: float = 0.8, tests: int = 1, alpha: float = 0.05) -> float:
    """Returns the smallest effect that n blocks find with `power`, in the units of sd (d_z where sd is 1).

    Args:
        n: blocks, at least 2.
        sd: standard deviation of the differences between blocks.
        power: chance of finding it, above alpha and below 1.
        tests: as in `power_of`.
        alpha: the family's.

    Raises:
        UserError: if a number is out of range.
    """
    from scipy import optimize

    _check_plan(sd, power, tests, alpha)
    if n < 2:
        raise UserError(f"{n} seeds: a paired comparison needs at least two")
    high = 1.0
    while power_of(n, high, tests=tests, alpha=alpha) < power:
        high *= 2
    root: Any = optimize.brentq(lambda d_z: power_of(n, d_z, tests=tests, alpha=alpha) - power, 0.0, high, xtol=1e-9)
    return float(root) * sd


def seeds_needed(
    effect_points: float, sd_of_difference: float, *, power: float = 0.8, tests: int = 1, alpha: float = 0.05
) -> int:
    """Returns the fewest blocks that find an effect with `power`; from 2, although a verdict needs five.

    Args:
        effect_points: the effect to be found, not 0; its sign does not matter.
        sd_of_difference: standard deviation of the differences between blocks, in the same units.
        power: chance of finding it, above alpha and below 1.
        tests: as in `power_of`.
        alpha: the family's.

    Raises:
        UserError: if a number is out of range, or more than `MOST_SEEDS` seeds would be needed.
    """
    _check_plan(sd_of_difference, power, tests, alpha)
    if not math.isfinite(effect_points) or effect_points == 0:
        raise UserError(f"effect {effect_points}: must be a number other than 0")
    if sd_of_difference == 0:
        return 2
    d_z = abs(effect_points) / sd_of_difference

    def reaches(n: int) -> bool:
        return power_of(n, d_z, tests=tests, alpha=alpha) >= power

    low, high = 1, 2  # low never reaches, high always does
    while not reaches(high):
        if high == MOST_SEEDS:
            raise UserError(f"an effect of {d_z:.2g} standard deviations needs more than {MOST_SEEDS:,} seeds")
        low, high = high, min(high * 2, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def _check_plan(sd: float, power: float, tests: int, alpha: float) -> None:
    if not (math.isfinite(sd) and sd >= 0):
        raise UserError(f"standard deviation {sd}: must be a number from 0")
    if not 0 < alpha < power < 1:
        raise UserError(f"alpha {alpha} and power {power}: must be between 0 and 1, alpha the smaller")
    if tests < 1:
        raise UserError(f"tests {tests}: must be at least 1")
