"""The active tricks of one training as one object: what the loop asks, each trick answers in turn.

Shapes: N images, C channels, H x W pixels, K classes, n training images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagoftricks.data.index import IntArray
from bagoftricks.data.resident import to_device
from bagoftricks.models.network import Network
from bagoftricks.rng import forked, stream
from bagoftricks.training.teacher import Teacher
from bagoftricks.tricks.base import CLASSIFIER, Companion, Parameter, Treatment, Trick


def cross_entropy(logits_NK: Tensor, y_NK: Tensor, weight_K: Tensor | None = None) -> Tensor:
    """Returns the mean cross-entropy with soft targets; with weights, normalised by their sum over the targets.

    As `F.cross_entropy` does it for targets that are indices; for soft ones it divides by N, which would change the
    learning rate with the classes that a batch happens to hold.
    """
    if weight_K is None:
        return F.cross_entropy(logits_NK, y_NK)
    weighted_NK = y_NK * weight_K
    return -(weighted_NK * logits_NK.log_softmax(1)).sum() / weighted_NK.sum()


class Bag:
    """The tricks of one training.

    Args:
        tricks: the active ones by field name, in the order in which they act.
        counts_K: training images of each class.
        seed: of the block; each trick draws from streams of its own name.
        device: where the network is.
        teacher: the network that one of them learns from, if one does.
    """

    def __init__(
        self, tricks: Mapping[str, Trick], counts_K: IntArray, seed: int, device: str, teacher: Teacher | None = None
    ) -> None:
        self.tricks, self.counts_K, self.seed, self.device = dict(tricks), counts_K, seed, device
        self.teacher = teacher
        self.weight_K = self._class_weights()
        self.companions: dict[str, Companion] = {}
        self._draws = bool(self._with("on_model"))

    def lr(self, lr: float, batch_size: int) -> float:
        """Returns the base learning rate."""
        for trick in self.tricks.values():
            lr = trick.on_lr(lr, batch_size)
        return lr

    def parameters(self, model: Network) -> list[Any]:
        """Returns what an optimiser is built over: the parameters, in groups where they are not all treated alike.

        A group's `lr_scale` is for who sets the rates.
        """
        named, exempt = list(model.named_parameters()), model.undecayed()
        groups: dict[Treatment, list[nn.Parameter]] = {}
        for name, tensor in named:
            treatment = Treatment()
            for trick in self.tricks.values():
                about = Parameter(name, tensor.ndim, model.depth_of(name), name in exempt)
                treatment = trick.on_parameter(about, treatment)
            groups.setdefault(treatment, []).append(tensor)
        if set(groups) == {Treatment()}:
            return [tensor for _, tensor in named]
        return [
            {"params": members, "lr_scale": how.lr_scale, **({} if how.decays else {"weight_decay": 0.0})}
            for how, members in groups.items()
        ]

    def begin(self, model: Network) -> None:
        """Readies the network for training, and makes what goes along with it, from its initial weights."""
        self._draws = self._draws or not model.config.is_resnet  # some of timm's drop paths unasked
        for trick in self.tricks.values():
            trick.on_model(model)
        made = {name: trick.companion(model) for name, trick in self.tricks.items()}
        self.companions = {name: companion for name, companion in made.items() if companion is not None}

    def freeze(self, model: Network, epoch: int) -> None:
        """Fixes what no trick lets be trained in an epoch, batch-norm's statistics with it; frees the rest."""
        acting = self._with("trains")
        if not acting:
            return
        free = {depth: all(trick.trains(depth, epoch) for trick in acting.values()) for depth in range(CLASSIFIER + 1)}
        for name, module in model.named_modules():
            if name and any(True for _ in module.parameters()):  # parents come first, and have no say over their parts
                module.train(free[model.depth_of(name)])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(free[model.depth_of(name)])

    def order(self, order_n: IntArray, labels: IntArray, epoch: int) -> IntArray:
        """Returns the training images of an epoch in the order in which they are shown, given the labels of all."""
        for name, trick in self._with("on_order").items():
            order_n = trick.on_order(order_n, labels[order_n], stream(self.seed, f"{name}/order", epoch))
        return order_n

    def pixels(self, first_step: int) -> Callable[[Tensor, int], Tensor] | None:
        """Returns what `Batches.training` calls with the images of an epoch's step, as uint8; None where no trick does.

        Args:
            first_step: that the epoch's steps are counted from, for the streams.
        """
        acting = self._with("on_pixels")
        if not acting:
            return None

        def changed(x_NCHW: Tensor, step: int) -> Tensor:
            for name, trick in acting.items():
                x_NCHW = trick.on_pixels(x_NCHW, stream(self.seed, f"{name}/pixels", first_step + step))
            return x_NCHW

        return changed

    def draws(self, step: int) -> AbstractContextManager[None]:
        """The context in which the network computes a step: with a generator of its own where it may draw."""
        return forked(stream(self.seed, "model", step), self.device) if self._draws else nullcontext()

    def batch(
        self, x_NCHW: Tensor, y_NK: Tensor, members_N: IntArray, step: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns the batch to train on, and what the teacher says of it; `members_N` are the images' indices."""
        shown_NCHW = x_NCHW
        for name, trick in self.tricks.items():
            if self._has_turn(name, step):
                x_NCHW, y_NK = trick.on_batch(x_NCHW, y_NK, stream(self.seed, name, step))
        if self.teacher is None:
            return x_NCHW, y_NK, None
        untouched = x_NCHW is shown_NCHW and not self._with("on_pixels") and not self._with("on_size")
        return x_NCHW, y_NK, self.teacher.logits(x_NCHW, members_N if untouched else None)

    def loss(self, logits_NK: Tensor, x_NCHW: Tensor, y_NK: Tensor, taught_NK: Tensor | None = None) -> Tensor:
        """Returns the scalar loss to minimise."""
        seen_NK = logits_NK
        for trick in self.tricks.values():
            seen_NK = trick.on_logits(seen_NK, self.counts_K)
        found = (trick.loss(seen_NK, y_NK, self.weight_K) for trick in self.tricks.values())
        loss = next((value for value in found if value is not None), None)
        if loss is None:
            loss = cross_entropy(seen_NK, y_NK, self.weight_K)
        if taught_NK is not None:
            for trick in self._with("on_taught").values():
                loss = trick.on_taught(loss, logits_NK, taught_NK)
        for trick in self.tricks.values():
            loss = trick.on_loss(loss, seen_NK, x_NCHW, y_NK)
        return loss

    def second_look(self, model: nn.Module, again: Callable[[], object]) -> None:
        """Lets tricks replace the gradients of a whole batch; `again` computes them anew."""
        for trick in self._with("on_backward").values():
            trick.on_backward(model, again)

    def stops(self, losses: Sequence[float]) -> bool:
        """Whether the training ends here, from the validation losses of the epochs so far."""
        return any(trick.stops(losses) for trick in self.tricks.values())

    def gradients(self, model: nn.Module) -> None:
        """Changes the gradients of a whole batch before the optimiser's step."""
        for trick in self._with("on_gradients").values():
            trick.on_gradients([p for p in model.parameters() if p.grad is not None])

    def after_step(self, model: nn.Module) -> None:
        """Tells all companions of a step."""
        for companion in self.companions.values():
            companion.after_step(model)

    def evaluated(self, model: nn.Module) -> nn.Module:
        """Returns the network to evaluate and to keep."""
        for companion in self.companions.values():
            model = companion.evaluated(model)
        return model

    def state_dict(self) -> dict[str, Any]:
        """Returns the companions' states by the names of their tricks."""
        return {name: dict(companion.state_dict()) for name, companion in self.companions.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` gave."""
        for name, companion in self.companions.items():
            companion.load_state_dict(state[name])

    def _with(self, method: str) -> dict[str, Trick]:
        """Returns the tricks that act at a point."""
        base = getattr(Trick, method)
        return {name: trick for name, trick in self.tricks.items() if getattr(type(trick), method) is not base}

    def _has_turn(self, name: str, step: int) -> bool:
        """Whether a trick acts on the batch of a step: one of those that share its turn does."""
        turn = self.tricks[name].turn
        sharing = [other for other, trick in self.tricks.items() if turn and trick.turn == turn]
        if len(sharing) < 2:
            return True
        return sharing[int(stream(self.seed, f"turn/{turn}", step).integers(len(sharing)))] == name

    def _class_weights(self) -> Tensor | None:
        weights = [trick.class_weights(self.counts_K) for trick in self.tricks.values()]
        found = [np.asarray(weight) for weight in weights if weight is not None]
        if not found:
            return None
        return to_device(torch.from_numpy(np.prod(found, axis=0)).float(), self.device)
