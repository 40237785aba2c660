"""bagoftricks: the real `train`, timed through the listener that it offers.

Steady state reads from the cache of decoded images, as from the second epoch on; what comes before the first step is
reported as prepare_s, and whether it was cold. Data, step and loop take the training apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bagoftricks.data.batches import Batches
from bagoftricks.data.cache import cached_side, open_images
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.resident import resident
from bagoftricks.data.sources import open_data
from bagoftricks.data.split import split
from bagoftricks.models.build import build
from bagoftricks.optim import OptimizerConfig
from bagoftricks.recipe import Recipe
from bagoftricks.training import evaluate as evaluation
from bagoftricks.training.fit import Listener, fit
from bagoftricks.training.hardware import Hardware, detect
from bagoftricks.training.step import Stepper
from bagoftricks.training.train import train as train_once
from bench.clock import Clock, EnoughError
from bench.contenders.common import clock, memory_now
from bench.contenders.job import Job

EPOCHS = 1000
"""More than any measurement lasts."""


def recipe_of(job: Job) -> Recipe:
    """Returns the default recipe at the job's size and batch."""
    return Recipe().with_fields({"input.size": job.size, "batch_size": job.batch, "epochs": EPOCHS})


def train(job: Job) -> dict[str, Any]:
    """Measures `bagoftricks.train`: everything between image files and updated weights, evaluations left out."""
    recipe, hardware, watch = recipe_of(job), detect(job.device, "auto", job.threads), clock(job)
    decoded: list[float] = []
    waiting, stepping = _Waiting(watch), _Stepping(watch)

    def on_step(done: int, total: int) -> None:
        if watch.tick():
            raise EnoughError

    listener = Listener(
        on_image=lambda done: decoded.append(time.perf_counter()),
        on_step=on_step,
        on_epoch=lambda row: watch.leave_out(row["eval_s"]),
    )
    began = time.perf_counter()
    out = Path(job.work) / "ours"
    with waiting.patched(), stepping.patched(), suppress(EnoughError):
        train_once(recipe, job.data, out=out, hardware=hardware, keep_model=False, listener=listener)
    figures = watch.result(job.batch, began)
    return {
        **figures,
        "precision": hardware.precision,
        "cold": bool(decoded),
        "decode_s": decoded[-1] - decoded[0] if decoded else 0.0,
        "waiting_share": waiting.seconds / figures["seconds"],
        # a GPU works on after a call has returned, so that there its parts cannot be timed so
        **({"outside_share": 1 - stepping.seconds / figures["seconds"]} if hardware.device == "cpu" else {}),
        "cache_file_mb": sum(p.stat().st_size for p in (out / "cache").glob(f"*-{cached_side(job.size)}.u8")) / 1e6,
    }


class _Waiting:
    """Adds up the seconds in which the training waited for its next batch, while the clock runs."""

    def __init__(self, watch: Clock) -> None:
        self.watch, self.seconds = watch, 0.0

    def patched(self) -> Any:
        from unittest.mock import patch

        plain, note = Batches.training, self

        def training(self: Batches, *args: Any, **keywords: Any) -> Iterator[Any]:
            batches = plain(self, *args, **keywords)
            while True:
                began = time.perf_counter()
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                if note.watch.started is not None and note.watch.ended is None:
                    note.seconds += time.perf_counter() - began
                yield batch

        return patch.object(Batches, "training", training)


class _Stepping:
    """Adds up the seconds in the model's step (forward, loss, backward, optimiser), while the clock runs."""

    def __init__(self, watch: Clock) -> None:
        self.watch, self.seconds = watch, 0.0

    @contextmanager
    def patched(self) -> Iterator[None]:
        from unittest.mock import patch

        build = OptimizerConfig.build

        def built(config: OptimizerConfig, parameters: Any) -> torch.optim.Optimizer:
            optimizer = build(config, parameters)
            optimizer.step = self._timed(optimizer.step)  # type: ignore[method-assign]
            return optimizer

        timed = patch.object(Stepper, "gradients", self._timed(Stepper.gradients))
        with timed, patch.object(OptimizerConfig, "build", built):
            yield

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **keywords: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **keywords)
            finally:
                if self.watch.started is not None and self.watch.ended is None:
                    self.seconds += time.perf_counter() - began

        return timed


def _batches(job: Job, hardware: Hardware, members: Any = None) -> tuple[Batches, ImageIndex]:
    """Returns the training batches, or those over `members`, from the cache that `train` builds."""
    recipe, index = recipe_of(job), open_data(job.data)
    hardware.prepare()
    images = open_images(index, job.size, Path(job.work) / "ours" / "cache", workers=hardware.threads)
    images = resident(images, hardware.device)
    if members is None:
        members = split(index, recipe.split, 0).train
    return Batches(images, index.labels, members, recipe.input, job.batch, 0, hardware.device), index


