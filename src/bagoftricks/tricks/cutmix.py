"""CutMix: train on images with a rectangle of another one, and on targets in the proportion of the areas.

x' = x_i outside a box, x_j inside;  y' = lam * y_i + (1 - lam) * y_j,  lam = 1 - (area of the box) / (H * W)

The box has the image's aspect ratio and 1 - l of its area, l ~ Beta(alpha, alpha), its centre anywhere; what juts out
is cut off, and lam is taken from what is left. One box a batch; j runs over a random permutation of it.

Source: Yun et al. 2019, arXiv:1905.04899, alpha = 1; torchvision's `v2.CutMix`.
Cost: one extra copy of the batch. Lowers training accuracy by design; wants longer schedules.
Interacts: where mixup is on too, each batch gets one of the two, at even odds, as in timm's and torchvision's
recipes.
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


def box(height: int, width: int, lam: float, center: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns (top, bottom, left, right) in pixels of a box of `1 - lam` of the area, cut to the image."""
    half_h, half_w = (int(0.5 * math.sqrt(1 - lam) * side) for side in (height, width))
    top, left = max(center[0] - half_h, 0), max(center[1] - half_w, 0)
    return top, min(center[0] + half_h, height), left, min(center[1] + half_w, width)


def paste(x_NCHW: Tensor, y_NK: Tensor, where: tuple[int, int, int, int], partner_N: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each image with its partner's pixels in the box, and the targets by area. Shapes stay; copies.

    Args:
        x_NCHW: images.
        y_NK: soft targets.
        where: top, bottom, left, right of the box, pixels.
        partner_N: for each image the index of its partner, int64.
    """
    top, bottom, left, right = where
    lam = 1 - (bottom - top) * (right - left) / (x_NCHW.shape[2] * x_NCHW.shape[3])
    mixed_NCHW = x_NCHW.clone()
    mixed_NCHW[:, :, top:bottom, left:right] = x_NCHW[partner_N, :, top:bottom, left:right]
    return mixed_NCHW, y_NK[partner_N].lerp(y_NK, lam)


@dataclass(frozen=True)
class Cutmix(Trick):
    """Train on images with a rectangle of another one."""

    turn = "blend"
    """With mixup: one of the two a batch."""

    alpha: float = 0.0
    """Shape of the Beta distribution of the area that is kept, 0 is off; 1 is usual."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 100:
            raise UserError(f"cutmix.alpha = {self.alpha}: must be between 0 (off) and 100")

    def on_batch(self, x_NCHW: Tensor, y_NK: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Pastes the same box of a random partner into each image."""
        import torch

        from bagoftricks.data.resident import to_device

        height, width = x_NCHW.shape[2:]
        lam = float(rng.beta(self.alpha, self.alpha))
        center = int(rng.integers(height)), int(rng.integers(width))
        partner_N = to_device(torch.from_numpy(rng.permutation(len(x_NCHW))), x_NCHW.device.type)
        return paste(x_NCHW, y_NK, box(height, width, lam, center), partner_N)
