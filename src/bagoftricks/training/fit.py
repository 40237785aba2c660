"""The training loop, in one reading: set the rate, get a batch, apply the tricks, forward, backward, step, measure.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from bagoftricks.data.batches import Batches
from bagoftricks.errors import RunError
from bagoftricks.optim import lr_factor
from bagoftricks.recipe import Recipe
from bagoftricks.rng import stream
from bagoftricks.training.evaluate import Evaluation, Meter, evaluate
from bagoftricks.training.hardware import Hardware

ADVICE = "lower optimizer.lr, or add warm-up (schedule.warmup_epochs)"
Row = dict[str, float]
"""One epoch's measures, under timm's names: epoch, lr, train_loss, train_top1, ..., eval_loss, eval_top1, ..."""


@dataclass(frozen=True)
class Listener:
    """What is called while a training is under way; nothing by default."""

    on_image: Callable[[int], None] = lambda done: None
    """With the number of images decoded so far, while the cache is built."""
    on_weights: Callable[[str, str], None] = lambda summary, warning: None
    """With what became of the initial weights, and a warning or ""."""
    on_step: Callable[[int, int], None] = lambda step, total: None
    """With the steps done and the total."""
    on_epoch: Callable[[Row], None] = lambda row: None
    """With each epoch's measures."""


def fit(
    model: nn.Module,
    train: Batches,
    val: Batches,
    recipe: Recipe,
    num_classes: int,
    hardware: Hardware,
    listener: Listener,
) -> Evaluation:
    """Trains `model` in place and returns its evaluation after the last epoch.

    Training measures are running ones, over the augmented images while the weights move; with mixup an image counts
    under the class that has the larger share of it.

    Args:
        model: on the device, in channels-last layout.
        train: training side of the split.
        val: validation side.
        recipe: what to do.
        num_classes: K.
        hardware: where.
        listener: told of each step and each epoch.

    Raises:
        RunError: at a loss that is not finite, naming the epoch and the step.
    """
    steps, tricks, seed = train.steps_per_epoch, recipe.tricks, train.seed
    total = steps * recipe.epochs
    optimizer = recipe.optimizer.build(model.parameters())
    evaluation: Evaluation | None = None
    model.train()
    for epoch in range(recipe.epochs):
        started = time.perf_counter()
        meter = Meter(num_classes, hardware.device)
        losses = torch.zeros(steps, device=hardware.device)
        for step, (x_NCHW, label_N) in enumerate(train.training(epoch)):
            done = epoch * steps + step
            for group in optimizer.param_groups:
                group["lr"] = recipe.optimizer.lr * lr_factor(recipe.schedule, done, total, steps)
            y_NK = F.one_hot(label_N, num_classes).float()
            for name, trick in tricks.items():
                x_NCHW, y_NK = trick.on_batch(x_NCHW, y_NK, stream(seed, name, done))
            with hardware.autocast():
                logits_NK = model(x_NCHW)
            logits_NK = logits_NK.float()
            loss = F.cross_entropy(logits_NK, y_NK)
            for trick in tricks.values():
                loss = trick.on_loss(loss, logits_NK, x_NCHW, y_NK)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            meter.add(loss, logits_NK, y_NK.argmax(1))
            losses[step] = loss.detach()
            _check_finite(losses, epoch, step, steps, hardware)
            listener.on_step(done + 1, total)
        if hardware.device == "cuda":
            torch.cuda.synchronize()
        trained = time.perf_counter()
        evaluation = evaluate(model, val, num_classes, hardware)
        if not math.isfinite(evaluation.measures["loss"]):
            raise RunError(
                f"the validation loss became {evaluation.measures['loss']} after epoch {epoch + 1}: {ADVICE}"
            )
        row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        row |= {f"train_{name}": value for name, value in meter.measures().items()}
        row |= {f"eval_{name}": value for name, value in evaluation.measures.items()}
        row["images_per_s"] = steps * train.batch_size / (trained - started)
        row["train_s"], row["eval_s"] = trained - started, time.perf_counter() - trained
        listener.on_epoch(row)
    assert evaluation is not None
    return evaluation


def _check_finite(losses: torch.Tensor, epoch: int, step: int, steps: int, hardware: Hardware) -> None:
    """Looks at the losses of the epoch so far: at each step on a CPU, at the epoch's end where a GPU would wait."""
    if hardware.device == "cpu":
        bad = None if math.isfinite(losses[step].item()) else step
    elif step + 1 < steps:
        return
    else:
        wrong = (~losses.isfinite()).nonzero()
        bad = int(wrong[0]) if len(wrong) else None
    if bad is not None:
        raise RunError(
            f"the loss became {losses[bad].item()} in epoch {epoch + 1}, step {bad + 1} of {steps}: {ADVICE}"
        )
