"""Random erasing: blank a random rectangle of an image, so that no single part of it can be relied on.

A rectangle has 2 to 33 % of the area and an aspect ratio of 0.3 to 3.3, log-uniform, lies anywhere within, and becomes
the mean colour; each image has its own, as torchvision's `v2.RandomErasing` draws it.

Source: Zhong et al. 2020, arXiv:1708.04896; 0.25 in timm's recipes, 0.1 in torchvision's.
Cost: none to speak of. Lowers training accuracy by design.
Interacts: with mixup and CutMix it acts on the images before they are blended.
Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


AREA, RATIO, TRIES = (0.02, 0.33), (0.3, 3.3), 10
"""Share of the image, width over height, and draws after which the image stays whole."""


def rectangle(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Returns (top, bottom, left, right) in pixels of a random rectangle; an empty one where no draw fits."""
    for _ in range(TRIES):
        area = height * width * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return top, top + h, left, left + w
    return 0, 0, 0, 0


@dataclass(frozen=True)
class RandomErasing(Trick):
    """Blank a random rectangle of some images."""

    prob: float = 0.0
    """Share of images that lose a rectangle, from 0 (off) to 1; 0.1 to 0.25 is usual."""

    def __post_init__(self) -> None:
        if not 0 <= self.prob <= 1:
            raise UserError(f"random_erasing.prob = {self.prob}: must be between 0 (off) and 1")

    def on_batch(self, x_NCHW: Tensor, y_NK: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Erases in a copy of the images; the targets pass unchanged."""
        x_NCHW = x_NCHW.clone()
        for i in (rng.random(len(x_NCHW)) < self.prob).nonzero()[0].tolist():
            top, bottom, left, right = rectangle(x_NCHW.shape[2], x_NCHW.shape[3], rng)
            x_NCHW[i, :, top:bottom, left:right].zero_()
        return x_NCHW, y_NK
