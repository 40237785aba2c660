"""An exported file against the model it was made from: logits, guesses, accuracy, time.

Shapes: N images, K classes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from bagoftricks.errors import RunError
from bagoftricks.models.network import Network
from bagoftricks.serving.classifier import Classifier
from bagoftricks.serving.export_images import Samples
from bagoftricks.serving.export_onnx import Run
from bagoftricks.training.calibration import softmax

TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2}
"""Largest difference of logits that is accepted, as a share of the range of the model's logits."""
AGREEMENT = {"int8": 0.95}
"""Share of equal guesses below which a file comes with a warning."""
LEAST_AGREEMENT = {"int8": 0.5}
"""Share of equal guesses below which a file is refused."""
PROBABILITY = 1e-4
"""Largest difference between the file's probabilities and those that follow from its logits."""
SIZES = (1, 32)
"""Images at once, where time is measured."""
MOST_RUNS, LEAST_RUNS, SECONDS = 20, 3, 4.0
"""Of each measurement: fewer than the most where the seconds are over."""


@dataclass(frozen=True)
class Check:
    """How far an exported file is from its model."""

    images: int
    about: str
    """Which images."""
    difference: float
    """Largest difference of two logits, of all images and classes."""
    relative: float
    """The same as a share of the range of the model's logits."""
    agreement: float
    """Share of images for which both guess the same class, in [0, 1]."""
    labelled: int
    """Images whose class is known."""
    top1_model: float | None
    """Share of these that the model gets right; None where there are none."""
    top1_exported: float | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def refusal(self, dtype: str) -> str:
        """Returns why the file must not be used; "" where nothing speaks against it."""
        if dtype in TOLERANCE and not self.relative <= TOLERANCE[dtype]:
            return (
                f"logits differ by up to {self.relative:.1e} of their range, and {TOLERANCE[dtype]:g} is accepted at "
                f"{dtype}"
            )
        if self.agreement < LEAST_AGREEMENT.get(dtype, 0.0):
            least = LEAST_AGREEMENT[dtype]
            return f"{self.agreement:.1%} of guesses are the model's, and {least:.0%} is the least accepted at {dtype}"
        return ""

    def warning(self, dtype: str) -> str:
        """Returns what must be known about the file; "" where there is nothing."""
        wanted = AGREEMENT.get(dtype, 0.0)
        if self.agreement >= wanted:
            return ""
        return (
            f"only {self.agreement:.1%} of guesses are the model's, below {wanted:.0%}: look at the accuracy before "
            f"you use it; more or other images to calibrate with may help, or --dtype fp16"
        )


@torch.inference_mode()
def compare(network: Network, exported: Run, samples: Samples, temperature: float) -> Check:
    """Runs both over the images: one image first, then 32 at a time, as the batch dimension must allow.

    Args:
        network: as it was saved, batch-norms not folded, on the CPU.
        exported: the file, opened.
        samples: the images.
        temperature: of the model's probabilities.

    Raises:
        RunError: if no image can be read, or the file's outputs are not finite, have another shape, or its
            probabilities do not follow from its logits.
    """
    ours, theirs, labels = [], [], []
    for batch in samples.batches(first=1):
        logits_NK, probs_NK = exported(batch.images_NCHW)
        ours.append(network(batch.prepared_NCHW).numpy())
        _check_outputs(logits_NK, probs_NK, ours[-1].shape, temperature)
        theirs.append(logits_NK)
        labels.append(batch.label_N)
    if not ours:
        raise RunError(f"export: none of the {samples.about} could be read, so that nothing can be checked")
    a_NK, b_NK, label_N = np.concatenate(ours), np.concatenate(theirs), np.concatenate(labels)
    known, difference = label_N >= 0, float(np.abs(a_NK - b_NK).max())
    guess_N, other_N = a_NK.argmax(1), b_NK.argmax(1)
    right = [float((g[known] == label_N[known]).mean()) if known.any() else None for g in (guess_N, other_N)]
    return Check(
        images=len(a_NK),
        about=samples.about,
        difference=difference,
        relative=difference / max(float(np.ptp(a_NK)), float(np.finfo(np.float32).tiny)),
        agreement=float((guess_N == other_N).mean()),
        labelled=int(known.sum()),
        top1_model=right[0],
        top1_exported=right[1],
    )


def _check_outputs(
    logits_NK: np.ndarray[Any, Any], probs_NK: np.ndarray[Any, Any], shape: tuple[int, ...], temperature: float
) -> None:
    for name, values in (("logits", logits_NK), ("probabilities", probs_NK)):
        if values.shape != shape:
            raise RunError(f"export: the file's {name} have the shape {values.shape}, the model's {shape}")
        if not np.isfinite(values).all():
            raise RunError(f"export: the file's {name} are not finite; try another --dtype")
    if np.abs(softmax(logits_NK, temperature) - probs_NK).max() > PROBABILITY:
        raise RunError("export: the file's probabilities do not follow from its logits")


@dataclass(frozen=True)
class Latency:
    """Seconds for one batch, medians; the model and the file took turns."""

    batch: int
    model: float
    exported: float
    runs: int
    """Of each."""
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def time_both(classifier: Classifier, exported: Run, samples: Samples) -> list[Latency]:
    """Measures both in float32, on 1 and on 32 prepared images; the model as `tricks predict` runs it."""
    batch = next(iter(samples.batches()))
    found = []
    for size in SIZES:
        places = np.arange(size) % len(batch.images_NCHW)
        prepared_NCHW = batch.prepared_NCHW[places].contiguous(memory_format=torch.channels_last)
        images_NCHW = np.ascontiguousarray(batch.images_NCHW[places])
        steps: tuple[Callable[[], Any], ...] = (
            lambda x=prepared_NCHW: classifier.logits(x, tta="none"),  # type: ignore[misc]
            lambda x=images_NCHW: exported(x),  # type: ignore[misc]
        )
        times: list[list[float]] = [[], []]
        for step in steps:
            step()  # the first is slower
        while len(times[1]) < MOST_RUNS and (len(times[1]) < LEAST_RUNS or sum(map(sum, times)) < SECONDS):
            for step, taken in zip(steps, times, strict=True):
                started = time.perf_counter()
                step()
                taken.append(time.perf_counter() - started)
        medians = [statistics.median(taken) for taken in times]
        found.append(Latency(size, medians[0], medians[1], len(times[0]), classifier.hardware.threads))
    return found
