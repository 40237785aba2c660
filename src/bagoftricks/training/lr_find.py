"""The learning-rate finder: raise the rate step by step over a few decades, and see where the loss falls and where it
breaks.

Source: Smith 2017, arXiv:1506.01186, section 3.3; the valley is fastai's idea.
Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from bagoftricks.data.batches import Batches
from bagoftricks.data.index import ImageIndex, IntArray
from bagoftricks.data.soundness import ALLOWED, sound
from bagoftricks.data.sources import open_data
from bagoftricks.errors import RunError, UserError
from bagoftricks.recipe import Recipe
from bagoftricks.training.bag import Bag
from bagoftricks.training.checks import check_fit
from bagoftricks.training.device_memory import device_memory
from bagoftricks.training.fit import Listener
from bagoftricks.training.hardware import Hardware, cores, detect
from bagoftricks.training.step import Stepper
from bagoftricks.training.teacher import hire
from bagoftricks.training.train import Training

WIDTH = 3.0
"""Standard deviation of the window over which losses are averaged, in steps."""
BROKEN = 4.0
"""Multiple of the least loss at which the search ends."""
RECENT = 5
"""Steps whose mean loss is compared for that."""
LEAST_STEPS, MOST_STEPS = 10, 1000
"""Losses without which no rate can be told, and steps beyond which none is told better."""


@dataclass(frozen=True)
class LrCurve:
    """The loss against the learning rate."""

    lrs: list[float]
    """Of each step that was taken, rising, as `optimizer.lr` counts them."""
    losses: list[float]
    smoothed: list[float]
    """Averages of the losses around each step."""
    suggestion: float
    """In the midst of the longest fall of the loss."""
    steepest: float
    """Where the loss falls most steeply: bolder."""
    broke: bool
    """Whether the loss grew until the search was ended: then the highest rates were high enough."""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return vars(self)


def rates(lowest: float, highest: float, steps: int) -> list[float]:
    """Returns learning rates that rise evenly in their logarithm, both ends among them."""
    return [lowest * (highest / lowest) ** (i / (steps - 1)) for i in range(steps)]


def smooth(losses: Sequence[float], width: float = WIDTH) -> list[float]:
    """Returns averages under a Gaussian window around each step, cut off at the ends: unlike running ones, not late."""
    found = []
    for i in range(len(losses)):
        weights = [math.exp(-0.5 * ((j - i) / width) ** 2) for j in range(len(losses))]
        found.append(sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights))
    return found


def steepest(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """Returns the rate at which the loss falls most over the logarithm of the rate."""
    slopes = [(losses[i + 1] - losses[i]) / math.log(lrs[i + 1] / lrs[i]) for i in range(len(lrs) - 1)]
    return lrs[min(range(len(slopes)), key=slopes.__getitem__)]


def valley(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """Returns the rate in the middle of the longest subsequence of ever lower losses, its last part left out.

    From the beginning of that fall to its end, half way in the logarithm: late enough to learn, and before the loss
    is near its least, where a rate is too high for the whole of a training.
    """
    longest, before = [1] * len(losses), [-1] * len(losses)
    for i in range(len(losses)):
        for j in range(i):
            if losses[j] > losses[i] and longest[j] + 1 >= max(2, longest[i]):  # the latest, where several serve
                longest[i], before[i] = longest[j] + 1, j
    last = max(range(len(losses)), key=longest.__getitem__)
    first = last
    while before[first] >= 0:
        first = before[first]
    return math.exp((math.log(lrs[first]) + math.log(lrs[last])) / 2)


def find_lr(
    recipe: Recipe,
    data: str | Path | ImageIndex,
    *,
    seed: int = 0,
    hardware: Hardware | None = None,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
    cache: Path | None = None,
    listener: Listener | None = None,
    allow_corrupt: float = ALLOWED,
) -> LrCurve:
    """Trains for a moment with ever higher rates. Nothing of the network is kept.

    Args:
        recipe: what would be trained: optimiser, initial weights and tricks, but for what changes from epoch to epoch;
            its rate and schedule are not used.
        data: "digits", a folder, or an index.
        seed: of split, initial weights, order and augmentation.
        hardware: where; by default the fastest device found.
        lowest: learning rate of the first step.
        highest: of the last one.
        steps: at most; it ends where the loss has grown to four times its least.
        cache: folder for decoded images; by default one that is removed afterwards.
        listener: told of decoding, adapting, weights and steps.
        allow_corrupt: largest share of images that may be left out because they cannot be used.

    Raises:
        UserError: if recipe and data do not fit together, or the rates do not rise.
        RunError: if the loss breaks before a rate can be told.
    """
    if not 0 < lowest < highest <= 100:
        raise UserError(f"rates from {lowest:g} to {highest:g}: must rise, from above 0 to at most 100")
    if not LEAST_STEPS <= steps <= MOST_STEPS:
        raise UserError(f"steps = {steps}: must be between {LEAST_STEPS} and {MOST_STEPS:,}")
    hardware, listener = hardware or detect(), listener or Listener()
    index, _ = sound(open_data(data), workers=cores(), allow=allow_corrupt)
    check_fit(recipe, index, seed)
    with tempfile.TemporaryDirectory(prefix="bagoftricks-") as name:
        training = Training(recipe, index, seed, hardware, listener, None)
        train, _ = training.prepare(cache or Path(name))
        with device_memory(recipe, "pass a smaller --batch-size, or lower input.size"):
            lrs, losses = _ramp(training, train, rates(lowest, highest, steps), listener.on_step)
    if len(losses) < LEAST_STEPS:
        used = rates(lowest, highest, steps)[len(losses)]
        raise RunError(f"the loss broke after {len(losses)} steps, at a rate of {used:.2g}: begin with a lower one")
    smoothed = smooth(losses)
    end = min(range(len(smoothed)), key=smoothed.__getitem__) + 1  # what comes after the least is on its way up
    fall = slice(0, max(end, 2))
    return LrCurve(
        lrs,
        losses,
        smoothed,
        valley(lrs[fall], smoothed[fall]),
        steepest(lrs[fall], smoothed[fall]),
        len(losses) < steps,
    )


def _ramp(
    training: Training, train: Batches, lrs: list[float], on_step: Callable[[int, int], None]
) -> tuple[list[float], list[float]]:
    """Takes a step with each rate until the loss breaks; returns the rates that were used, and their losses."""
    recipe, index, hardware = training.recipe, training.index, training.hardware
    teacher = hire(recipe, index.classes, train, hardware)
    stepper = Stepper(training.model.train(), recipe, train, index.num_classes, hardware, teacher=teacher)
    scale = stepper.bag.lr(1.0, recipe.batch_size)  # rates are in units of `optimizer.lr`, which tricks may scale
    size = recipe.training_size(recipe.epochs - 1)
    losses: list[float] = []
    least = math.inf
    for done, (lr, batch) in enumerate(zip(lrs, _endless(train, stepper.bag, size), strict=False)):
        loss = float(stepper.take(*batch, done, scale * lr)[0])
        if not math.isfinite(loss) or loss > BROKEN * least:
            break
        losses.append(loss)
        if len(losses) >= RECENT:
            least = min(least, sum(losses[-RECENT:]) / RECENT)
        on_step(done + 1, len(lrs))
    return lrs[: len(losses)], losses


def _endless(train: Batches, bag: Bag, size: int) -> Iterator[tuple[Tensor, Tensor, IntArray]]:
    """Yields images of a size, labels and indices, epoch after epoch."""
    for epoch in count():
        order = bag.order(train.order(epoch), train.labels, epoch)
        batches = train.training(epoch, 0, order, bag.pixels(epoch * train.steps_per_epoch), size)
        for step, (x_NCHW, label_N) in enumerate(batches):
            yield x_NCHW, label_N, order[step * train.batch_size : (step + 1) * train.batch_size]
