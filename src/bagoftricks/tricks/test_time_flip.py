"""Test-time flip: in evaluation, average what the network says of an image and of its mirror image.

z' = (z(x) + z(mirrored x)) / 2

Source: Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 4.1 (flips
and five crops; they average probabilities).
Cost: twice the time of evaluation and of every later prediction; training is the same, bit for bit, but for where early
stopping ends it.
Interacts: not where left and right matter. The kept model predicts so by itself; an exported file does not.
Shapes: N images, C channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    from torch import Tensor

EVALUATION = 0.06
"""Share of evaluation in the time of a training with a fifth of the images for validation."""


@dataclass(frozen=True)
class TestTimeFlip(Trick):
    """Average with the mirror image."""

    __test__ = False  # no test of pytest's

    on: bool = False
    """Average the logits of each image with those of its mirror image, in evaluation."""

    def cost(self, epochs: int) -> float:
        """Evaluation takes twice as long."""
        return 1 + EVALUATION

    def views(self, x_NCHW: Tensor) -> list[Tensor]:
        """Returns the mirror images."""
        return [x_NCHW.flip(3)]
