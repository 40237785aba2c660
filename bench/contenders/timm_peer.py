"""timm: its loader and its resnet50, with the flags that its train.py and validate.py offer.

After huggingface/pytorch-image-models, train.py (--amp --amp-dtype, --channels-last, --torchcompile, --no-prefetcher).
"""

from __future__ import annotations

import time
from typing import Any

import torch
from timm import create_model
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from torch import nn

from bench.contenders.common import autocast, clock, evaluated, evaluation_context, half, memory_now, network
from bench.contenders.job import CROP_MIN, CROP_PCT, CROP_RATIO, MEAN, STD, Job


def _loader(job: Job, side: str) -> Any:
    training = side == "train"
    augmentation = {
        "scale": (CROP_MIN, 1.0),
        "ratio": (1 / CROP_RATIO, CROP_RATIO),
        "hflip": 0.5,
        "color_jitter": None,
    }
    return create_loader(
        create_dataset("", root=str(job.folder(side)), is_training=training),
        input_size=(3, job.size, job.size),
        batch_size=job.batch,
        is_training=training,
        use_prefetcher=bool(job.options.get("prefetcher")),
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        crop_pct=CROP_PCT,
        num_workers=job.workers,
        pin_memory=job.device == "cuda",
        img_dtype=torch.float32 if training else half(job) or torch.float32,
        device=torch.device(job.device),
        persistent_workers=job.workers > 0,
        **(augmentation if training else {}),
    )


def _model(job: Job) -> Any:
    model = network(job, create_model("resnet50", num_classes=job.classes))
    return torch.compile(model) if job.options.get("compile") else model


def _move(job: Job, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What train_one_epoch does with a batch: a prefetcher has moved it already."""
    if not job.options.get("prefetcher"):
        images, targets = images.to(job.device), targets.to(job.device)
    if job.options.get("channels_last"):
        images = images.contiguous(memory_format=torch.channels_last)
    return images, targets


def train(job: Job) -> dict[str, Any]:
    """Measures training as train.py trains."""
    began, watch = time.perf_counter(), clock(job)
    batches, model = _loader(job, "train"), _model(job).train()
    optimizer = create_optimizer_v2(model, "sgd", lr=0.01, momentum=0.9, weight_decay=2e-5)
    criterion = nn.CrossEntropyLoss()
    while True:
        for images, targets in batches:
            x_NCHW, label_N = _move(job, images, targets)
            with autocast(job):
                loss = criterion(model(x_NCHW), label_N)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if watch.tick():
                return watch.result(job.batch, began)


def data(job: Job) -> dict[str, Any]:
    """Measures the loader alone, to batches on the device."""
    batches, watch = _loader(job, "train"), clock(job)
    while True:
        for images, targets in batches:
            _move(job, images, targets)
            if watch.tick():
                return watch.result(job.batch)


@torch.inference_mode()
def evaluate(job: Job) -> dict[str, Any]:
    """Measures evaluation as validate.py does it, after one pass that warms up."""
    from timm.utils import AverageMeter, accuracy

    batches, criterion = _loader(job, job.side), nn.CrossEntropyLoss()
    model = evaluated(job, create_model("resnet50", num_classes=job.classes))
    seconds, seen = 0.0, 0
    for _ in range(2):
        began, top1, losses = time.perf_counter(), AverageMeter(), AverageMeter()
        for images, targets in batches:
            x_NCHW, label_N = _move(job, images, targets)
            with evaluation_context(job):
                logits_NK = model(x_NCHW.to(half(job) or x_NCHW.dtype))
                loss = criterion(logits_NK, label_N)
            losses.update(loss.item(), len(label_N))
            top1.update(accuracy(logits_NK.detach(), label_N, topk=(1,))[0].item(), len(label_N))
        seconds, seen = time.perf_counter() - began, top1.count
    return {"images_per_s": seen / seconds, "seconds": seconds, "images": seen, **memory_now()}


def accuracy(job: Job) -> dict[str, Any]:
    """Fine-tunes with train.py's defaults until the target; see `bench.time_to_accuracy`."""
    from bench.contenders.timm_finetune import finetune

    return finetune(job)
