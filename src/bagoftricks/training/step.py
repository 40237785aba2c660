"""One step of a training: apply the tricks, forward, backward, update. The loop takes it, and so does the rate finder.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bagoftricks.data.batches import Batches
from bagoftricks.data.index import IntArray
from bagoftricks.models.network import Network
from bagoftricks.recipe import Recipe
from bagoftricks.training.bag import Bag
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.teacher import Teacher


class Stepper:
    """Trains a network in place, a batch at a time.

    Args:
        model: on the device, in channels-last layout, with its initial weights.
        recipe: its optimiser and tricks.
        train: training side of the split.
        num_classes: K.
        hardware: where.
        micro_batch: images that go through the network at once, their gradients added up; None is the whole batch.
        teacher: the network that a trick learns from, where one does.
    """

    def __init__(
        self,
        model: Network,
        recipe: Recipe,
        train: Batches,
        num_classes: int,
        hardware: Hardware,
        *,
        micro_batch: int | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.model, self.num_classes, self.hardware, self.micro_batch = model, num_classes, hardware, micro_batch
        self.bag = Bag(recipe.tricks, train.counts(num_classes), train.seed, hardware.device, teacher)
        self.optimizer = recipe.optimizer.build(self.bag.parameters(model))
        self.bag.begin(model)

    def take(
        self, x_NCHW: Tensor, label_N: Tensor, members_N: IntArray, step: int, lr: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Trains on a batch.

        Args:
            x_NCHW: normalised images.
            label_N: their classes.
            members_N: their indices in the data set.
            step: counted from the beginning of the training, for the streams.
            lr: of groups whose `lr_scale` is 1.

        Returns:
            The mean loss (scalar) and logits (N x K) before the update, float32 and detached, and the targets (N x K)
            as the tricks have made them.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        y_NK = F.one_hot(label_N, self.num_classes).float()
        x_NCHW, y_NK, taught_NK = self.bag.batch(x_NCHW, y_NK, members_N, step)
        compute = partial(self.gradients, x_NCHW, y_NK, taught_NK, step)
        loss, logits_NK = compute()
        self.bag.second_look(self.model, compute)
        self.bag.gradients(self.model)
        self.optimizer.step()
        self.bag.after_step(self.model)
        return loss, logits_NK, y_NK

    def gradients(self, x_NCHW: Tensor, y_NK: Tensor, taught_NK: Tensor | None, step: int) -> tuple[Tensor, Tensor]:
        """Computes the gradients of a batch, in parts of at most `micro_batch` images; returns loss and logits."""
        most = self.micro_batch or len(x_NCHW)
        parts = -(-len(x_NCHW) // most)
        if most > 1:  # batch-norm has no variance over a single image, which would be left of an odd number
            parts = max(1, min(parts, len(x_NCHW) // 2))
        loss, logits = torch.zeros((), device=x_NCHW.device), []
        self.model.zero_grad(set_to_none=True)
        taught = [None] * parts if taught_NK is None else taught_NK.tensor_split(parts)
        for i, (x, y, t) in enumerate(zip(x_NCHW.tensor_split(parts), y_NK.tensor_split(parts), taught, strict=True)):
            with self.bag.draws(step * parts + i), self.hardware.autocast():
                logits_nK = self.model(x)
            logits_nK = logits_nK.float()
            part = self.bag.loss(logits_nK, x, y, t)
            if parts > 1:
                part = part * (len(x) / len(x_NCHW))
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
            logits.append(logits_nK.detach())
        return loss, torch.cat(logits)
