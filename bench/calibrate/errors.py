"""False findings, false equivalences and coverage, over designs, noises and blocks."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt

from bagoftricks.studies.cells import compare_cells, dunnett_critical
from bench.calibrate.batch import EQUIVALENT, HELPS, HURTS, MARGIN, NEGLIGIBLE, agree, judge
from bench.calibrate.designs import PAIR, Design, FloatArray
from bench.calibrate.figures import COVERAGE, Effort, Figure, coverage, rate
from bench.calibrate.noise import NOISES, ONE_SIDED, generator, simulate

BLOCKS = (5, 10, 20)
TOO_WIDE = frozenset({"skewed: log-normal"})
"""Noise for which intervals are known to cover more than 97 % at few blocks: they are safe, and wider than need be."""
Verdicts = npt.NDArray[np.int8]
COARSE = tuple(product((40, 100, 400, 2_000), (0.005, 0.01, 0.03)))
"""Validation images, and the share of them that two recipes decide differently."""


def differs(verdict: Verdicts) -> npt.NDArray[np.bool_]:
    """Returns where a verdict says that there is a difference from zero."""
    return np.isin(verdict, (HELPS, HURTS, NEGLIGIBLE))


def small(verdict: Verdicts) -> npt.NDArray[np.bool_]:
    """Returns where a verdict says that the effect is inside the margin."""
    return np.isin(verdict, (NEGLIGIBLE, EQUIVALENT))


def family_wise(design: Design, noise: str, blocks: int, effort: Effort) -> list[Figure]:
    """No effect at all: how many studies call any declared effect a difference."""
    rng = generator(f"null {design.name} {noise} {blocks}")
    values = simulate(NOISES[noise], rng, np.zeros(len(design.cells)), effort.studies, blocks)
    batch = judge(design, values)
    agree(design, values, batch, effort.proved)
    wrong = differs(batch.verdict[:, design.declared]).any(axis=1)
    return [rate("family-wise", noise, design.name, wrong, blocks)]


def half_real(design: Design) -> FloatArray:
    """Returns (E,) effects: every second one twice its standard deviation between blocks, the others zero."""
    return np.where(np.arange(len(design.contrasts)) % 2 == 0, 2.0, 0.0) * design.sd()


def with_effects(design: Design, noise: str, blocks: int, effort: Effort) -> list[Figure]:
    """Half of the effects real: false findings among the others, and coverage of all."""
    rng, truth = generator(f"half {design.name} {noise} {blocks}"), half_real(design)
    values = simulate(NOISES[noise], rng, design.means(truth), effort.studies, blocks)
    batch = judge(design, values)
    agree(design, values, batch, effort.proved)
    wrong = differs(batch.verdict[:, design.declared & (truth == 0)]).any(axis=1)
    most = 1.0 if noise in TOO_WIDE else COVERAGE[1]
    return [
        rate("true-nulls", noise, design.name, wrong, blocks),
        coverage("coverage", noise, design.name, batch.covers(truth), blocks, most=most),
    ]


def at_margin(design: Design, noise: str, blocks: int, effort: Effort) -> list[Figure]:
    """Every effect exactly at the margin, with little noise: how many studies call any declared one smaller.

    Noise is a tenth of the usual: with more, no equivalence could be shown, and none falsely.
    """
    rng = generator(f"margin {design.name} {noise} {blocks}")
    signs = np.where(np.arange(len(design.contrasts)) % 2 == 0, 1.0, -1.0)
    noises = 0.1 * simulate(NOISES[noise], rng, np.zeros(len(design.cells)), effort.studies, blocks)
    values = design.means(MARGIN * signs) + noises
    batch = judge(design, values)
    agree(design, values, batch, effort.proved)
    wrong = small(batch.verdict[:, design.declared]).any(axis=1)
    return [rate("equivalence", noise, design.name, wrong, blocks)]


def either_claim(design: Design, effort: Effort, blocks: int = 20) -> list[Figure]:
    """Half of the effects zero, half at the margin, little noise: false statements of both kinds together.

    Both families are then corrected by Holm for the half that is true alone, so that each errs in 5 %. Nothing is
    promised of their sum but 10 %.
    """
    rng, truth = generator(f"either {design.name}"), np.where(half_real(design) > 0, MARGIN, 0.0)
    values = design.means(truth) + 0.05 * simulate(
        NOISES["Gaussian"], rng, np.zeros(len(design.cells)), effort.studies, blocks
    )
    batch = judge(design, values)
    agree(design, values, batch, effort.proved)
    null = design.declared & (truth == 0)
    found = differs(batch.verdict[:, null]).any(axis=1)
    shrunk = small(batch.verdict[:, design.declared & (truth != 0)]).any(axis=1)
    return [
        rate("either", design.name, "false difference", found, blocks),
        rate("either", design.name, "false equivalence", shrunk, blocks),
        rate("either", design.name, "either", found | shrunk, blocks, promised=False),
    ]


def wholly(design: Design, effort: Effort, blocks: int = 5) -> list[Figure]:
    """No effect at all, every study through `analyse` or `successive` and nothing else."""
    rng = generator(f"whole {design.name}")
    values = simulate(NOISES["Gaussian"], rng, np.zeros(len(design.cells)), effort.whole, blocks)
    wrong, covered = [], []
    for study in values:
        effects = design.analyse(study, unit="raw", margin=MARGIN).effects
        wrong.append(any(e.verdict in ("helps", "hurts", "negligible") for e in effects if e.declared))
        covered.append([e.low is not None and e.high is not None and e.low <= 0 <= e.high for e in effects])
    return [
        rate("wholly", design.name, "family-wise error", np.array(wrong), blocks),
        coverage("wholly", design.name, "coverage", np.array(covered), blocks),
    ]


def one_level_skew(design: Design, noise: str, blocks: int, effort: Effort) -> list[Figure]:
    """Skew in one level of the first factor only: outside the promises."""
    rng = generator(f"skew {design.name} {noise} {blocks}")
    values = simulate(ONE_SIDED[noise], rng, np.zeros(len(design.cells)), effort.studies, blocks)
    batch = judge(design, values)
    agree(design, values, batch, effort.proved)
    wrong = differs(batch.verdict[:, design.declared]).any(axis=1)
    column = "one effect" if design.tests == 1 else f"family of {design.tests}"
    return [rate("one-level", noise, column, wrong, blocks, promised=False)]


def few_blocks(noise: str, blocks: int, effort: Effort) -> list[Figure]:
    """Coverage of one effect below five blocks, where verdicts are withheld."""
    kind = (NOISES | ONE_SIDED)[noise]
    values = simulate(kind, generator(f"few {noise} {blocks}"), np.zeros(2), effort.studies, blocks)
    batch = judge(PAIR, values)
    agree(PAIR, values, batch, effort.proved)
    found = coverage("few", noise, f"n = {blocks}", batch.covers(np.zeros(1)), blocks)
    return [found if noise == "Gaussian" else replace(found, holds=None)]


def coarse(images: int, differing: float, blocks: int, effort: Effort) -> list[Figure]:
    """A metric of few steps: the two recipes decide differently on few validation images, of which there are few.

    Images that one recipe alone gets right are Poisson counts: equal in mean where nothing has an effect, apart by the
    margin where equivalence must not be claimed.
    """
    row = f"{images:,} images, {100 * differing:g} % decided differently"
    figures = []
    for column, effect in (("false difference", 0.0), ("false equivalence", MARGIN / 100)):
        rng = generator(f"coarse {row} {blocks} {column}")
        counts = rng.poisson(images * (differing + np.array([-effect, effect])) / 2, (effort.studies, blocks, 2))
        values = 0.5 + counts / images
        batch = judge(PAIR, values, scale=100)
        agree(PAIR, values, batch, effort.proved, scale=100)
        wrong = (small if effect else differs)(batch.verdict).any(axis=1)
        figures.append(rate("coarse", row, column, wrong, blocks, promised=False))
    return figures


def whole_cells(design: Design, noise: str, blocks: int, effort: Effort) -> list[Figure]:
    """Cells compared as wholes, no effect at all: false differences from the first, and a best cell called beaten.

    As all cells are equal, each is a best one; shown is the cell that is missed most often. Nothing is promised where
    cells vary unlike one another, as Dunnett's and Hsu's intervals rest on one variance for all.
    """
    rng = generator(f"cells {design.name} {noise} {blocks}")
    values = simulate(NOISES[noise], rng, np.zeros(len(design.cells)), effort.studies, blocks)
    means, cells = values.mean(axis=1), len(design.cells)
    residuals = values - means[:, None] - values.mean(axis=2, keepdims=True) + values.mean(axis=(1, 2), keepdims=True)
    df = (cells - 1) * (blocks - 1)
    se = np.sqrt((residuals**2).sum(axis=(1, 2)) / df * 2 / blocks)[:, None]
    found = np.abs(means - means[:, :1]) > dunnett_critical(cells - 1, df) * se
    highest = np.sort(means, axis=1)
    others = np.where(means == highest[:, -1:], highest[:, -2:-1], highest[:, -1:])
    missed = means - others + dunnett_critical(cells - 1, df, two_sided=False) * se <= 0
    names = [" ".join(cell) for cell in design.cells]
    for i in range(min(effort.proved, effort.studies)):
        said = compare_cells(values[i], names, [str(block) for block in range(blocks)])
        assert said is not None
        assert [cell.beats in ("better", "worse") for cell in said.cells] == found[i].tolist()
        assert [cell.may_be_best for cell in said.cells] == (~missed[i]).tolist()
    kept = noise in ("Gaussian", "large block effects")
    worst = missed[:, int(missed.mean(axis=0).argmax())]
    return [
        rate("cells", noise, f"{design.name}: false difference", found.any(axis=1), blocks, promised=kept),
        rate("cells", noise, f"{design.name}: best one missed", worst, blocks, promised=False),
    ]
