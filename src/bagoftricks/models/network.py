"""What training and serving ask of a network, be it a `ResNet` or a `Backbone` of timm's.

Shapes: N images, C channels, H x W pixels, h x w places, K classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from bagoftricks.models.config import ModelConfig


class Network(nn.Module):
    """A classifier of normalised images x_NCHW, whose output is logits_NK."""

    config: ModelConfig
    classes: tuple[str, ...]
    """Names, in the order of the logits."""
    dropout: float
    """Share of the features that training drops before the classifier."""
    classifier_keys: tuple[str, ...]
    """Names, in `weights`, of what depends on the classes."""

    @abstractmethod
    def depth_of(self, name: str) -> int:
        """Returns the depth of a parameter or a module by its name: 0 for the stem, 1 to 4 for the stages, 5 for the
        classifier.
        """

    @property
    @abstractmethod
    def last_stage(self) -> nn.Module:
        """The module whose output goes to pooling and classifier."""

    @abstractmethod
    def head(self, stage_NChw: Tensor) -> Tensor:
        """Returns float32 logits_NK of the last stage's output, computed in float32 where that can be had."""

    def undecayed(self) -> frozenset[str]:
        """Returns names of parameters that those who made the network leave out of weight decay, of whatever shape."""
        return frozenset()

    def has_map(self, stage: Tensor) -> bool:
        """Whether what the last stage gave is a map, (N, C, h, w), rather than tokens."""
        return stage.ndim == 4

    def weights(self) -> dict[str, Tensor]:
        """Returns parameters and buffers under the names that published weights have."""
        return self.state_dict()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Takes what `weights` gave.

        Raises:
            RuntimeError: if names or shapes are others.
        """
        self.load_state_dict(weights)
