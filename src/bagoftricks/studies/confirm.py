"""Two recipes on images that nothing was chosen by: the difference of what their models get right on a locked test set.

Each seed has trained one model of either recipe, and all models look at the same test images. Other seeds would give
other models, and other images of the same kind other answers; the interval reckons with both.

Shapes: S seeds, N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 0.95


@dataclass(frozen=True)
class Confirmation:
    """The difference in Top-1 of two recipes, the first minus the second."""

    difference: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    """The difference of each seed's two models."""
    seeds: int
    images: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval does."""
        return not self.low <= 0 <= self.high

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"excludes_zero": self.excludes_zero}


def confirm(first: Sequence[npt.ArrayLike], second: Sequence[npt.ArrayLike]) -> Confirmation:
    """Returns the difference with a 95 % interval that holds for other seeds and other images.

    The mean of d_sn = first_sn - second_sn varies with the seeds, v_s = var_s(mean_n d_sn) / S, and with the images,
    v_n = var_n(mean_s d_sn) / N; what a seed and an image have in common counts in both. The interval reaches to

    +- sqrt(t(S - 1)^2 v_s + t(N - 1)^2 v_n)

    which holds 95 % or more however the two compare, at two seeds too. v_n has half a pair of images added that one
    recipe alone has right, and half a pair for the other: models that agree on all images are no proof that they always
    do. Of one seed only the images' part is known: it then holds for these two models.

    Source: Owen 2007, Annals of Applied Statistics 1(2), of the sum of both variances; Zou and Donner 2008, Statistics
    in Medicine 27, of the interval from those of its parts; Agresti and Min 2005, Statistics in Medicine 24, of the
    added images.

    Args:
        first: for each seed (N,) whether its model is right.
        second: the same of the other recipe, by the same seeds and on the same images.

    Raises:
        ValueError: if they are not of one shape, or there is no seed, or fewer than two images.
    """
    from scipy import stats

    d_SN = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    if d_SN.ndim != 2 or not d_SN.shape[0] or d_SN.shape[1] < 2:
        raise ValueError(f"differences of shape {d_SN.shape}: need one row a seed, of two images or more")
    seeds, images = d_SN.shape
    by_seed, by_image, mean = d_SN.mean(1), d_SN.mean(0), float(d_SN.mean())
    squares = float(((by_image - mean) ** 2).sum()) + 1  # of +1 and -1, half of each
    reach2 = float(stats.t.ppf((1 + LEVEL) / 2, images - 1)) ** 2 * squares / (images - 1) / images
    if seeds > 1:
        reach2 += float(stats.t.ppf((1 + LEVEL) / 2, seeds - 1)) ** 2 * float(by_seed.var(ddof=1)) / seeds
    low, high = max(-1.0, mean - reach2**0.5), min(1.0, mean + reach2**0.5)
    return Confirmation(mean, low, high, tuple(by_seed.tolist()), seeds, images)
