"""The points at which a trick can act. A trick takes values and returns values; it never sees the trainer.

Shapes: N images, C channels, H x W pixels, K classes, n training images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bagoftricks.models.config import CLASSIFIER as CLASSIFIER

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from bagoftricks.models.network import Network

    IntArray = npt.NDArray[np.int64]
    FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """What a trick may know of one parameter, to say how it is trained."""

    name: str
    """In the state dict, e.g. "layer3.0.conv2.weight"."""
    dims: int
    """Of its shape: 4 of a convolution's weight, 1 of biases and of what normalisation has."""
    depth: int
    """0 for the stem, 1 to 4 for the stages, 5 for the classifier."""
    exempt: bool = False
    """Whether those who made the network leave it out of weight decay, as timm does a transformer's position
    embeddings."""


@dataclass(frozen=True)
class Treatment:
    """How one parameter is trained."""

    lr_scale: float = 1.0
    """Multiple of the learning rate."""
    decays: bool = True
    """Whether weight decay applies."""


class Companion(Protocol):
    """What a trick keeps beside the network while it is trained, such as an average of its weights."""

    def after_step(self, model: nn.Module) -> None:
        """Called after each of the optimiser's steps."""

    def evaluated(self, model: nn.Module) -> nn.Module:
        """Returns the network to evaluate and to keep, given the one that is trained, which it must not change."""

    def state_dict(self) -> Mapping[str, Any]:
        """Returns all that a continued training needs: tensors, numbers, and mappings of them."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` gave."""


class Trick:
    """Base of every trick: a frozen dataclass whose default values are neutral.

    Each method below is optional. A trick at its neutral value is never called, so that a recipe with it off trains bit
    for bit as if it did not exist.
    """

    turn = ""
    """Active tricks that name the same turn share it: each batch gets one of them, at even odds."""

    resnet_only = False
    """Whether it acts on what only a `ResNet` has, its blocks: a recipe with another backbone then refuses it."""

    @property
    def active(self) -> bool:
        """Whether any field differs from its neutral value."""
        return self != type(self)()

    def cost(self, epochs: int) -> float:
        """Returns the time of a training with the trick over that without it, as well as can be told beforehand."""
        return 1.0

    def on_lr(self, lr: float, batch_size: int) -> float:
        """Returns the base learning rate to use, above 0, given the one so far."""
        return lr

    def on_model(self, model: Network) -> None:
        """Changes, in place, how the network computes in training; its weights and their names stay.

        What it draws then, it draws from torch's global generator, which is seeded for each step: there alone several
        tricks share a stream, in the order in which the network computes.
        """

    def on_parameter(self, parameter: Parameter, treatment: Treatment) -> Treatment:
        """Returns how a parameter is trained, given what was decided so far."""
        return treatment

    def companion(self, model: nn.Module) -> Companion | None:
        """Returns what goes along with the network, made from its initial weights; None for nothing."""
        return None

    def trains(self, depth: int, epoch: int) -> bool:
        """Whether what lies at a depth is trained in an epoch, counted from 0, or fixed."""
        return True

    def on_size(self, size: int, epoch: int, epochs: int) -> int:
        """Returns the side of the training images of an epoch, in pixels, from 32 to `input.size`; epochs from 0."""
        return size

    def on_order(self, order_n: IntArray, labels_n: IntArray, rng: np.random.Generator) -> IntArray:
        """Returns the training images of an epoch in the order in which they are shown, as many as before.

        Args:
            order_n: indices of images, shuffled.
            labels_n: the label of each of them.
            rng: a stream of the trick's own, by epoch.
        """
        return order_n

    def on_pixels(self, x_NCHW: Tensor, rng: np.random.Generator) -> Tensor:
        """Returns the images to train on, of the same shape, cropped and mirrored, as uint8; `rng` is by step."""
        return x_NCHW

    def on_batch(self, x_NCHW: Tensor, y_NK: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Returns the batch to train on, from normalised images and soft targets (rows sum to 1)."""
        return x_NCHW, y_NK

    def on_logits(self, logits_NK: Tensor, counts_K: IntArray) -> Tensor:
        """Returns the logits that the loss sees, in training alone, given the training images of each class."""
        return logits_NK

    def class_weights(self, counts_K: IntArray) -> FloatArray | None:
        """Returns the weight of each class in the loss, at least 0, from its number of training images."""
        return None

    def loss(self, logits_NK: Tensor, y_NK: Tensor, weight_K: Tensor | None) -> Tensor | None:
        """Returns the scalar loss that takes the place of cross-entropy; None where the trick has none.

        At most one active trick may have one.
        """
        return None

    @property
    def taught_by(self) -> str:
        """Folder of a saved model, or a name of timm's, that says of each batch what `on_taught` gets; "" for none.

        At most one active trick may name one.
        """
        return ""

    def on_taught(self, loss: Tensor, logits_NK: Tensor, taught_NK: Tensor) -> Tensor:
        """Returns the scalar loss, given the one so far, and the logits of the network and of its teacher."""
        return loss

    def on_loss(self, loss: Tensor, logits_NK: Tensor, x_NCHW: Tensor, y_NK: Tensor) -> Tensor:
        """Returns the scalar loss to minimise, given the one so far."""
        return loss

    def on_backward(self, model: nn.Module, again: Callable[[], object]) -> None:
        """Replaces the gradients of a whole batch, if it likes, by others at the weights as they were before.

        `again` computes them anew at the weights as they are when it is called.
        """

    def on_gradients(self, parameters: list[Tensor]) -> None:
        """Changes, in place, the gradients (`.grad`) of a whole batch before the optimiser's step."""

    def views(self, x_NCHW: Tensor) -> list[Tensor]:
        """Returns further views of images in evaluation, whose logits are averaged with those of the images.

        A kept model repeats `test_time_flip`'s when it predicts; those of other tricks only measure.
        """
        return []

    def stops(self, losses: Sequence[float]) -> bool:
        """Whether the training ends here, from the validation losses of the epochs so far."""
        return False
