"""What the contenders share: the clock, mixed precision, torchvision's transforms and readers.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, v2

from bench.clock import Clock
from bench.contenders.job import CROP_MIN, CROP_PCT, CROP_RATIO, MEAN, STD, WARM_SECONDS, Job
from bench.machine import settle
from bench.usage import memory


def clock(job: Job) -> Clock:
    """Returns the clock of one job."""
    return Clock(
        job.warm_steps,
        job.steps,
        job.seconds,
        partial(settle, job.device),
        look=memory_now,
        least=job.warmup,
        patience=WARM_SECONDS,
    )


def autocast(job: Job) -> AbstractContextManager[Any]:
    """Mixed precision as the job's flag `amp` says: a dtype, or "" for none."""
    amp = job.options.get("amp", "")
    return torch.autocast(job.device, getattr(torch, amp)) if amp else nullcontext()


def training_transform(size: int) -> v2.Compose:
    """Random resized crop and flip, as torchvision's reference presets do them, at the strength that all share."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                size,
                scale=(CROP_MIN, 1.0),
                ratio=(1 / CROP_RATIO, CROP_RATIO),
                interpolation=InterpolationMode.BILINEAR,
                antialias=True,
            ),
            v2.RandomHorizontalFlip(0.5),
            *_finish(),
        ]
    )


def evaluation_transform(size: int) -> v2.Compose:
    """Short side to size / 0.875, then a centre crop."""
    return v2.Compose([v2.Resize(round(size / CROP_PCT), antialias=True), v2.CenterCrop(size), *_finish()])


def _finish() -> list[v2.Transform]:
    return [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


def image_folder(job: Job, side: str) -> ImageFolder:
    """Returns torchvision's reader of one side."""
    transform = training_transform(job.size) if side == "train" else evaluation_transform(job.size)
    return ImageFolder(str(job.folder(side)), transform, allow_empty=True)  # a small side may lack a class


def loader(job: Job, side: str, collate: Any = None) -> torch.utils.data.DataLoader[Any]:
    """Returns PyTorch's loader of one side, with the job's workers, kept alive from epoch to epoch."""
    workers = job.workers
    return torch.utils.data.DataLoader(
        image_folder(job, side),
        batch_size=job.batch,
        shuffle=side == "train",
        drop_last=side == "train",
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=job.device == "cuda",
        collate_fn=collate,
    )


def network(job: Job, model: nn.Module) -> nn.Module:
    """Returns the model on the device, in the layout that the job's flags ask for."""
    model = model.to(job.device)
    return model.to(memory_format=torch.channels_last) if job.options.get("channels_last") else model


def half(job: Job) -> torch.dtype | None:
    """Returns the dtype of a model wholly in half precision, where the flags ask for one."""
    return getattr(torch, job.options["amp"]) if job.options.get("half") and job.options.get("amp") else None


def evaluated(job: Job, model: nn.Module) -> nn.Module:
    """Returns a network for evaluation: compiled, wholly in half precision, as the job's flags ask."""
    model = network(job, model).eval().to(half(job) or torch.float32)
    return torch.compile(model) if job.options.get("compile") else model  # type: ignore[return-value]


def evaluation_context(job: Job) -> AbstractContextManager[Any]:
    """Mixed precision, unless the whole model is in half precision."""
    return nullcontext() if half(job) else autocast(job)


def move(job: Job, x_NCHW: torch.Tensor, label_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a batch on the device, in the job's layout."""
    layout = {"memory_format": torch.channels_last} if job.options.get("channels_last") else {}
    return x_NCHW.to(job.device, non_blocking=True, **layout), label_N.to(job.device, non_blocking=True)


def memory_now() -> dict[str, float]:
    """Returns MB that the process and its workers hold now, and a GPU's peak."""
    found = memory()
    if torch.cuda.is_available():
        found["gpu_peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return found
