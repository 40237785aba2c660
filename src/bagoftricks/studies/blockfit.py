"""A linear model of runs in blocks: a random intercept for each block by REML, or the block as a fixed effect.

Arrays in, a dataclass out; nothing of factors. Sources: Laird and Ware 1982, Biometrics 38 (random effects, REML);
Fisher's randomised blocks, of which REML gives the same tests where every run is there and blocks differ.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
MIXED, BLOCKED = "mixed model (REML)", "blocked analysis of variance"
RANK = 1e-9
"""Singular values below this share of the largest are zero."""


@dataclass(frozen=True)
class Fit:
    """Estimates and covariance of the model's coefficients."""

    method: str
    why: str
    coefficients: FloatArray
    """(parameters,)"""
    covariance: FloatArray
    """(parameters, parameters) of them."""
    within: FloatArray
    """(parameters, parameters) projection onto what can be told within blocks."""
    df: int
    block_sd: float | None
    residual_sd: float


def fit_blocks(y: FloatArray, x: FloatArray, block: npt.NDArray[np.intp], *, tolerance: float) -> Fit | None:
    """Returns the mixed model of the runs, or the blocked analysis of variance where that is singular.

    Args:
        y: (runs,) results.
        x: (runs, parameters) of full column rank, with the intercept in its span.
        block: (runs,) the index of each run's block.
        tolerance: residuals within it are rounding.

    Returns:
        None where no degree of freedom is left, or no luck to test against.
    """
    _, index, counts = np.unique(block, return_inverse=True, return_counts=True)

    def centred(a: FloatArray) -> FloatArray:
        sums = np.zeros((len(counts), *a.shape[1:]))
        np.add.at(sums, index, a)
        return np.asarray(a - (sums / counts.reshape(-1, *[1] * (a.ndim - 1)))[index])

    # least squares with the block as a fixed effect: both sides centred within blocks
    xw, yw = centred(x), centred(y)
    left, sizes, right = np.linalg.svd(xw, full_matrices=False)
    rank = int((sizes > RANK * math.sqrt(len(y))).sum()) if len(sizes) else 0
    df = len(y) - len(counts) - rank
    if df < 1 or rank == 0:
        return None
    left, sizes, right = left[:, :rank], sizes[:rank], right[:rank]
    coefficients = right.T @ ((left.T @ yw) / sizes)
    residuals = yw - xw @ coefficients
    if np.abs(residuals).max() <= tolerance:
        return None
    variance = float(residuals @ residuals) / df
    blocked = Fit(
        method=BLOCKED,
        why="",
        coefficients=coefficients,
        covariance=variance * (right.T / sizes**2) @ right,
        within=right.T @ right,
        df=df,
        block_sd=None,
        residual_sd=math.sqrt(variance),
    )
    start = _variance_ratio(y, x, index, counts, variance)
    if start is None:
        return replace(blocked, why="REML estimates the variance between blocks as zero")
    mixed = _reml(y, x, index, start)
    if mixed is None:
        return replace(blocked, why="REML did not converge")
    estimates, covariance, ratio, scale = mixed
    return Fit(MIXED, "", estimates, covariance, blocked.within, df, math.sqrt(ratio * scale), math.sqrt(scale))


def _variance_ratio(
    y: FloatArray, x: FloatArray, index: npt.NDArray[np.intp], counts: npt.NDArray[np.intp], variance: float
) -> float | None:
    """Returns a first guess of the blocks' variance over the residual's, or None where REML's is zero.

    It is zero where the restricted likelihood falls from zero on: where its slope there is not positive. statsmodels,
    whose steps stay inside, stops anywhere near zero then and says that it did not converge.
    """
    q, _ = np.linalg.qr(x)
    r = y - q @ (q.T @ y)
    sums, q_sums = np.zeros(len(counts)), np.zeros((len(counts), q.shape[1]))
    np.add.at(sums, index, r)
    np.add.at(q_sums, index, q)
    between, trace = float(sums @ sums), float(counts.sum() - (q_sums**2).sum())
    if between * (len(y) - x.shape[1]) <= trace * float(r @ r) * (1 + 1e-9):
        return None
    # the moment estimate, which is REML's own where all runs are there
    ratio = (float((sums**2 / counts).sum()) / (len(counts) - 1) / variance - 1) / float(counts.mean())
    return max(ratio, 1e-3)


def _reml(
    y: FloatArray, x: FloatArray, index: npt.NDArray[np.intp], start: float
) -> tuple[FloatArray, FloatArray, float, float] | None:
    """Returns coefficients, covariance, the ratio of variances and the residual one by statsmodels; None if lost."""
    from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams

    middle, spread = float(y.mean()), float(y.std())
    ones = np.linalg.lstsq(x, np.ones(len(y)), rcond=None)[0]  # the intercept in terms of x
    first = MixedLMParams.from_components(fe_params=np.zeros(x.shape[1]), cov_re=np.array([[start]]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether it converged is asked, what it tried is not
        try:
            model: Any = MixedLM((y - middle) / spread, x, index)
            found: Any = model.fit(reml=True, start_params=first, method=["bfgs", "lbfgs", "cg"])
        except (np.linalg.LinAlgError, ValueError):
            return None
    estimates = np.asarray(found.fe_params) * spread + middle * ones
    p = x.shape[1]
    covariance = np.asarray(found.cov_params())[:p, :p] * spread**2
    ratio, scale = float(found.cov_re[0, 0] / found.scale), float(found.scale) * spread**2
    good = found.converged and ratio > 0 and np.isfinite(covariance).all() and (np.diag(covariance) > 0).all()
    return (estimates, covariance, ratio, scale) if good else None
