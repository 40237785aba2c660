"""Random erasing: blank a random rectangle of an image, so that no single part of it can be relied on.

A rectangle has 2 to 33 % of the area and an aspect ratio of 0.3 to 3.3, and becomes the mean colour: torchvision's
`v2.RandomErasing`, on each image by itself.

Source: Zhong et al. 2020, arXiv:1708.04896; 0.25 in timm's recipes, 0.1 in torchvision's.
Cost: a few milliseconds a batch on a CPU. Lowers training accuracy by design.
Interacts: with mixup and CutMix it acts on the images before they are blended.
Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


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
        from torchvision.transforms import v2

        from bagoftricks.rng import forked

        erase = v2.RandomErasing(p=1.0, value=0.0, inplace=True)
        x_NCHW = x_NCHW.clone()
        with forked(rng):
            for i in (rng.random(len(x_NCHW)) < self.prob).nonzero()[0]:
                erase(x_NCHW[i])
        return x_NCHW, y_NK
