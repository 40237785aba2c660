"""The same from a pool of really re-split digits, and claims about new data.

What is true of a pool is known: it is all there is. Its mean difference is what a study of this data set estimates;
each study draws its blocks from the pool's splits, none twice. Where nothing may have an effect, either cell labels are
permuted inside each block, or each cell's mean is taken out. As a finite pool leaves less to chance than all possible
splits, the variance of a mean of n splits out of N is 1 - n/N of that of independent ones.
"""

from __future__ import annotations

import numpy as np

from bagoftricks.studies.inference import seeds_needed
from bench.calibrate import pool as pools
from bench.calibrate.batch import ALPHA, MARGIN, agree, judge
from bench.calibrate.designs import Design, FloatArray, ladder
from bench.calibrate.errors import differs, small
from bench.calibrate.figures import Effort, Figure, coverage, percent, rate
from bench.calibrate.finds import PLANNED, power_figure
from bench.calibrate.noise import generator

POINTS = 100.0
DESIGNS: dict[str, Design] = {"2^3": pools.DESIGN, "ladder of 8": ladder(8)}


def draw(splits: FloatArray, rng: np.random.Generator, studies: int, blocks: int) -> FloatArray:
    """Returns (S, n, C) results: for each study n rows of the pool, none twice."""
    rows = np.argpartition(rng.random((studies, len(splits))), blocks - 1, axis=1)[:, :blocks]
    return np.asarray(splits[rows])


def permuted(splits: FloatArray, design: Design, blocks: int, effort: Effort) -> list[Figure]:
    """Cell labels permuted inside each block: no cell differs from another."""
    rng = generator(f"permuted {design.name} {blocks}")
    values = rng.permuted(draw(splits, rng, effort.studies, blocks), axis=2)
    batch = judge(design, values, scale=POINTS)
    agree(design, values, batch, effort.proved, scale=POINTS)
    wrong = differs(batch.verdict[:, design.declared]).any(axis=1)
    return [rate("pool", "family-wise error, labels permuted", design.name, wrong, blocks)]


def recentred(splits: FloatArray, design: Design, blocks: int, effort: Effort) -> list[Figure]:
    """Every cell's mean taken out: cells keep their spread, their skew and what they share."""
    rng = generator(f"recentred {design.name} {blocks}")
    values = 0.5 + draw(splits - splits.mean(axis=0), rng, effort.studies, blocks)
    batch = judge(design, values, scale=POINTS)
    agree(design, values, batch, effort.proved, scale=POINTS)
    wrong = differs(batch.verdict[:, design.declared]).any(axis=1)
    return [rate("pool", "family-wise error, means taken out", design.name, wrong, blocks)]


def margins(splits: FloatArray, design: Design, blocks: int, effort: Effort) -> list[Figure]:
    """Every effect at the margin; deviations shrunk tenfold, so that equivalence can be shown at all."""
    rng = generator(f"pool margin {design.name} {blocks}")
    signs = np.where(np.arange(len(design.contrasts)) % 2 == 0, 1.0, -1.0)
    values = 0.5 + 0.1 * draw(splits - splits.mean(axis=0), rng, effort.studies, blocks)
    values += design.means(MARGIN * signs) / POINTS
    batch = judge(design, values, scale=POINTS)
    agree(design, values, batch, effort.proved, scale=POINTS)
    wrong = small(batch.verdict[:, design.declared]).any(axis=1)
    return [rate("pool", "false equivalence at the margin", design.name, wrong, blocks)]


def covers(splits: FloatArray, design: Design, blocks: int, effort: Effort) -> list[Figure]:
    """The interval against the pool's own mean difference."""
    rng = generator(f"pool coverage {design.name} {blocks}")
    values = draw(splits, rng, effort.studies, blocks)
    batch = judge(design, values, scale=POINTS)
    agree(design, values, batch, effort.proved, scale=POINTS)
    truth = POINTS * design.weights @ splits.mean(axis=0)
    wide = batch.wide_covers(truth).mean(axis=0)
    values_ = {"blocks": blocks, "lowest": float(wide.min()), "highest": float(wide.max())}
    shown, row = percent(float(wide.min())), "coverage, Nadeau-Bengio (too wide here)"
    return [
        coverage("pool", "coverage of the mean over splits", design.name, batch.covers(truth), blocks),
        Figure("pool", row, design.name, shown, effort.studies, values_),
    ]


def power(splits: FloatArray, d_z: float, effort: Effort) -> list[Figure]:
    """Each main effect in turn stands alone, with the pool's own spread."""
    design = pools.DESIGN
    centred = splits - splits.mean(axis=0)
    sds = (POINTS * centred @ design.weights.T).std(axis=0)
    figures = []
    for j in range(len(design.levels)):
        blocks = seeds_needed(d_z * sds[j], sds[j], power=PLANNED, tests=design.tests)
        alone = np.zeros(len(design.contrasts))
        alone[j] = d_z * sds[j]
        rng = generator(f"pool power {j} {d_z}")
        values = 0.5 + design.means(alone) / POINTS + draw(centred, rng, effort.studies, blocks)
        batch = judge(design, values, scale=POINTS)
        agree(design, values, batch, effort.proved, scale=POINTS)
        reached = float((batch.adjusted[:, j] <= ALPHA).mean())
        column = f"factor {list(design.levels)[j]}"
        figures.append(power_figure("pool-power", f"d_z = {d_z}", column, blocks, d_z, design.tests, reached, effort))
    return figures


def new_data(sets: FloatArray, blocks: int, effort: Effort) -> list[Figure]:
    """Claims about new data: each study has a data set of its own; the truth is the mean over all of them."""
    design = pools.SETS_DESIGN
    values = sets[:, :blocks]
    batch = judge(design, values, scale=POINTS)
    agree(design, values, batch, effort.proved, scale=POINTS)
    effects = POINTS * sets @ design.weights.T
    truth = effects.mean(axis=(0, 1))
    ordinary, wide = (c.mean(axis=0) for c in (batch.covers(truth), batch.wide_covers(truth)))
    correlation = shared(effects)
    figures = []
    for j, contrast in enumerate(design.contrasts):
        row = f"{' x '.join(contrast.factors)} (correlation {correlation[j]:.2f})"
        for column, share in (("ordinary t", ordinary[j]), ("Nadeau-Bengio", wide[j])):
            values_ = {"blocks": blocks, "coverage": float(share), "correlation": float(correlation[j])}
            figures.append(Figure("new-data", row, column, percent(float(share)), len(sets), values_))
    return figures


def shared(effects: FloatArray) -> FloatArray:
    """Returns (E,) the correlation of two splits of one data set, from (D, K, E) effects: variance that a set shares.

    Nadeau and Bengio take it for the share of test images: 0.2 at 8:2.
    """
    within = effects.var(axis=1, ddof=1).mean(axis=0)
    between = effects.mean(axis=1).var(axis=0, ddof=1) - within / effects.shape[1]
    return np.asarray(between / (between + within))
