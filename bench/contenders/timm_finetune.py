"""timm's train.py, fine-tuning: its defaults for optimiser, schedule, augmentation and smoothing.

SGD with momentum 0.9, weight decay 2e-5, a base rate of 0.1 at batch 256, cosine, label smoothing 0.1, crops from 8 %
of the area, colour jitter 0.4. In its favour: one epoch of warm-up in place of five, in which the rate rises with each
update; bf16, channels last.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from timm import create_model
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

from bench.contenders.common import autocast, network
from bench.contenders.job import Job
from bench.contenders.progress import Progress
from bench.contenders.weights import body


def finetune(job: Job) -> dict[str, Any]:
    """Trains until the target, an epoch limit or the job's seconds."""
    epochs = int(job.options["epochs"])
    progress = Progress(job, int(job.options["train_images"]) // job.batch * job.batch)
    shared = {"input_size": (3, job.size, job.size), "batch_size": job.batch, "num_workers": job.workers}
    shared |= {"use_prefetcher": True, "device": torch.device(job.device), "pin_memory": job.device == "cuda"}
    batches = create_loader(create_dataset("", root=str(job.folder("train"))), is_training=True, **shared)
    held_out = create_loader(create_dataset("", root=str(job.folder("val"))), is_training=False, **shared)

    plain = create_model("resnet50", num_classes=job.classes)
    plain.load_state_dict(body(job.options["weights"], plain), strict=False)
    model = network(job, plain).train()
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1 * job.batch / 256, momentum=0.9, weight_decay=2e-5)
    scheduler, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=epochs, warmup_epochs=min(1, epochs - 1), warmup_lr=1e-5,
        step_on_epochs=False, updates_per_epoch=len(batches),
    )  # fmt: skip
    criterion, updates = LabelSmoothingCrossEntropy(0.1), 0
    for _ in range(epochs):
        for x_NCHW, label_N in batches:
            if job.options.get("channels_last"):
                x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
            with autocast(job):
                loss = criterion(model(x_NCHW), label_N)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            updates += 1
            scheduler.step_update(updates)
            if progress.is_late():
                return progress.result()
        began = time.perf_counter()
        top1 = _top1(job, model, held_out)
        progress.leave_out(time.perf_counter() - began)
        if progress.epoch(top1):
            break
    return progress.result()


@torch.inference_mode()
def _top1(job: Job, model: torch.nn.Module, batches: Any) -> float:
    model.eval()
    correct = seen = 0
    for x_NCHW, label_N in batches:
        with autocast(job):
            guess_N = model(x_NCHW).argmax(1)
        correct += int((guess_N == label_N).sum())
        seen += len(label_N)
    model.train()
    return correct / seen
