"""Lightning: its Trainer around torchvision's resnet50, in bf16-mixed, with nothing that logs or saves."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from bench.clock import Clock
from bench.contenders.common import clock, half, loader, memory_now, network
from bench.contenders.job import Job


class Module(lightning.LightningModule):
    """The usual classifier."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.model = network(job, resnet50(num_classes=job.classes))
        self.layout = torch.channels_last if job.options.get("channels_last") else torch.contiguous_format

    def training_step(self, batch: Any, index: int) -> Tensor:
        images, targets = batch
        return nn.functional.cross_entropy(self.model(images.contiguous(memory_format=self.layout)), targets)

    def validation_step(self, batch: Any, index: int) -> None:
        images, targets = batch
        logits_NK = self.model(images.contiguous(memory_format=self.layout))
        self.log("loss", nn.functional.cross_entropy(logits_NK, targets), on_epoch=True)
        self.log("top1", (logits_NK.argmax(1) == targets).float().mean(), on_epoch=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)


class Ticking(lightning.Callback):
    """Stops the training when the clock has enough."""

    def __init__(self, watch: Clock) -> None:
        self.watch = watch

    def on_train_batch_end(self, trainer: Any, *ignored: Any) -> None:
        if self.watch.tick():
            trainer.should_stop = True


def _trainer(job: Job, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    precision = {"bfloat16": "bf16-mixed", "float16": "16-mixed", "": "32-true"}[job.options.get("amp", "")]
    if half(job):
        precision = "bf16-true"
    return lightning.Trainer(
        accelerator="cuda" if job.device == "cuda" else job.device,
        devices=1,
        precision=precision,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=callbacks,
    )


def train(job: Job) -> dict[str, Any]:
    """Measures `Trainer.fit`."""
    began, watch = time.perf_counter(), clock(job)
    _trainer(job, [Ticking(watch)]).fit(Module(job), loader(job, "train"))
    return watch.result(job.batch, began)


def evaluate(job: Job) -> dict[str, Any]:
    """Measures `Trainer.validate`, after one that warms up."""
    trainer, module, batches, seconds = _trainer(job, []), Module(job), loader(job, job.side), 0.0
    for _ in range(2):
        began = time.perf_counter()
        trainer.validate(module, batches, verbose=False)
        seconds = time.perf_counter() - began
    return {"images_per_s": job.images / seconds, "seconds": seconds, "images": job.images, **memory_now()}
