"""The training loop, in one reading: set the rate, get a batch, take a step (`training.step`), measure, keep.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bagoftricks.data.batches import Batches
from bagoftricks.errors import RunError
from bagoftricks.models.network import Network
from bagoftricks.optim import lr_factor
from bagoftricks.recipe import Recipe
from bagoftricks.training.checkpoint import Checkpoints, State
from bagoftricks.training.evaluate import Evaluation, Meter, evaluate
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.step import Stepper
from bagoftricks.training.teacher import Teacher

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
    on_teacher: Callable[[str, str], None] = lambda summary, warning: None
    """With whom the network learns from, and a warning or ""."""
    on_adapt: Callable[[int, int], None] = lambda done, total: None
    """With the batches done and their total, while initial weights are adapted; (0, 0) about each second, while another
    process does so."""
    on_resume: Callable[[int, int], None] = lambda step, total: None
    """With the steps done and the total, where a checkpoint is continued."""
    on_step: Callable[[int, int], None] = lambda step, total: None
    """With the steps done and the total."""
    on_alive: Callable[[], None] = lambda: None
    """Now and then while nothing else is to be told: after each batch of an evaluation."""
    on_epoch: Callable[[Row], None] = lambda row: None
    """With each epoch's measures."""


def fit(
    model: Network,
    train: Batches,
    val: Batches,
    recipe: Recipe,
    num_classes: int,
    hardware: Hardware,
    listener: Listener,
    *,
    micro_batch: int | None = None,
    checkpoints: Checkpoints | None = None,
    teacher: Teacher | None = None,
) -> Evaluation:
    """Trains `model` in place and returns its evaluation after the last epoch.

    Where a trick keeps an average of the weights, that is what is evaluated, and what `model` holds in the end.

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
        micro_batch: images that go through the network at once, their gradients added up; None is the whole batch.
            Batch-norm sees this many, so that results differ.
        checkpoints: where to continue from, and to write to.
        teacher: the network that a trick learns from, where one does.

    Raises:
        RunError: at a loss that is not finite, naming the epoch and the step.
        StorageError: if a checkpoint cannot be written.
    """
    began = time.perf_counter()
    steps = train.steps_per_epoch
    total = steps * recipe.epochs
    stepper = Stepper(model, recipe, train, num_classes, hardware, micro_batch=micro_batch, teacher=teacher)
    bag, optimizer = stepper.bag, stepper.optimizer
    base_lr = bag.lr(recipe.optimizer.lr, recipe.batch_size)
    evaluation: Evaluation | None = None
    state = checkpoints.load() if checkpoints else None
    rows: list[Row] = list(state.rows) if state else []
    if state:
        model.load_state_dict(state.model)
        optimizer.load_state_dict(dict(state.optimizer))
        bag.load_state_dict(state.tricks)
        for row in rows:
            listener.on_epoch(row)
        listener.on_resume(state.epoch * steps + state.step, total)

    def keep(epoch: int, step: int, meter: Meter, losses: Tensor, seconds: float) -> None:
        assert checkpoints is not None
        whole = checkpoints.spent_s + time.perf_counter() - began
        weights, moments = model.state_dict(), optimizer.state_dict()
        sums, beside = meter.state_dict(), bag.state_dict()
        checkpoints.save(State(epoch, step, weights, moments, sums, losses, rows, seconds, whole, beside))

    model.train()
    for epoch in range(state.epoch if state else 0, recipe.epochs):
        meter = Meter(num_classes, hardware.device)
        losses = torch.zeros(steps, device=hardware.device)
        first, started = 0, time.perf_counter()
        if state:  # the first epoch of a continued run, which it may be in the midst of
            first, started = state.step, started - state.seconds
            meter.load_state_dict(state.meter)
            losses.copy_(state.losses)
            state = None
        bag.freeze(model, epoch)
        order = bag.order(train.order(epoch), train.labels, epoch)
        batches = train.training(epoch, first, order, bag.pixels(epoch * steps), recipe.training_size(epoch))
        for step, (x_NCHW, label_N) in enumerate(batches, first):
            done = epoch * steps + step
            lr = base_lr * lr_factor(recipe.schedule, done, total, steps)
            members_N = order[step * train.batch_size : (step + 1) * train.batch_size]
            loss, logits_NK, y_NK = stepper.take(x_NCHW, label_N, members_N, done, lr)
            meter.add(loss, logits_NK, y_NK.argmax(1))
            losses[step] = loss
            _check_finite(losses, epoch, step, steps, hardware)
            listener.on_step(done + 1, total)
            if checkpoints and step + 1 < steps and checkpoints.due() and bool(losses.isfinite().all()):
                keep(epoch, step + 1, meter, losses, time.perf_counter() - started)
        if hardware.device == "cuda":
            torch.cuda.synchronize()
        trained = time.perf_counter()
        evaluation = evaluate(
            bag.evaluated(model), val, num_classes, hardware, listener.on_alive, bag.tricks.values(), micro_batch
        )
        if not math.isfinite(evaluation.measures["loss"]):
            raise RunError(
                f"the validation loss became {evaluation.measures['loss']} after epoch {epoch + 1}: {ADVICE}"
            )
        row = {"epoch": epoch + 1, "lr": lr}
        row |= {f"train_{name}": value for name, value in meter.measures().items()}
        row |= {f"eval_{name}": value for name, value in evaluation.measures.items()}
        row["images_per_s"] = steps * train.batch_size / (trained - started)
        row["train_s"], row["eval_s"] = trained - started, time.perf_counter() - trained
        rows.append(row)
        listener.on_epoch(row)
        if bag.stops([row["eval_loss"] for row in rows]):
            break
        if checkpoints and epoch + 1 < recipe.epochs:
            fresh = Meter(num_classes, hardware.device)
            keep(epoch + 1, 0, fresh, torch.zeros_like(losses), 0.0)
    if checkpoints:
        checkpoints.wait()
    model.requires_grad_(True)  # which a trick may have taken
    if (evaluated := bag.evaluated(model)) is not model:
        model.load_state_dict(evaluated.state_dict())
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
