"""The secondary model: one fit to all runs, for the same effects as the primary analysis, contrast by contrast.

y = two-way model of the factors (`contrasts.two_way_matrix`) + a random intercept for each block + luck, by restricted
maximum likelihood (REML; Laird and Ware 1982, Biometrics 38). Where the blocks' variance is estimated as zero, or REML
does not converge, the blocked analysis of variance: the block as a fixed effect, least squares.

| differs from the primary in      | how                                                                               |
|----------------------------------|-----------------------------------------------------------------------------------|
| luck                             | one variance for all effects, with many degrees of freedom, not one for each      |
| interactions of three and more   | taken for luck                                                                    |
| a missing run                    | its block is kept: the model fills in                                             |

Each primary contrast is evaluated on the model's cell means, so that both estimate the same; with every run there the
estimates are equal, and equal to the coefficients in the coding of -0.5 and +0.5. Degrees of freedom are those within
blocks ("containment"): exact for complete results, an approximation elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bagoftricks.studies.blockfit import RANK, Fit, fit_blocks
from bagoftricks.studies.contrasts import Contrast, NotEstimable, too_many_pairs, two_way_matrix
from bagoftricks.studies.grid import FloatArray, Grid
from bagoftricks.studies.inference import TOLERANCE, benjamini_hochberg, holm
from bagoftricks.studies.verdicts import SEEDS_FOR_VERDICT, Effect

MOST_RUNS_FITTED = 50_000
MOST_PARAMETERS = 500


@dataclass(frozen=True)
class ModelEffect:
    """One contrast as the model has it, in points or the metric's own unit."""

    name: str
    """As in `Effect.name`."""
    kind: str
    declared: bool
    estimate: float
    se: float
    df: int
    """Of t."""
    t: float
    low: float
    high: float
    """The 1 - alpha interval, for this effect alone."""
    p: float
    p_adjusted: float
    """Within the same family as the primary effect's, alike."""


@dataclass(frozen=True)
class Secondary:
    """The fit."""

    method: str
    """`blockfit.MIXED` or `blockfit.BLOCKED`."""
    why: str
    """Why the blocked analysis of variance; empty for the mixed model."""
    effects: tuple[ModelEffect, ...]
    not_estimable: tuple[NotEstimable, ...]
    runs: int
    blocks: int
    parameters: int
    """Of the factors' model that these cells determine, intercept included."""
    df: int
    block_sd: float | None
    """Standard deviation between blocks; None for the analysis of variance."""
    residual_sd: float
    exploratory: bool
    """Fewer blocks than a verdict needs."""


def fit_secondary(
    grid: Grid, contrasts: Sequence[Contrast], effects: Sequence[Effect], *, scale: float = 1.0
) -> Secondary | None:
    """Returns the secondary model's estimate of each primary effect.

    Args:
        grid: the runs; those without a value are left out.
        contrasts: of the primary analysis.
        effects: what it made of them, in the same order: for the families and their level.
        scale: what the grid's values are multiplied by, 100 for points.

    Returns:
        None where there is nothing to fit: below two blocks, no degree of freedom or no luck left, nothing estimable,
        or more than `MOST_RUNS_FITTED` runs, `MOST_PARAMETERS` parameters or `design.MOST_EFFECTS` effects.
    """
    at_block, at_cell = np.nonzero(np.isfinite(grid.values))
    blocks, there = len(set(at_block.tolist())), sorted(set(at_cell.tolist()))
    if blocks < 2 or len(there) < 2 or len(at_cell) > MOST_RUNS_FITTED or not contrasts:
        return None
    if too_many_pairs(grid.levels):
        return None
    place = {cell: i for i, cell in enumerate(grid.cells)}
    matrix = two_way_matrix(grid.levels, [grid.cells[i] for i in there])
    # an orthonormal basis of what the cells determine: as good as the coded columns, of which some may be aliases
    left, sizes, _ = np.linalg.svd(matrix, full_matrices=False)
    basis = np.zeros((len(grid.cells), int((sizes > RANK * sizes[0]).sum())))
    basis[there] = left[:, : basis.shape[1]]
    if basis.shape[1] > MOST_PARAMETERS:
        return None
    y = grid.values[at_block, at_cell] * scale
    fit = fit_blocks(y, basis[at_cell], at_block, tolerance=TOLERANCE * max(scale, float(np.abs(y).max())))
    if fit is None:
        return None
    rows, told, not_told = [], [], []
    for contrast, effect in zip(contrasts, effects, strict=True):
        row = np.array(list(contrast.weights.values())) @ basis[[place[cell] for cell in contrast.weights]]
        if np.abs(row - fit.within @ row).max() > 1e-6 * max(1.0, float(np.abs(row).max())):
            not_told.append(NotEstimable(effect.name, "no block has the runs that would tell it"))
        else:
            rows.append(row)
            told.append(effect)
    if not rows:
        return None
    return Secondary(
        method=fit.method,
        why=fit.why,
        effects=_effects(fit, np.array(rows), told, effects),
        not_estimable=tuple(not_told),
        runs=len(y),
        blocks=blocks,
        parameters=basis.shape[1],
        df=fit.df,
        block_sd=fit.block_sd,
        residual_sd=fit.residual_sd,
        exploratory=blocks < SEEDS_FOR_VERDICT,
    )


