"""The architecture's config: which tweaks, how deep, or which network of timm. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations

from bagoftricks.errors import UserError, unknown

BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Residual blocks in each of the four stages, by depth; 10 as Simon et al. 2016 (arXiv:1612.01452) have it."""
TWEAKS = ("A", *("".join(c) for n in (1, 2, 3) for c in combinations("BCD", n)))
"""Every combination of the paper's three tweaks; A is none. E and F may be added to any of them."""
LETTERS = "ABCDEF"
CLASSIFIER = 5
"""Depth of the classifier; the stem has 0, the stages 1 to 4."""
RESNET = "resnet"
"""The backbone that tweaks and depth describe."""
TIMM = "timm:"
"""Before the name of a backbone of timm, and of its published weights."""
ADAPT = "adapt:"
"""Before the name of initial weights: made to fit the recipe's architecture, where that is another one than theirs."""


def canonical_tweaks(name: str) -> str:
    """Returns the canonical name of a combination: "DCB", "ABCD" and "bcd" are all "BCD"; nothing on A is "A".

    Raises:
        UserError: for letters other than A to F, or repeated ones.
    """
    letters = name.upper()
    if not letters or not set(letters) <= set(LETTERS) or len(set(letters)) < len(letters):
        raise unknown("model.tweaks", name, [*TWEAKS, *"EF", "BE", "BF", "BCDEF"])
    return "".join(sorted(set(letters) - {"A"})) or "A"


def is_bottleneck(depth: int) -> bool:
    """Whether blocks of this depth are bottlenecks (1x1, 3x3, 1x1), as from 50 layers on."""
    return depth >= 50


@dataclass(frozen=True)
class ModelConfig:
    """Which network: a ResNet of some depth and tweaks, or one of timm's."""

    tweaks: str = "B"
    """A (the original), or any of B (stride in the 3x3), C (deep stem), D (average-pool shortcut), E
    (squeeze-and-excitation), F (a blur before each halving): B, BC, BCD, BCDEF, ..."""
    depth: int = 50
    """Layers: 10, 18, 34, 50, 101 or 152."""
    zero_init_gamma: bool = False
    """Start the last batch-norm weight of each block at zero, so that every block begins as the identity. For training
    from scratch: loaded weights replace it."""
    backbone: str = RESNET
    """resnet, the one that the fields above describe; or timm:NAME, any network of timm (the extra timm), such as
    timm:convnext_tiny. A tag after the name (timm:vit_small_patch16_224.dino) prepares images as the weights of that
    tag want them."""

    def __post_init__(self) -> None:
        if self.backbone != RESNET:
            self._check_backbone()
        object.__setattr__(self, "tweaks", canonical_tweaks(self.tweaks))
        if self.depth not in BLOCKS:
            raise UserError(f"model.depth = {self.depth}: choose from {', '.join(map(str, BLOCKS))}")
        if "B" in self.tweaks and not is_bottleneck(self.depth):
            raise UserError(
                f"model.tweaks = {self.tweaks} at depth {self.depth}: B moves the stride inside a bottleneck, "
                "and depths below 50 have none; use A or letters of C to F there"
            )

    def _check_backbone(self) -> None:
        """That timm has it is checked where timm is imported."""
        if not re.fullmatch(rf"{TIMM}\w+(\.\w+)?", self.backbone, re.ASCII):
            raise UserError(
                f"model.backbone = {self.backbone[:80]}: must be {RESNET}, or {TIMM} and a name of timm's, such as "
                f"{TIMM}convnext_tiny"
            )
        if (self.tweaks.upper(), self.depth, self.zero_init_gamma) != ("B", 50, False):
            raise UserError(
                f"model.backbone = {self.backbone}: tweaks, depth and zero_init_gamma are a ResNet's; leave them out"
            )

    @property
    def is_resnet(self) -> bool:
        """Whether it is a ResNet of ours, with tweaks and a depth."""
        return self.backbone == RESNET

    @property
    def timm_name(self) -> str:
        """What timm calls the backbone, its tag included."""
        return self.backbone.removeprefix(TIMM)

    @property
    def name(self) -> str:
        """For people: "ResNet-50-BCD", "timm:convnext_tiny"."""
        return f"ResNet-{self.depth}-{self.tweaks}" if self.is_resnet else self.backbone
