"""Mixup: train on convex blends of pairs of images, and of their targets in the same proportion.

x' = lam * x_i + (1 - lam) * x_j,  y' = lam * y_i + (1 - lam) * y_j,  lam ~ Beta(alpha, alpha), one per batch

Only blended examples train, as in the paper; j runs over a random permutation of the batch.

Source: Zhang et al. 2018, arXiv:1710.09412; alpha = 0.2 in He et al. 2019.
Cost: one extra copy of the batch. Lowers training accuracy by design; wants longer schedules.
Interacts: where CutMix is on too, each batch gets one of the two, at even odds, as in timm's and torchvision's recipes.
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


def blend(x_NCHW: Tensor, y_NK: Tensor, lam: float, partner_N: Tensor) -> tuple[Tensor, Tensor]:
    """Returns `lam` of each image and target plus `1 - lam` of its partner's. Shapes stay.

    Args:
        x_NCHW: images.
        y_NK: soft targets.
        lam: share of the first image, in [0, 1].
        partner_N: for each image the index of its partner, int64.
    """
    return x_NCHW[partner_N].lerp(x_NCHW, lam), y_NK[partner_N].lerp(y_NK, lam)


@dataclass(frozen=True)
class Mixup(Trick):
    """Train on blends of pairs of images."""

    turn = "blend"
    """With CutMix: one of the two a batch."""

    alpha: float = 0.0
    """Shape of the Beta distribution of the blend, 0 is off; 0.2 is usual, 1 blends evenly."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 100:
            raise UserError(f"mixup.alpha = {self.alpha}: must be between 0 (off) and 100")

    def on_batch(self, x_NCHW: Tensor, y_NK: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Blends each image with a random partner of the batch; one draw of lam a batch."""
        import torch

        from bagoftricks.data.resident import to_device

        lam = float(rng.beta(self.alpha, self.alpha))
        partner_N = to_device(torch.from_numpy(rng.permutation(len(x_NCHW))), x_NCHW.device.type)
        return blend(x_NCHW, y_NK, lam, partner_N)
