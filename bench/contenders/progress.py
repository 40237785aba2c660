"""Seconds and images to a target accuracy, evaluations apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.contenders.job import Job


@dataclass
class Progress:
    """One training on its way to a target; the clock starts with it."""

    job: Job
    images: int
    """Images trained on in an epoch."""
    now: Callable[[], float] = time.perf_counter
    rows: list[dict[str, float]] = field(default_factory=list)
    evaluated: float = 0.0
    """Seconds spent evaluating."""

    def __post_init__(self) -> None:
        self.began = self.now()

    @property
    def trained(self) -> float:
        """Seconds of training and data so far."""
        return self.now() - self.began - self.evaluated

    def leave_out(self, seconds: float) -> None:
        """Counts seconds as evaluation."""
        self.evaluated += seconds

    def epoch(self, top1: float) -> bool:
        """Notes the end of an epoch, evaluated; returns whether to stop."""
        seen = self.images * (len(self.rows) + 1)
        self.rows.append({"train_s": self.trained, "eval_s": self.evaluated, "images": float(seen), "top1": top1})
        return top1 >= float(self.job.options["target"]) or self.is_late()

    def is_late(self) -> bool:
        """Whether the job's seconds are used up, evaluations counted."""
        return self.now() - self.began >= self.job.seconds

    def result(self) -> dict[str, Any]:
        """Returns whether and when the target was met, and every epoch."""
        target = float(self.job.options["target"])
        hit = next((row for row in self.rows if row["top1"] >= target), None)
        return {
            "reached": hit is not None,
            "train_s": hit["train_s"] if hit else self.trained,
            "eval_s": hit["eval_s"] if hit else self.evaluated,
            "images": hit["images"] if hit else float(self.images * len(self.rows)),
            "epochs": (self.rows.index(hit) + 1) if hit else len(self.rows),
            "best_top1": max((row["top1"] for row in self.rows), default=0.0),
            "out_of_time": hit is None and self.is_late(),
            "rows": self.rows,
        }
