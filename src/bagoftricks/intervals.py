"""Intervals that training and statistics both need; without numpy, so that anything may import them."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(successes: float, n: int, *, alpha: float = 0.05) -> tuple[float, float]:
    """Returns the 1 - alpha interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22).

    Args:
        successes: from 0 to n; halves for ties are allowed.
        n: trials, at least 1.
        alpha: one minus the level, between 0 and 1.
    """
    z = NormalDist().inv_cdf(1 - alpha / 2)
    share, z2 = successes / n, z * z / n
    centre = (share + z2 / 2) / (1 + z2)
    half = z * math.sqrt(share * (1 - share) / n + z2 / (4 * n)) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)
