"""A saved model, ready to predict: `load_model(folder).predict(images)`.

An image is prepared as evaluation during training prepares it: decoded at 1.5 times the model's size, cut as the model
says, resized and normalised. So logits are those of the run's own `predictions.npz`, to rounding.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bagoftricks.data.batches import crop_and_resize, evaluation_boxes, normalise
from bagoftricks.data.cache import cached_side
from bagoftricks.data.index import Pixels
from bagoftricks.data.reading import BadImageError
from bagoftricks.errors import DeviceMemoryError, RunError, UserError, unknown
from bagoftricks.files import expanded
from bagoftricks.models.folder import load_model as load_network
from bagoftricks.models.inference import for_inference
from bagoftricks.models.network import Network
from bagoftricks.models.saved import TTA, SavedModel, read_config
from bagoftricks.serving.inputs import Image, T, read_ahead, read_image
from bagoftricks.store import kept_model
from bagoftricks.training.calibration import softmax
from bagoftricks.training.hardware import Hardware, detect


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image."""

    labels: tuple[str, ...]
    """Names of the most probable classes, the most probable first; as in the model, not escaped."""
    indices: tuple[int, ...]
    """Their places in `Classifier.classes`."""
    probs: tuple[float, ...]
    """Their probabilities, from 0 to 1; calibrated where the model is."""
    abstained: bool = False
    """Whether the best one is below the threshold that was asked for: the model had better say nothing."""