def _effects(fit: Fit, rows: FloatArray, told: Sequence[Effect], all_: Sequence[Effect]) -> tuple[ModelEffect, ...]:
    """Evaluates contrasts, (effects told, parameters), and corrects their p within the families."""
    from scipy import stats

    alpha = told[0].settings.alpha
    estimate = rows @ fit.coefficients
    se = np.sqrt(np.maximum(0.0, np.einsum("ep,pq,eq->e", rows, fit.covariance, rows)))
    tiny = TOLERANCE * max(1.0, float(np.abs(fit.coefficients).max()))
    estimate = np.where(np.abs(estimate) <= tiny, 0.0, estimate)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(estimate == 0, 0.0, estimate / se)
    p = 2 * stats.t.sf(np.abs(t), fit.df)
    half = stats.t.isf(alpha / 2, fit.df) * se
    adjusted = np.ones(len(p))
    for declared, correct in ((True, holm), (False, benjamini_hochberg)):
        chosen = np.array([effect.declared == declared for effect in told])
        # what cannot be told stays in the family, as in the primary analysis
        others = max((effect.tests for effect in all_ if effect.declared == declared), default=0) - int(chosen.sum())
        if chosen.any():
            adjusted[chosen] = correct(np.append(p[chosen], np.ones(others)))[: chosen.sum()]
    return tuple(
        ModelEffect(
            name=effect.name,
            kind=effect.kind,
            declared=effect.declared,
            estimate=float(estimate[i]),
            se=float(se[i]),
            df=fit.df,
            t=float(t[i]),
            low=float(estimate[i] - half[i]),
            high=float(estimate[i] + half[i]),
            p=float(p[i]),
            p_adjusted=float(adjusted[i]),
        )
        for i, effect in enumerate(told)
    )


def disagreements(effects: Sequence[Effect], secondary: Secondary) -> tuple[list[Effect], int]:
    """Returns the effects of which model and verdict do not say the same, and how many were compared.

    Each says that the effect is above 0, below 0, or shows neither, after the correction of its family; compared are
    effects with a verdict.
    """

    def says(estimate: float, p: float, alpha: float) -> int:
        return 0 if p > alpha else 1 if estimate > 0 else -1

    fitted = {effect.name: effect for effect in secondary.effects}
    wrong, compared = [], 0
    for effect in effects:
        if effect.verdict is None or effect.name not in fitted:
            continue
        alpha, other = effect.settings.alpha, fitted[effect.name]
        compared += 1
        verdict = says(effect.estimate or 0.0, 1.0 if effect.p_adjusted is None else effect.p_adjusted, alpha)
        if verdict != says(other.estimate, other.p_adjusted, alpha):
            wrong.append(effect)
    return wrong, compared
