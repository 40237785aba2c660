"""Many studies at once, through the functions that `analyse` calls, and the proof that both say the same.

One study takes `analyse` 10 to 50 ms, nearly all of it to read the table and to plan further seeds. The inner
functions take any number of studies at once. `agree` compares every figure and verdict of single studies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bagoftricks.studies.inference import TOLERANCE, benjamini_hochberg, holm, paired_t, tost
from bagoftricks.studies.verdicts import SEEDS_FOR_VERDICT
from bench.calibrate.designs import Design, FloatArray

MARGIN = 0.5
"""Points."""
ALPHA = 0.05
RATIO = 0.25
"""Test over training images at 8:2."""
VERDICTS = ("withheld", "helps", "hurts", "negligible", "practically equivalent", "inconclusive")
WITHHELD, HELPS, HURTS, NEGLIGIBLE, EQUIVALENT, INCONCLUSIVE = range(len(VERDICTS))


@dataclass(frozen=True)
class Batch:
    """What the statistics say of S studies; every array is (S, E), in points."""

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    p: FloatArray
    adjusted: FloatArray
    """By Holm within the declared family, by Benjamini-Hochberg in the rest."""
    equivalence: FloatArray
    """p of the equivalence, adjusted alike."""
    wide_low: FloatArray
    wide_high: FloatArray
    """Nadeau and Bengio's interval."""
    verdict: npt.NDArray[np.int8]
    """Indices of `VERDICTS`."""

    def covers(self, truth: FloatArray) -> npt.NDArray[np.bool_]:
        """Returns (S, E) whether the 95 % interval holds the (E,) truth."""
        return np.asarray((self.low <= truth) & (truth <= self.high))

    def wide_covers(self, truth: FloatArray) -> npt.NDArray[np.bool_]:
        """The same of Nadeau and Bengio's interval."""
        return np.asarray((self.wide_low <= truth) & (truth <= self.wide_high))


def judge(design: Design, values: FloatArray, *, scale: float = 1.0) -> Batch:
    """Returns what the statistics say of (S, n, C) results.

    Args:
        design: names the cells.
        values: results of every cell in every block, none missing.
        scale: points that one unit of `values` makes: 100 for shares in [0, 1].
    """
    d = scale * np.stack([contrast.differences(values, design.cells) for contrast in design.contrasts], axis=1)
    tolerance = TOLERANCE * scale
    test = paired_t(d, alpha=ALPHA, tolerance=tolerance)
    wide = paired_t(d, alpha=ALPHA, overlap=RATIO, tolerance=tolerance)
    equivalence = tost(d, MARGIN, tolerance=tolerance)
    adjusted, inside = np.empty_like(test.p), np.empty_like(test.p)
    for family, correct in ((design.declared, holm), (~design.declared, benjamini_hochberg)):
        if family.any():
            adjusted[:, family] = correct(test.p[:, family])
            inside[:, family] = correct(equivalence[:, family])
    verdict = verdicts(test.mean, adjusted, inside, d.shape[-1])
    # where all blocks differ by the same, there is no interval
    ends = [np.where(test.sd > 0, end, np.nan) for end in (test.low, test.high, wide.low, wide.high)]
    return Batch(test.mean, *ends[:2], test.p, adjusted, inside, *ends[2:], verdict)


def verdicts(mean: FloatArray, adjusted: FloatArray, inside: FloatArray, blocks: int) -> npt.NDArray[np.int8]:
    """Returns the verdicts as `studies.verdicts` words them; `agree` holds this to it."""
    if blocks < SEEDS_FOR_VERDICT:
        return np.full(mean.shape, WITHHELD, dtype=np.int8)
    shown, small = adjusted <= ALPHA, inside <= ALPHA
    direction = np.where(mean > 0, HELPS, HURTS)
    found = np.where(small, NEGLIGIBLE, direction)
    return np.where(shown, found, np.where(small, EQUIVALENT, INCONCLUSIVE)).astype(np.int8)


def agree(design: Design, values: FloatArray, batch: Batch, studies: int, *, scale: float = 1.0) -> int:
    """Runs the first studies through `analyse` or `successive`, and returns how many.

    Raises:
        AssertionError: where an effect, an interval, a p or a verdict is another.
    """
    options: dict[str, Any] = {"margin": MARGIN / scale, "alpha": ALPHA, "test_train_ratio": RATIO}
    options["unit"] = "points" if scale == 100 else "raw"
    studies = min(studies, len(values))
    for i in range(studies):
        effects = design.analyse(values[i], **options).effects
        assert [effect.name for effect in effects] == [contrast.name for contrast in design.contrasts]
        assert [effect.declared for effect in effects] == design.declared.tolist()
        for theirs, ours in (
            ([e.estimate for e in effects], batch.estimate),
            ([e.low for e in effects], batch.low),
            ([e.high for e in effects], batch.high),
            ([e.p for e in effects], batch.p),
            ([e.p_adjusted for e in effects], batch.adjusted),
            ([e.equivalence_p_adjusted for e in effects], batch.equivalence),
            ([e.corrected_low for e in effects], batch.wide_low),
            ([e.corrected_high for e in effects], batch.wide_high),
        ):
            np.testing.assert_allclose(ours[i], np.array(theirs, dtype=float), rtol=1e-6, atol=1e-9)
        said = [effect.verdict or "withheld" for effect in effects]
        assert said == [VERDICTS[code] for code in batch.verdict[i]]
    return studies
