"""Images to calibrate and to check an exported file with: of the user's data, or noise where there are none.

Where the data are those of the model's own training, calibration takes images that it was trained on and the check
images that it was not, so that its accuracy means something. A locked test set is never looked at.

Shapes: N images, C channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bagoftricks.data.index import ImageIndex, IntArray, Pixels
from bagoftricks.data.input import MEAN, STD
from bagoftricks.data.reading import BadImageError
from bagoftricks.errors import UserError
from bagoftricks.rng import stream
from bagoftricks.serving.classifier import Classifier
from bagoftricks.serving.evaluation import matched_classes, open_labelled, training_sides
from bagoftricks.serving.inputs import read_ahead

CHECKED, CALIBRATING, NOISE = 256, 256, 64
"""Most images that are checked, most that are calibrated with, and images of noise."""
BATCH_SIZE = 32


@dataclass(frozen=True)
class Batch:
    """Images as the model takes them and as the exported file does."""

    prepared_NCHW: torch.Tensor
    """From `Classifier.prepare`."""
    images_NCHW: npt.NDArray[np.float32]
    """The same, in [0, 1]."""
    label_N: IntArray
    """Classes of the model; -1 where it knows none of that name."""


@dataclass(frozen=True)
class Samples:
    """Images of one purpose; they are decoded anew at each use, so that memory stays flat."""

    classifier: Classifier
    about: str
    """What they are, for people: "validation images of flowers"."""
    labels: IntArray
    """(n,) classes of the model; -1 for unknown ones."""
    read: Callable[[int], Pixels]
    """Returns the image at a place from 0 to n - 1."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def strangers(self) -> int:
        """Images of classes that the model does not know."""
        return int((self.labels < 0).sum())

    def batches(self, first: int = BATCH_SIZE) -> Iterator[Batch]:
        """Yields all images in order, the first batch of another size if asked for; what cannot be read is left out."""
        size, images, labels = first, list[Pixels](), list[int]()
        workers = self.classifier.hardware.threads
        outcomes = read_ahead(range(len(self)), self.read, workers=workers, most=BATCH_SIZE + 2 * workers)
        for place, outcome in enumerate(outcomes):
            if not isinstance(outcome, BadImageError):
                images.append(outcome)
                labels.append(int(self.labels[place]))
            if len(images) == size:
                yield self._batch(images, labels)
                size, images, labels = BATCH_SIZE, [], []
        if images:
            yield self._batch(images, labels)

    def _batch(self, images: Sequence[Pixels], labels: Sequence[int]) -> Batch:
        prepared_NCHW = self.classifier.prepare(images)
        mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (MEAN, STD))
        images_NCHW = (prepared_NCHW * std + mean).contiguous().numpy()
        return Batch(prepared_NCHW, images_NCHW, np.array(labels, dtype=np.int64))


def noise(classifier: Classifier) -> Samples:
    """Returns images of random pixels, the same at each call."""
    side = classifier.inputs.size

    def read(place: int) -> Pixels:
        return stream(0, "export/noise", place).integers(0, 256, (side, side, 3), dtype=np.uint8)

    return Samples(classifier, "images of noise", np.full(NOISE, -1), read)


def draw(
    classifier: Classifier, data: str | Path, seed: int, *, calibrate: bool
) -> tuple[Samples, Samples | None, ImageIndex]:
    """Returns images to check with, images to calibrate with (None if not asked for), and the data that they are of.

    Both are drawn by the seed's streams, up to 256 each. No image is in both, unless the data have but one.

    Args:
        classifier: the model.
        data: a folder of class folders, a manifest, or "digits".
        seed: of the drawing.
        calibrate: whether to set images aside for calibration.

    Raises:
        UserError: if there are no such data, or none of their classes is one of the model's.
    """
    index = open_labelled(data)
    places_K, _ = matched_classes(index, classifier.classes, strict=False)
    own = training_sides(classifier.folder, data, index)
    sides = np.array(index.given or ("pool",) * len(index) if own is None else [own.get(n, "") for n in index.names])
    seen, held = np.flatnonzero(np.isin(sides, ("train", "pool"))), np.flatnonzero(sides == "val")
    if not len(seen) + len(held):
        raise UserError(f"data {index.name}: nothing but a test set, which export leaves alone; name other images")
    seen, held = (stream(seed, f"export/{name}").permutation(part) for name, part in (("seen", seen), ("held", held)))
    if not (len(seen) and len(held)):  # nothing says which are which
        both = np.concatenate([seen, held])
        half = -(-len(both) // 2) if calibrate else len(both)
        held, seen = both[:half], both[half:]
    label_n = places_K[index.labels]

    def samples(members: IntArray, about: str) -> Samples:
        def read(place: int) -> Pixels:
            return index.read(int(members[place]), classifier.short_side)

        return Samples(classifier, f"{about} of {index.name}", label_n[members], read)

    checked = samples(held[:CHECKED], "images" if own is None else "validation images")
    calibrating = samples((seen if len(seen) else held)[:CALIBRATING], "images") if calibrate else None
    return checked, calibrating, index
