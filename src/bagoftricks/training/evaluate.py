"""Measures: loss, Top-1, Top-5, mean per-class accuracy and macro F1, over an epoch or over a validation set.

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagoftricks.data.batches import Batches
from bagoftricks.models.inference import for_inference, in_parts
from bagoftricks.training.hardware import Hardware
from bagoftricks.tricks.base import Trick

TOP5_CLASSES = 6
"""Least number of classes for which Top-5 says anything."""


def ranks(logits_NK: Tensor, label_N: Tensor) -> Tensor:
    """Returns (N,) the place of each label among the classes by their logits, from 0 for the guess itself.

    Of equal logits, which bf16 gives now and then, the first counts as the higher, as it does for `argmax`; what is no
    number is above all others.
    """
    true_N1 = logits_NK.gather(1, label_N[:, None])
    not_before = torch.arange(logits_NK.shape[1], device=logits_NK.device) >= label_N[:, None]
    below_NK = (logits_NK < true_N1) | ((logits_NK == true_N1) & not_before)
    return logits_NK.shape[1] - below_NK.sum(1)


class Meter:
    """Adds up batches; counts stay on the device until they are asked for."""

    def __init__(self, num_classes: int, device: str) -> None:
        self.num_classes = num_classes
        self.loss = torch.zeros((), dtype=torch.float32 if device == "mps" else torch.float64, device=device)
        self.images = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self.correct = torch.zeros_like(self.images)
        self.correct5 = torch.zeros_like(self.images)
        self.predicted = torch.zeros_like(self.images)

    @torch.no_grad()
    def add(self, loss: Tensor, logits_NK: Tensor, label_N: Tensor) -> None:
        """Counts a batch, given its mean loss."""
        self.loss += loss.detach() * len(label_N)
        rank_N = ranks(logits_NK, label_N)
        self.images.index_add_(0, label_N, torch.ones_like(label_N))
        self.correct.index_add_(0, label_N, (rank_N < 1).long())
        self.correct5.index_add_(0, label_N, (rank_N < 5).long())
        self.predicted.index_add_(0, logits_NK.argmax(1), torch.ones_like(label_N))

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the sums so far, for a checkpoint."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def load_state_dict(self, sums: Mapping[str, Tensor]) -> None:
        """Continues from the sums of `state_dict`."""
        for name, value in self.state_dict().items():
            value.copy_(sums[name])

    def measures(self) -> dict[str, float]:
        """Returns loss, top1, top5 (absent below six classes), mean_class_acc and macro_f1 (of classes seen).

        All but the loss in [0, 1]. A class's F1 is 2 TP / (images + predictions): the harmonic mean of its precision
        and recall, 0 where it is never guessed right.
        """
        total = int(self.images.sum())
        seen = self.images > 0
        result = {"loss": float(self.loss) / total, "top1": int(self.correct.sum()) / total}
        if self.num_classes >= TOP5_CLASSES:
            result["top5"] = int(self.correct5.sum()) / total
        result["mean_class_acc"] = float((self.correct[seen].float() / self.images[seen].float()).mean())
        f1 = 2 * self.correct[seen].float() / (self.images[seen] + self.predicted[seen]).float()
        result["macro_f1"] = float(f1.mean())
        return result


@dataclass(frozen=True)
class Evaluation:
    """What a model says of a validation set."""

    measures: dict[str, float]
    logits_NK: npt.NDArray[np.float32]
    label_N: npt.NDArray[np.int64]


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Batches,
    num_classes: int,
    hardware: Hardware,
    on_batch: Callable[[], None] = lambda: None,
    tricks: Iterable[Trick] = (),
    micro_batch: int | None = None,
) -> Evaluation:
    """Runs a copy of the model, made for inference, over every image once; the loss is plain cross-entropy.

    The model itself is not touched, whatever mode it is in. `on_batch` is called after each batch. Views of the images
    that tricks add are averaged in. At most `micro_batch` images go through the network at once; by default a batch.
    """
    tricks = list(tricks)
    network = for_inference(model, hardware.dtype)
    meter = Meter(num_classes, hardware.device)
    logits, labels = [], []
    for x_NCHW, label_N in batches.evaluation():
        x_NCHW = x_NCHW.to(hardware.dtype)
        views = [x_NCHW, *(view for trick in tricks for view in trick.views(x_NCHW))]
        first, *others = (in_parts(network, view, micro_batch).float() for view in views)
        logits_NK = sum(others, first) / len(views)
        meter.add(F.cross_entropy(logits_NK, label_N), logits_NK, label_N)
        on_batch()
        logits.append(logits_NK)
        labels.append(label_N)
    return Evaluation(meter.measures(), torch.cat(logits).cpu().numpy(), torch.cat(labels).cpu().numpy())
