"""How images become input: their size, crops and flips. A config; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bagoftricks.errors import UserError, unknown

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's channels, in [0, 1]; what published weights expect."""

CROPS = ("center", "pad", "squash")


@dataclass(frozen=True)
class InputConfig:
    """Size of the images, and what is cut from them."""

    size: int = 224
    """Side of the square that the network sees, in pixels, from 32 to 1024."""
    crop_min: float = 0.35
    """Training: least share of the image's area in a random resized crop, above 0 up to 1."""
    crop_ratio: float = 4 / 3
    """Training: widest aspect ratio of a crop (and narrowest, as 1 over it), from 1."""
    flip: bool = True
    """Training: mirror half of the images. Turn off where left and right matter, as with digits."""
    crop_pct: float = 0.875
    """Evaluation: side of the centre crop as a share of the image's short side, above 0 up to 1."""
    crop: Literal["center", "pad", "squash"] = "center"
    """Evaluation: center (a square crop from the middle), pad (the whole image on a square of the mean colour) or
    squash (the whole image, its aspect ratio given up). Not center where the evidence may lie at the edge."""

    @property
    def same_each_epoch(self) -> bool:
        """Whether training sees each image the same way in every epoch: neither cropped nor flipped at random."""
        return self.crop_min == 1 and self.crop_ratio == 1 and not self.flip

    def __post_init__(self) -> None:
        if not 32 <= self.size <= 1024:
            raise UserError(f"input.size = {self.size}: must be between 32 and 1024 pixels")
        for field in ("crop_min", "crop_pct"):
            if not 0 < getattr(self, field) <= 1:
                raise UserError(f"input.{field} = {getattr(self, field)}: must be above 0 and at most 1")
        if self.crop not in CROPS:
            raise unknown("input.crop", self.crop, CROPS)
        if not 1 <= self.crop_ratio <= 10:
            raise UserError(f"input.crop_ratio = {self.crop_ratio}: must be between 1 and 10")