def data(job: Job) -> dict[str, Any]:
    """Measures the data path alone, from the cache."""
    hardware, watch = detect(job.device, "auto", job.threads), clock(job)
    batches, _ = _batches(job, hardware)
    for epoch in range(EPOCHS):
        for _ in batches.training(epoch):
            if watch.tick():
                return watch.result(job.batch)
    raise RuntimeError("the data ended before the measurement")


def evaluate(job: Job) -> dict[str, Any]:
    """Measures `training.evaluate.evaluate`, from the cache, after one pass that warms up."""
    import numpy as np

    hardware = detect(job.device, "auto", job.threads)
    batches, index = _batches(job, hardware, np.asarray(job.members, dtype=np.int64))
    model = build(recipe_of(job).model, index.num_classes).to(job.device, memory_format=torch.channels_last)
    short, _ = _batches(job, hardware, np.asarray(job.members[: 2 * job.batch], dtype=np.int64))
    evaluation.evaluate(model, short, index.num_classes, hardware)
    began = time.perf_counter()
    evaluation.evaluate(model, batches, index.num_classes, hardware)  # its figures are on the CPU when it returns
    seconds = time.perf_counter() - began
    count = len(job.members)
    return {"images_per_s": count / seconds, "seconds": seconds, "images": count, **memory_now()}


def step(job: Job) -> dict[str, Any]:
    """Measures the model's step alone on one batch of noise: forward, loss, backward, optimiser."""
    recipe, hardware, watch = recipe_of(job), detect(job.device, "auto", job.threads), clock(job)
    hardware.prepare()
    model = build(recipe.model, job.classes).to(job.device, memory_format=torch.channels_last).train()
    optimizer = recipe.optimizer.build(model.parameters())
    x_NCHW, label_N = _noise(job)
    y_NK = F.one_hot(label_N, job.classes).float()
    while not watch.tick():
        with hardware.autocast():
            logits_NK = model(x_NCHW)
        loss = F.cross_entropy(logits_NK.float(), y_NK)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return watch.result(job.batch)


def loop(job: Job) -> dict[str, Any]:
    """Measures the real loop, `training.fit.fit`, on one batch of noise: the step and all that is about it but data."""
    recipe, hardware, watch = recipe_of(job), detect(job.device, "auto", job.threads), clock(job)
    hardware.prepare()
    model = build(recipe.model, job.classes).to(job.device, memory_format=torch.channels_last)
    noise, steps = _noise(job), job.warm_steps + job.steps + 1

    def on_step(done: int, total: int) -> None:
        if watch.tick():
            raise EnoughError

    still = _Still.of(noise, steps, recipe, job)
    with suppress(EnoughError):
        fit(model, still, still, recipe, job.classes, hardware, Listener(on_step=on_step))
    return watch.result(job.batch)


@dataclass(frozen=True)
class _Still(Batches):
    """One batch, at every step."""

    noise: tuple[torch.Tensor, ...] = ()

    @classmethod
    def of(cls, noise: tuple[torch.Tensor, torch.Tensor], steps: int, recipe: Recipe, job: Job) -> _Still:
        """Returns an epoch of so many steps."""
        labels = noise[1].cpu().numpy()
        members = np.resize(np.arange(job.batch), steps * job.batch)
        images: Any = ()  # nobody looks at them
        return cls(images, labels, members, recipe.input, job.batch, 0, job.device, noise)

    def training(self, epoch: int, first: int = 0, *unused: Any) -> Iterator[Any]:  # type: ignore[override]
        """Yields as many as an epoch has."""
        return (self.noise for _ in range(first, self.steps_per_epoch))

    def evaluation(self) -> Iterator[Any]:
        """Yields it once."""
        return iter([self.noise])


def _noise(job: Job) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a batch as `Batches` yields it."""
    x_NCHW = torch.randn(job.batch, 3, job.size, job.size, device=job.device)
    return x_NCHW.contiguous(memory_format=torch.channels_last), torch.randint(job.classes, (job.batch,)).to(job.device)


def accuracy(job: Job) -> dict[str, Any]:
    """Trains by the default recipe from the given weights until the target; see `bench.time_to_accuracy`."""
    from bench.contenders.progress import Progress

    fields = {"input.size": job.size, "init": job.options["weights"]}
    if "epochs" in job.options:
        fields["epochs"] = job.options["epochs"]
    recipe = Recipe().with_fields(fields)
    hardware = detect(job.device, "auto", job.threads)
    progress = Progress(job, job.options["train_images"] // recipe.batch_size * recipe.batch_size)

    def on_epoch(row: dict[str, float]) -> None:
        progress.leave_out(row["eval_s"])
        if progress.epoch(row["eval_top1"]):
            raise EnoughError

    listener = Listener(on_step=partial(_stop_late, progress), on_epoch=on_epoch)
    with suppress(EnoughError):
        train_once(recipe, job.data, seed=0, out=None, hardware=hardware, keep_model=False, listener=listener)
    return progress.result()


def _stop_late(progress: Any, done: int, total: int) -> None:
    if progress.is_late():
        raise EnoughError
