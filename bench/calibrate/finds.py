"""What studies find: power, verdicts by the size of the effect, sign-flip tests, P(better)."""

from __future__ import annotations

import numpy as np

from bagoftricks.intervals import wilson
from bagoftricks.studies.inference import power_of, seeds_needed, sign_flip
from bagoftricks.studies.planning import upper_sd
from bagoftricks.studies.verdicts import SEEDS_FOR_VERDICT
from bench.calibrate.batch import ALPHA, MARGIN, VERDICTS, agree, judge
from bench.calibrate.designs import DESIGNS, Design
from bench.calibrate.figures import POWER_SLACK, Effort, Figure, percent
from bench.calibrate.noise import CELL_SD, NOISES, ONE_SIDED, generator, simulate

SIZES = (2.0, 1.2, 0.8)
"""d_z that power is planned for."""
PLANNED = 0.8


def power(design: Design, noise: str, d_z: float, effort: Effort) -> list[Figure]:
    """One main effect stands alone: how often Holm shows it, with the blocks that `seeds_needed` asks for."""
    sd = float(design.sd()[0])
    blocks = max(SEEDS_FOR_VERDICT, seeds_needed(d_z * sd, sd, power=PLANNED, tests=design.tests))
    alone = np.zeros(len(design.contrasts))
    alone[0] = d_z * sd
    rng = generator(f"power {design.name} {noise} {d_z}")
    values = simulate(NOISES[noise], rng, design.means(alone), effort.studies, blocks)
    batch = judge(design, values)
    agree(design, values, batch, effort.proved)
    reached = float((batch.adjusted[:, 0] <= ALPHA).mean())
    return [power_figure("power", f"{design.name}, d_z = {d_z}", noise, blocks, d_z, design.tests, reached, effort)]


def power_figure(
    table: str, row: str, column: str, blocks: int, d_z: float, tests: int, reached: float, effort: Effort
) -> Figure:
    """Returns the figure of a power within 5 points of the planned one; with other noise than Gaussian also above."""
    planned = power_of(blocks, d_z, tests=tests)
    values = {"blocks": blocks, "planned": planned, "reached": reached}
    near = abs(reached - planned) <= POWER_SLACK
    holds = near if column == "Gaussian" else reached >= planned - POWER_SLACK
    row = f"{row}: n = {blocks}, planned {percent(planned)}"
    return Figure(table, row, column, percent(reached), effort.studies, values, holds)


def pilot(d_z: float, pilot_blocks: int, effort: Effort, tests: int = 6) -> list[Figure]:
    """Power where the standard deviation comes from a few pilot blocks: as it is, and its upper limit."""
    rng = generator(f"pilot {d_z} {pilot_blocks}")
    sds = np.sqrt(rng.chisquare(pilot_blocks - 1, effort.studies) / (pilot_blocks - 1))
    limit = upper_sd(1.0, pilot_blocks)  # in units of the pilot's
    figures = []
    for column, factor in ((f"sd of {pilot_blocks} blocks", 1.0), (f"upper limit from {pilot_blocks}", limit)):
        planned = [seeds_needed(d_z, factor * float(sd), power=PLANNED, tests=tests) for sd in sds]
        sizes = np.maximum(planned, SEEDS_FOR_VERDICT)
        known = {n: power_of(n, d_z, tests=tests) for n in np.unique(sizes).tolist()}
        reached = np.array([known[n] for n in sizes.tolist()])
        mean, enough, middle = float(reached.mean()), float((reached >= PLANNED).mean()), float(np.median(sizes))
        values = {"power": mean, "enough": enough, "median_blocks": middle}
        shown = f"{percent(mean)}; {percent(enough)}; {middle:g}"
        figures.append(Figure("pilot", f"d_z = {d_z}", column, shown, effort.studies, values))
    return figures


def verdict_rates(blocks: int, margin_sds: float, d_z: float, effort: Effort) -> list[Figure]:
    """A main effect of 2^3 that stands alone: how often it gets which verdict, by its size and the margin's."""
    design = DESIGNS["2^3"]
    sd = MARGIN / margin_sds
    scale = sd / float(design.sd()[0])
    alone = np.zeros(len(design.contrasts))
    alone[0] = d_z * sd
    rng = generator(f"verdicts {blocks} {margin_sds} {d_z}")
    noise = scale * simulate(NOISES["Gaussian"], rng, np.zeros(len(design.cells)), effort.studies, blocks)
    values = design.means(alone) + noise
    batch = judge(design, values)
    agree(design, values, batch, effort.proved)
    row, table = f"n = {blocks}, d_z = {d_z:g}", f"verdicts-{margin_sds:g}"
    shares = [float((batch.verdict[:, 0] == code).mean()) for code in range(len(VERDICTS))]
    return [
        Figure(table, row, name, percent(share), effort.studies, {"share": share})
        for name, share in zip(VERDICTS[1:], shares[1:], strict=True)
    ]


def flips(noise: str, blocks: int, effort: Effort) -> list[Figure]:
    """How far the sign-flip test's p is from uniform where nothing has an effect, and how many are at most 0.1."""
    from scipy import stats

    kind = (NOISES | ONE_SIDED)[noise]
    values = CELL_SD * kind(generator(f"flips {noise} {blocks}"), (effort.studies, blocks, 2))
    p = np.array([sign_flip(d).p for d in values[..., 1] - values[..., 0]])
    floor = 2 / 2**blocks
    steps = np.arange(1, 1 / floor + 1) * floor
    distance = float(np.abs((p[:, None] <= steps + floor / 2).mean(axis=0) - steps).max())
    allowed = float(stats.kstwo.isf(0.001, effort.studies))
    attainable, share = np.floor(0.1 / floor) * floor, float((p <= 0.1).mean())
    values_ = {"blocks": blocks, "distance": distance, "at_0.1": share, "attainable": float(attainable)}
    shown = f"{percent(share)} of {percent(attainable)}; {distance:.3f}"
    holds = distance <= allowed if noise in NOISES else None
    return [Figure("sign-flip", noise, f"n = {blocks}", shown, effort.studies, values_, holds)]


def better(d_z: float, blocks: int) -> list[Figure]:
    """Coverage of Wilson's interval for P(better), computed over all outcomes."""
    from scipy import stats

    share = float(stats.norm.cdf(d_z))
    wins = np.arange(blocks + 1)
    covers = [low <= share <= high for low, high in (wilson(float(won), blocks) for won in wins)]
    covered = float(stats.binom.pmf(wins, blocks, share) @ np.array(covers))
    row = f"{percent(share)} (d_z = {d_z:g})"
    return [Figure("better", row, f"n = {blocks}", percent(covered), 0, {"coverage": covered})]
