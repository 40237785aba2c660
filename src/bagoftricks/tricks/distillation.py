"""Knowledge distillation: let the network learn what a better one says of each image, beside the labels.

loss' = loss + weight * T^2 * KL(softmax(r / T) || softmax(z / T)) for the student's logits z and the teacher's r

The teacher sees the very images that the student sees, cropped, mirrored and mixed alike; it is in evaluation mode and
is not trained. Where an image is the same in every epoch, its logits are computed once.

Source: Hinton et al. 2015, arXiv:1503.02531; with T = 20, He et al. 2019, arXiv:1812.01187, section 5.3, who have
cross-entropy in place of KL: the same but for a constant.
Cost: the teacher's pass over every batch: a third more time for one as large as the student, twice the time for a
ResNet-152 over a ResNet-50; a plan reckons with it. And the teacher has to be trained first.
Interacts: a teacher that is known to have been trained on images which the student is validated on is refused: train
one for each seed. In He et al. it harmed students of another family than the teacher's.
Shapes: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    from torch import Tensor

NONE = "none"


def distillation_loss(logits_NK: Tensor, taught_NK: Tensor, temperature: float) -> Tensor:
    """Returns T^2 times the mean divergence of the student's softened probabilities from the teacher's, in nats."""
    import torch.nn.functional as F

    log_q_NK, log_p_NK = ((z_NK / temperature).log_softmax(1) for z_NK in (logits_NK, taught_NK))
    return temperature**2 * F.kl_div(log_q_NK, log_p_NK, reduction="batchmean", log_target=True)


@dataclass(frozen=True)
class Distillation(Trick):
    """Learn from another network."""

    teacher: str = "none"
    """none; the folder of a saved model (or of trainings that kept one) which knows the same classes, where `{seed}`
    stands for the run's seed: each split needs a teacher of its own, that has not seen the validation images; or
    published weights of timm's (timm:resnet152.a1_in1k), where the classes are ImageNet's, some of them or all."""
    temperature: float = 20.0
    """By which both networks' logits are divided, from 1 to 1000; at high ones every class counts."""
    weight: float = 1.0
    """Share of the teacher in the loss, where the labels have 1; above 0, up to 1000."""

    def __post_init__(self) -> None:
        if not self.teacher:
            raise UserError("distillation.teacher is empty: pass none, a folder of a saved model, or a name of timm's")
        if not 1 <= self.temperature <= 1000:
            raise UserError(f"distillation.temperature = {self.temperature}: must be between 1 and 1000")
        if not 0 < self.weight <= 1000:
            raise UserError(f"distillation.weight = {self.weight}: must be above 0 and at most 1000")

    @property
    def active(self) -> bool:
        """Whether there is a teacher."""
        return self.teacher != NONE

    @property
    def taught_by(self) -> str:
        """The teacher's folder, or its name."""
        return self.teacher if self.active else ""

    def on_taught(self, loss: Tensor, logits_NK: Tensor, taught_NK: Tensor) -> Tensor:
        """Returns the loss with the teacher's part."""
        return loss + self.weight * distillation_loss(logits_NK, taught_NK, self.temperature)