class Classifier:
    """A network with everything that its predictions need.

    Attributes:
        network: for inference: batch-norms folded, on the device and in the precision of `hardware`.
        classes: names, in the order of the logits.
        inputs: size and crop.
        temperature: what logits are divided by; 1 where none was fitted.
        calibrated: whether one was fitted on held-out images.
        tta: "none" or "flip": how it was measured, and predicts unless told otherwise.
        licence: of the initial weights; "" where it inherited none, "unknown" where nobody said.
        teacher_licence: of the weights that its teacher comes from; "" where it had none, or none is known to bind.
        hardware: where it computes.
        folder: where the model lies.
    """

    def __init__(self, model: Network, saved: SavedModel, hardware: Hardware, folder: Path) -> None:
        self.network = cast(Network, for_inference(model, hardware.dtype)).to(hardware.device)
        self.classes, self.inputs, self.licence = saved.classes, saved.inputs, saved.licence
        self.teacher_licence = saved.teacher_licence
        self.calibrated = saved.temperature is not None
        self.tta = saved.tta
        self.temperature = 1.0 if saved.temperature is None else saved.temperature
        self.hardware, self.folder = hardware, folder

    @property
    def short_side(self) -> int:
        """Short side, in pixels, at which images are decoded: as training does, 1.5 times the size."""
        return cached_side(self.inputs.size)

    def prepare(self, images: Sequence[Pixels]) -> Tensor:
        """Returns x_NCHW for `logits`: float32, channels last, on the device; as evaluation during training makes it.

        Args:
            images: (H, W, 3) RGB uint8 each, of any sizes, at least one; at a short side of `short_side`, as `predict`
                decodes them. A larger one would be resized without smoothing.
        """
        cut, boxes = evaluation_boxes(list(images), self.inputs)
        as_they_are = np.zeros(len(cut), dtype=bool)
        return normalise(crop_and_resize(cut, boxes, as_they_are, self.inputs.size, self.hardware.device))

    @torch.inference_mode()
    def logits(self, x_NCHW: Tensor, *, tta: str | None = None) -> Tensor:
        """Returns float32 logits_NK, before temperature and softmax.

        With "flip" they are the means of the logits of an image and of its mirror image. Logits are averaged, not
        probabilities, so that temperature and softmax follow as they do without: the result is the normalised geometric
        mean of both probabilities. It is a little less sure than the temperature was fitted for.

        Args:
            x_NCHW: from `prepare`.
            tta: "none" or "flip"; the model's own way by default.

        Raises:
            UserError: for another `tta`.
            DeviceMemoryError: if the device has too little memory for so many images.
        """
        tta = self._views(tta)
        x_NCHW = x_NCHW.to(self.hardware.device, self.hardware.dtype)
        try:
            logits_NK: Tensor = self.network(x_NCHW).float()
            if tta == "flip":
                logits_NK = (logits_NK + self.network(x_NCHW.flip(3)).float()) / 2
        except torch.OutOfMemoryError as error:
            advice = f"pass --batch-size {max(1, len(x_NCHW) // 2)}"
            raise DeviceMemoryError(f"out of memory with {len(x_NCHW)} images at once: {advice}") from error
        return logits_NK

    __call__ = logits

    def predict(
        self,
        images: Image | Sequence[Image],
        *,
        top_k: int = 5,
        batch_size: int = 64,
        tta: str | None = None,
        abstain_below: float = 0.0,
    ) -> list[Prediction]:
        """Returns a prediction for each image; of one image, a list of one.

        Args:
            images: paths, (H, W, 3) RGB uint8 arrays or Pillow images; one, or a sequence of any of them.
            top_k: classes of each prediction, from 1; at most all.
            batch_size: images at once through the network.
            tta: see `logits`.
            abstain_below: probability, from 0 to 1, below which a best guess counts as abstained.

        Raises:
            BadImageError: for the first image that cannot be read, a RunError; see `predict_each`.
            UserError: for what is no image, or an argument out of range.
        """
        array = isinstance(images, np.ndarray) and images.ndim != 4
        one = array or isinstance(images, str | Path) or not isinstance(images, Iterable)
        several = [cast(Image, images)] if one else cast(Iterable[Image], images)
        found = []
        for outcome in self.predict_each(
            several, top_k=top_k, batch_size=batch_size, tta=tta, abstain_below=abstain_below
        ):
            if isinstance(outcome, BadImageError):
                raise outcome
            found.append(outcome)
        return found

    def predict_each(
        self,
        images: Iterable[Image],
        *,
        top_k: int = 5,
        batch_size: int = 64,
        tta: str | None = None,
        abstain_below: float = 0.0,
    ) -> Iterator[Prediction | BadImageError]:
        """Returns what yields for each image, in order, its prediction, or why it cannot be read; else as `predict`.

        Images are decoded by threads while the network computes; memory does not grow with their number.
        """
        if top_k < 1:
            raise UserError(f"--top-k {top_k}: must be at least 1")
        if not 0 <= abstain_below <= 1:
            raise UserError(f"--abstain-below {abstain_below:g}: must be a probability, from 0 to 1")

        def read(image: Image) -> Pixels:
            return read_image(image, self.short_side)

        def predicted(outcome: npt.NDArray[np.float32] | BadImageError) -> Prediction | BadImageError:
            return outcome if isinstance(outcome, BadImageError) else self._prediction(outcome, top_k, abstain_below)

        return map(predicted, self.logits_each(images, read, batch_size=batch_size, tta=tta))

    def _prediction(self, logits_K: npt.NDArray[np.float32], top_k: int, abstain_below: float) -> Prediction:
        p_K = softmax(logits_K[None], self.temperature)[0]
        best = np.argsort(-logits_K, kind="stable")[:top_k].tolist()
        probs = tuple(float(p_K[k]) for k in best)
        return Prediction(tuple(self.classes[k] for k in best), tuple(best), probs, probs[0] < abstain_below)

    def logits_each(
        self, items: Iterable[T], read: Callable[[T], Pixels], *, batch_size: int = 64, tta: str | None = None
    ) -> Iterator[npt.NDArray[np.float32] | BadImageError]:
        """Returns what yields for each item, in order, its logits (K,), or why it cannot be read.

        Args:
            items: whatever `read` takes.
            read: returns an item's image at a short side of `short_side`; called in threads, ahead of the network.
            batch_size: images at once through the network, at least 1.
            tta: see `logits`.

        Raises:
            UserError: for an argument out of range, at once.
            RunError: on the way, if logits are not finite, as those of a damaged model.
        """
        if batch_size < 1:
            raise UserError(f"--batch-size {batch_size}: must be at least 1")
        return self._logits_each(items, read, batch_size, self._views(tta))

    def _views(self, tta: str | None) -> str:
        """Returns which views are averaged: those asked for, or the model's own."""
        if tta is not None and tta not in TTA:
            raise unknown("--tta", tta, TTA)
        return tta or self.tta

    def _logits_each(
        self, items: Iterable[T], read: Callable[[T], Pixels], batch_size: int, tta: str
    ) -> Iterator[npt.NDArray[np.float32] | BadImageError]:
        workers = self.hardware.threads
        waiting: list[Pixels | BadImageError] = []
        for pixels in read_ahead(items, read, workers=workers, most=batch_size + 2 * workers):
            waiting.append(pixels)
            if len(waiting) == batch_size:
                yield from self._batch(waiting, tta)
                waiting = []
        yield from self._batch(waiting, tta)

    def _batch(
        self, outcomes: Sequence[Pixels | BadImageError], tta: str
    ) -> Iterator[npt.NDArray[np.float32] | BadImageError]:
        good = [outcome for outcome in outcomes if not isinstance(outcome, BadImageError)]
        logits_NK = self.logits(self.prepare(good), tta=tta).cpu().numpy() if good else np.empty((0, 0), np.float32)
        if not np.isfinite(logits_NK).all():
            raise RunError(f"model {self.folder}: its outputs are not finite; train it again, or try --precision fp32")
        rows = iter(logits_NK)
        for outcome in outcomes:
            yield outcome if isinstance(outcome, BadImageError) else next(rows)


def load_model(
    folder: str | Path, *, device: str = "auto", precision: str = "auto", deterministic: bool = False
) -> Classifier:
    """Returns a saved model, ready to predict.

    Args:
        folder: with `model.safetensors` and `config.json`, as a kept run's; or one of trainings or of a study that kept
            a single model.
        device: auto (the fastest there is), cpu, cuda or mps.
        precision: auto (bf16 where there are units for it), fp32 or bf16.
        deterministic: the same bits each time on a GPU too.

    Raises:
        UserError: if there is no model, several could be meant, it cannot be read, or there is no such device.
    """
    folder = kept_model(expanded(folder))
    saved = read_config(folder)
    hardware = detect(device, precision, deterministic=deterministic, kernels="torch")
    hardware.prepare()
    return Classifier(load_network(folder), saved, hardware, folder)
