"""fastai: ImageDataLoaders and vision_learner, by default or in mixed precision with ChannelsLast."""

from __future__ import annotations

import time
from typing import Any

import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.fp16 import MixedPrecision
from fastai.metrics import accuracy as top1_of
from fastai.vision.all import (
    Callback,
    CancelFitException,
    CancelValidException,
    FlipItem,
    ImageDataLoaders,
    Learner,
    Normalize,
    RandomResizedCrop,
    Resize,
    model_meta,
    resnet50,
    vision_learner,
)

from bench.clock import Clock
from bench.contenders.common import clock, memory_now
from bench.contenders.job import CROP_MIN, CROP_RATIO, MEAN, STD, Job
from bench.contenders.progress import Progress
from bench.contenders.weights import body

EPOCHS = 1000


class Ticking(Callback):
    """Stops the training when the clock has enough; leaves validations out."""

    order = 100

    def __init__(self, watch: Clock) -> None:
        self.watch = watch

    def after_batch(self) -> None:
        if self.training and self.watch.tick():
            raise CancelFitException

    def before_validate(self) -> None:
        raise CancelValidException


class Autocast(Callback):
    """Mixed precision on a CPU. fastai's own callback knows CUDA only; this is the same for any device."""

    order = 10

    def __init__(self, device: str, dtype: str) -> None:
        self.context = torch.autocast(device, getattr(torch, dtype))

    def before_batch(self) -> None:
        self.context.__enter__()

    def after_pred(self) -> None:
        self.learn.pred = self.pred.float()

    def after_loss(self) -> None:
        self.context.__exit__(None, None, None)


def _loaders(job: Job, valid: str) -> ImageDataLoaders:
    return ImageDataLoaders.from_folder(
        job.tree,
        train="train",
        valid=valid,
        item_tfms=[RandomResizedCrop(job.size, min_scale=CROP_MIN, ratio=(1 / CROP_RATIO, CROP_RATIO)), FlipItem(0.5)],
        batch_tfms=[Normalize.from_stats(MEAN, STD)],
        bs=job.batch,
        num_workers=job.workers,
        device=torch.device(job.device),
    )


def _precision(job: Job) -> list[Callback]:
    """Callbacks for what the job's flags ask."""
    amp, found = job.options.get("amp", ""), []
    if job.options.get("channels_last"):
        found.append(ChannelsLast())
    if amp:
        own = MixedPrecision({"bfloat16": "bf16", "float16": "fp16"}[amp]) if job.device == "cuda" else None
        found.append(own or Autocast(job.device, amp))
    return found


def _learner(job: Job, valid: str, callbacks: list[Callback]) -> Learner:
    learner = vision_learner(
        _loaders(job, valid),
        resnet50,
        n_out=job.classes,
        pretrained=False,
        cbs=[*_precision(job), *callbacks],
        metrics=top1_of,
    )
    learner.model.to(job.device)
    return learner


def train(job: Job) -> dict[str, Any]:
    """Measures `fit` of a vision_learner."""
    began, watch = time.perf_counter(), clock(job)
    learner = _learner(job, "eval-small", [Ticking(watch)])
    with learner.no_bar(), learner.no_logging():
        learner.fit(EPOCHS, 1e-3)
    return watch.result(job.batch, began)


def data(job: Job) -> dict[str, Any]:
    """Measures the loader alone, to batches on the device."""
    batches, watch = _loaders(job, "eval-small").train, clock(job)
    while True:
        for _ in batches:
            if watch.tick():
                return watch.result(job.batch)


def evaluate(job: Job) -> dict[str, Any]:
    """Measures `validate`, after one that warms up."""
    learner, seconds = _learner(job, job.side, []), 0.0
    with learner.no_bar(), learner.no_logging():
        for _ in range(2):
            began = time.perf_counter()
            learner.validate()
            seconds = time.perf_counter() - began
    return {"images_per_s": job.images / seconds, "seconds": seconds, "images": job.images, **memory_now()}


class Stopping(Callback):
    """Tells a `Progress` of every epoch's accuracy, evaluations apart, and stops at its word."""

    order = 100  # after the recorder

    def __init__(self, progress: Progress) -> None:
        self.progress, self.done = progress, False

    def after_batch(self) -> None:
        if self.training and (self.done or self.progress.is_late()):
            raise CancelFitException

    def before_validate(self) -> None:
        self.began = time.perf_counter()

    def after_validate(self) -> None:
        self.progress.leave_out(time.perf_counter() - self.began)

    def after_epoch(self) -> None:
        self.done = self.done or self.progress.epoch(float(self.recorder.values[-1][-1]))
        if self.done:  # fine_tune fits twice, and each is cancelled by itself
            raise CancelFitException


def accuracy(job: Job) -> dict[str, Any]:
    """Runs `vision_learner(...).fine_tune(epochs)` as fastai's quick start does, its frozen epoch counted.

    The learner's body takes the given weights where it would take fastai's own choice of pretrained ones.
    """

    def arch(**ignored: Any) -> torch.nn.Module:
        model = resnet50()
        model.load_state_dict(body(job.options["weights"], model), strict=False)
        return model

    model_meta[arch] = model_meta[resnet50]
    progress = Progress(job, int(job.options["train_images"]) // job.batch * job.batch)
    loaders = ImageDataLoaders.from_folder(
        job.tree,
        train="train",
        valid="val",
        item_tfms=Resize(job.size),
        bs=job.batch,
        num_workers=job.workers,
        device=torch.device(job.device),
    )
    callbacks = [*_precision(job), Stopping(progress)]
    learner = vision_learner(loaders, arch, n_out=job.classes, metrics=top1_of, cbs=callbacks)
    learner.model.to(job.device)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(int(job.options["epochs"]))
    return progress.result()
