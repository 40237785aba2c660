"""Hugging Face: its Trainer and its ResNet-50, with bf16 and as many loader workers as serve it best."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from typing import Any

import torch
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

from bench.clock import Clock
from bench.contenders.common import clock, half, image_folder, memory_now, network
from bench.contenders.job import Job


class Ticking(TrainerCallback):
    """Stops the training when the clock has enough."""

    def __init__(self, watch: Clock) -> None:
        self.watch = watch

    def on_step_end(self, args: Any, state: Any, control: Any, **ignored: Any) -> Any:
        if self.watch.tick():
            control.should_training_stop = True
        return control


def _collate(samples: list[Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    images, labels = zip(*samples, strict=True)
    return {"pixel_values": torch.stack(images).to(dtype), "labels": torch.tensor(labels)}


def _trainer(job: Job, callbacks: list[TrainerCallback]) -> Trainer:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = ResNetConfig(num_labels=job.classes)  # ResNet-50 by default, with the stride in the 3x3
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="bench-"),
        per_device_train_batch_size=job.batch,
        per_device_eval_batch_size=job.batch,
        max_steps=1_000_000,
        bf16_full_eval=bool(job.options.get("half")),
        bf16=not job.options.get("half") and job.options.get("amp") == "bfloat16",
        use_cpu=job.device == "cpu",
        optim="adamw_torch_fused",
        dataloader_num_workers=job.workers,
        dataloader_persistent_workers=job.workers > 0,
        dataloader_pin_memory=job.device == "cuda",
        dataloader_drop_last=job.task != "eval",
        remove_unused_columns=False,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    return Trainer(
        model=network(job, ResNetForImageClassification(config)),
        args=arguments,
        data_collator=partial(_collate, dtype=half(job) or torch.float32),  # its full evaluation casts no images
        train_dataset=image_folder(job, "train"),
        eval_dataset=image_folder(job, job.side),
        callbacks=callbacks,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
        compute_metrics=lambda found: {"top1": float((found.predictions == found.label_ids).mean())},
    )


def train(job: Job) -> dict[str, Any]:
    """Measures `Trainer.train`."""
    began, watch = time.perf_counter(), clock(job)
    _trainer(job, [Ticking(watch)]).train()
    return watch.result(job.batch, began)


def data(job: Job) -> dict[str, Any]:
    """Measures the trainer's loader alone, to batches on the device."""
    trainer, watch = _trainer(job, []), clock(job)
    batches = trainer.get_train_dataloader()
    while True:
        for batch in batches:
            trainer._prepare_inputs(batch)
            if watch.tick():
                return watch.result(job.batch)


def evaluate(job: Job) -> dict[str, Any]:
    """Measures `Trainer.evaluate`, after one that warms up."""
    trainer, seconds = _trainer(job, []), 0.0
    for _ in range(2):
        began = time.perf_counter()
        trainer.evaluate()
        seconds = time.perf_counter() - began
    return {"images_per_s": job.images / seconds, "seconds": seconds, "images": job.images, **memory_now()}
