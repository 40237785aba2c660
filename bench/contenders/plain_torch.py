"""torchvision's reference recipe: ImageFolder, DataLoader, transforms v2, resnet50, SGD; in fp32, bf16, or tuned.

After pytorch/vision, references/classification/train.py, without its logging: one item() less a step than it has.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from torchvision.models import resnet50

from bench.contenders.common import (
    autocast,
    clock,
    evaluated,
    evaluation_context,
    half,
    loader,
    memory_now,
    move,
    network,
)
from bench.contenders.job import Job


def _model(job: Job) -> nn.Module:
    model = network(job, resnet50(num_classes=job.classes))
    return torch.compile(model) if job.options.get("compile") else model  # type: ignore[return-value]


def train(job: Job) -> dict[str, Any]:
    """Measures training as the reference script trains."""
    began, watch = time.perf_counter(), clock(job)
    batches, model = loader(job, "train"), _model(job).train()
    fused = {"fused": True} if job.options.get("fused") else {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, **fused)
    scaler = torch.amp.GradScaler(job.device, enabled=job.options.get("amp") == "float16")
    criterion = nn.CrossEntropyLoss()
    while True:
        for images, targets in batches:
            x_NCHW, label_N = move(job, images, targets)
            with autocast(job):
                loss = criterion(model(x_NCHW), label_N)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if watch.tick():
                return watch.result(job.batch, began)


def data(job: Job) -> dict[str, Any]:
    """Measures the loader alone, to batches on the device."""
    batches, watch = loader(job, "train"), clock(job)
    while True:
        for images, targets in batches:
            move(job, images, targets)
            if watch.tick():
                return watch.result(job.batch)


@torch.inference_mode()
def evaluate(job: Job) -> dict[str, Any]:
    """Measures a validation loop in inference mode, after one pass that warms up."""
    batches, model = loader(job, job.side), evaluated(job, resnet50(num_classes=job.classes))
    seconds = 0.0
    for _ in range(2):
        began, correct, seen = time.perf_counter(), torch.zeros((), device=job.device), 0
        loss = torch.zeros((), device=job.device)
        for images, targets in batches:
            x_NCHW, label_N = move(job, images, targets)
            with evaluation_context(job):
                logits_NK = model(x_NCHW.to(half(job) or x_NCHW.dtype))
                loss += nn.functional.cross_entropy(logits_NK.float(), label_N, reduction="sum")
            correct += (logits_NK.argmax(1) == label_N).sum()
            seen += len(label_N)
        float(correct), float(loss)  # waits for the device
        seconds = time.perf_counter() - began
    return {"images_per_s": seen / seconds, "seconds": seconds, "images": seen, **memory_now()}
