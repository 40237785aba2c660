"""TrivialAugment: one random change a picture, of random strength, from a list of fourteen.

Rotation, shear, translation, brightness, colour, contrast, sharpness, posterise, solarise, auto-contrast, equalise, or
nothing: torchvision's `v2.TrivialAugmentWide`, on each image by itself, after the crop and the flip.

Source: Müller and Hutter 2021, arXiv:2103.10158; part of torchvision's recipe for its V2 weights.
Cost: work for each image by itself, on a GPU too, where many of the changes wait for the device. Lowers training
accuracy by design; wants longer schedules.
Interacts: with RandAugment, which does the same with two changes: both on means three changes. Colours are changed:
not where the class is in them.
Shapes: N images, C channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class TrivialAugment(Trick):
    """Change each picture in one random way."""

    on: bool = False
    """Whether pictures are changed."""

    def on_pixels(self, x_NCHW: Tensor, rng: np.random.Generator) -> Tensor:
        """Returns each image changed by itself."""
        import torch
        from torchvision.transforms import InterpolationMode, v2

        from bagoftricks.rng import forked

        change = v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
        with forked(rng, x_NCHW.device.type):
            return torch.stack([change(image) for image in x_NCHW])
