"""Stochastic depth: leave out whole blocks at random, the deeper the more often.

x' = relu(shortcut + branch * m / (1 - p_l)),  m = 0 with probability p_l for each image, else 1
p_l = prob * l / L for block l = 1, …, L

Source: Huang et al. 2016, arXiv:1603.09382 (there linear from 0 as well); 0.05 for a ResNet-50 in Wightman et al. 2021,
arXiv:2110.00476.
Cost: saves nothing: the block is computed all the same, and two passes that are one without it stay apart.
Interacts: for long trainings and deep networks; short fine-tuning rarely gains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    from bagoftricks.models.network import Network


@dataclass(frozen=True)
class StochasticDepth(Trick):
    """Leave out blocks at random."""

    resnet_only = True

    prob: float = 0.0
    """Probability that the last block is left out of an image's pass, from 0 (off) to below 1; 0.05 is usual."""

    def __post_init__(self) -> None:
        if not 0 <= self.prob < 1:
            raise UserError(f"stochastic_depth.prob = {self.prob}: must be at least 0 (off) and below 1")

    def on_model(self, model: Network) -> None:
        """Sets each block's probability."""
        from bagoftricks.models.resnet import ResNet

        assert isinstance(model, ResNet)  # a recipe with another backbone is refused
        blocks = list(model.blocks())
        for l, block in enumerate(blocks, 1):
            block.drop_prob = self.prob * l / len(blocks)
