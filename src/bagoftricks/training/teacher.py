"""The network that a student learns from, which says its logits of the student's own images: a saved model, or one of
timm's.

One of timm's knows the classes that its weights were published with, ImageNet's under their synsets (n01440764), so
that it teaches whom a folder of such classes is given to, some of them or all.

Shapes: N images, C channels, H x W pixels, K classes, n images of the data set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bagoftricks.data.batches import Batches
from bagoftricks.data.index import ImageIndex, IntArray
from bagoftricks.data.resident import to_device
from bagoftricks.errors import UserError, first_line
from bagoftricks.models.build import cost
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.inference import for_inference, in_parts
from bagoftricks.models.network import Network
from bagoftricks.recipe import Recipe
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.teacher_source import teacher_source

MOST_KEPT = 2**27
"""Logits that are kept, 512 MiB; of larger data sets they are computed anew in each epoch."""


class Teacher:
    """A saved model in evaluation mode, whose logits are in the order of the student's classes.

    Args:
        model: whose `classes` are those of the student, in any order; others besides are left out.
        classes: the student's.
        train: the student's training images. Where they are the same in every epoch, logits are kept.
        hardware: where to compute; the teacher has the student's precision.
        most: images that go through it at once.
        on_alive: called now and then while logits to keep are computed.
    """

    def __init__(
        self,
        model: Network,
        classes: tuple[str, ...],
        train: Batches,
        hardware: Hardware,
        most: int | None = None,
        on_alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.network = for_inference(model, hardware.dtype).to(hardware.device)
        self.places_K = torch.tensor(_places(model.classes, classes, more=True), device=hardware.device)
        self.train, self.hardware, self.on_alive = train, hardware, on_alive
        self.most = most or train.batch_size
        self._keeps = train.config.same_each_epoch and len(train.labels) * len(classes) <= MOST_KEPT
        self._kept_nK: Tensor | None = None

    def logits(self, x_NCHW: Tensor, members_N: IntArray | None = None) -> Tensor:
        """Returns float32 logits_NK of normalised images, without a graph.

        Args:
            x_NCHW: as the student sees them.
            members_N: their indices in the data set, where nothing but the crop and flip of `train` has changed them.
        """
        if members_N is None or not self._keeps:
            return self._computed(x_NCHW)
        if self._kept_nK is None:
            self._kept_nK = self._all(x_NCHW)
        return self._kept_nK[to_device(torch.from_numpy(members_N), self.hardware.device)]

    def _all(self, like: Tensor) -> Tensor:
        """Returns logits_nK of all training images, always in the same batches, so that a resumed training has them."""
        train = self.train
        whole = np.resize(train.members, -(-len(train.members) // train.batch_size) * train.batch_size)
        kept_nK = torch.zeros(len(train.labels), len(self.places_K), device=like.device)
        for step, (x_NCHW, _) in enumerate(train.training(0, order=whole)):
            members = whole[step * train.batch_size : (step + 1) * train.batch_size]
            kept_nK[to_device(torch.from_numpy(members), self.hardware.device)] = self._computed(x_NCHW)
            self.on_alive()
        return kept_nK

    @torch.no_grad()
    def _computed(self, x_NCHW: Tensor) -> Tensor:
        return in_parts(self.network, x_NCHW.to(self.hardware.dtype), self.most).float()[:, self.places_K]


@dataclass(frozen=True)
class TeacherReport:
    """Whom a run learnt from."""

    run: str
    """Name of the model's folder: the run's identity, where a run kept it; "" of published weights."""
    architecture: str
    sha256: str
    """Of weights and config."""
    licence: str
    """Of the weights that the teacher itself began with; as in `SavedModel`."""
    warning: str
    """Why it may know the validation images; empty where it does not."""

    def summary(self) -> str:
        """One line for people."""
        return taught_by(self.architecture, self.run) + (f"; licence {self.licence}" if self.licence else "")


def taught_by(architecture: str, run: str) -> str:
    """Names a teacher for people: "ResNet-50-B of run 0123456789abcdef", or published weights."""
    return f"{architecture} of run {run}" if run else architecture


def hire(
    recipe: Recipe,
    classes: tuple[str, ...],
    train: Batches,
    hardware: Hardware,
    most: int | None = None,
    on_alive: Callable[[], None] = lambda: None,
) -> Teacher | None:
    """Returns the teacher that a recipe names for the seed of `train`; None where it names none.

    Raises:
        UserError: if there is no such model, or it knows other classes.
    """
    source = teacher_source(recipe, train.seed)
    return None if source is None else Teacher(source.load(), classes, train, hardware, most, on_alive)


def check_teacher(recipe: Recipe, index: ImageIndex, val: IntArray, seed: int) -> TeacherReport | None:
    """Returns what is known of a recipe's teacher; None where it has none.

    Args:
        recipe: which names it.
        index: the student's data.
        val: indices of the images that the student is validated on, of which the teacher should have seen none.
        seed: the student's.

    Raises:
        UserError: if there is no such model, it knows other classes, or it was trained on images of `val`.
    """
    source = teacher_source(recipe, seed)
    if source is None:
        return None
    digest, network, classes = source.digest(), source.config, source.classes
    try:
        _places(classes, index.classes, more=source.knows_more)
    except ValueError as error:
        raise UserError(f"distillation.teacher = {source}: {error}") from error
    for size in [] if network.is_resnet else recipe.sizes:
        try:
            cost(network, len(classes), size)
        except (ValueError, RuntimeError, AssertionError) as error:
            raise UserError(
                f"distillation.teacher = {source}: takes no images of {size} pixels ({first_line(error)[:120]})"
            ) from error
    return TeacherReport(source.run, network.name, digest, source.licence, source.leak(index, val, seed))


def teacher_digest(recipe: Recipe, seed: int) -> str:
    """Returns the hash of the teacher's weights and config; "" where there is none.

    Raises:
        UserError: if there is no such model.
    """
    source = teacher_source(recipe, seed)
    return "" if source is None else source.digest()


def teacher_network(recipe: Recipe, seed: int) -> ModelConfig | None:
    """Returns which network the teacher is; None where a recipe names none.

    Raises:
        UserError: if there is no such model.
    """
    source = teacher_source(recipe, seed)
    return None if source is None else source.config


def _places(theirs: tuple[str, ...], ours: tuple[str, ...], *, more: bool = False) -> list[int]:
    """Returns where each of our classes stands among theirs.

    Args:
        theirs: the teacher's.
        ours: the student's.
        more: whether the teacher may know others besides.

    Raises:
        ValueError: if they are not the same.
    """
    if lacking := [name for name in ours if name not in set(theirs)]:
        raise ValueError(f"does not know {len(lacking)} of the {len(ours)} classes, such as '{lacking[0]}'")
    if len(theirs) > len(ours) and not more:
        other = next(name for name in theirs if name not in set(ours))
        raise ValueError(f"knows {len(theirs)} classes, not {len(ours)}, such as '{other}'")
    place = {name: i for i, name in enumerate(theirs)}
    return [place[name] for name in ours]
