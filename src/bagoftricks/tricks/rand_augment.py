"""RandAugment: a few random changes a picture, all of one strength.

Each picture gets `ops` changes in turn, drawn from torchvision's list (rotation, shear, translation, brightness,
colour, contrast, sharpness, posterise, solarise, auto-contrast, equalise, nothing): its `v2.RandAugment`, on each image
by itself, after the crop and the flip.

Source: Cubuk et al. 2020, arXiv:1909.13719 (2 changes of strength 9 for a ResNet-50).
Cost: work for each image by itself, on a GPU too, where many of the changes wait for the device. Lowers training
accuracy by design; wants longer schedules.
Interacts: with TrivialAugment, which needs no strength: both on means three changes. Colours are changed: not where
the class is in them.
Shapes: N images, C channels, H x W pixels.
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
class RandAugment(Trick):
    """Change each picture in a few random ways."""

    magnitude: int = 0
    """Strength of each change, 0 is off, 9 is usual, up to 30."""
    ops: int = 2
    """Changes to each picture, from 1 to 8; they are made where the strength is above 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.magnitude <= 30:
            raise UserError(f"rand_augment.magnitude = {self.magnitude}: must be between 0 (off) and 30")
        if not 1 <= self.ops <= 8:
            raise UserError(f"rand_augment.ops = {self.ops}: must be between 1 and 8")

    @property
    def active(self) -> bool:
        """Whether changes have a strength."""
        return self.magnitude > 0

    def on_pixels(self, x_NCHW: Tensor, rng: np.random.Generator) -> Tensor:
        """Returns each image changed by itself."""
        import torch
        from torchvision.transforms import InterpolationMode, v2

        from bagoftricks.rng import forked

        change = v2.RandAugment(self.ops, self.magnitude, interpolation=InterpolationMode.BILINEAR)
        with forked(rng, x_NCHW.device.type):
            return torch.stack([change(image) for image in x_NCHW])
