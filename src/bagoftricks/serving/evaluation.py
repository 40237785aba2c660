"""A saved model on a folder of labelled images, its classes matched to the model's by name.

Shapes: N images, K classes of the model.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from bagoftricks.data import caltech101
from bagoftricks.data.folder import entries, is_image, side_of, subfolders
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.manifest import MANIFESTS, read_manifest
from bagoftricks.data.names import shown
from bagoftricks.data.reading import BadImageError
from bagoftricks.data.soundness import sound
from bagoftricks.data.sources import open_data
from bagoftricks.data.split import split
from bagoftricks.data.untrusted import conform
from bagoftricks.errors import RunError, UserError, unknown
from bagoftricks.files import expanded
from bagoftricks.recipe import Recipe
from bagoftricks.serving.classifier import Classifier
from bagoftricks.store import RECIPE, RESULT, StoredRun
from bagoftricks.training.evaluate import Meter
from bagoftricks.training.hardware import cores

CHOICES = ("all", "train", "val", "test")
MOST_NAMED = 10
"""Classes that a message names."""


@dataclass(frozen=True)
class OnFolder:
    """What a model says of the labelled images of a folder."""

    data: str
    """Name of the data set."""
    side: str
    """all, train, val or test."""
    logits_NK: npt.NDArray[np.float32]
    label_N: npt.NDArray[np.int64]
    """Classes of the model."""
    names: tuple[str, ...]
    """Of the N images, below the data's folder."""
    bad: tuple[tuple[str, str], ...]
    """Name and reason of each image that could not be read, and is not among the N."""
    strangers: dict[str, int]
    """Classes that the model does not know, with the number of their images, which are left out."""
    lacking: tuple[str, ...]
    """Classes of the model that the data lack."""
    own: dict[str, int] | None
    """How many of the N the model's own training had on each side (train, val, test); None where nobody can tell."""

    def measures(self) -> dict[str, float]:
        """Returns loss, top1, top5 (from six classes on), mean_class_acc and macro_f1, as after a training's epoch."""
        meter = Meter(self.logits_NK.shape[1], "cpu")
        logits_NK, label_N = torch.from_numpy(self.logits_NK), torch.from_numpy(self.label_N)
        meter.add(F.cross_entropy(logits_NK, label_N), logits_NK, label_N)
        return meter.measures()


def evaluate_folder(
    model: Classifier,
    data: str | Path,
    *,
    side: str = "all",
    strict: bool = False,
    tta: str | None = None,
    batch_size: int = 64,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> OnFolder:
    """Runs a model over the labelled images of a folder.

    Args:
        model: from `load_model`.
        data: a folder of class folders, or of train, val and test with class folders each; a manifest; or "digits".
        side: "all", or the images on one side: the folder's own, or those of the model's training if these are the data
            that it was trained on.
        strict: refuse data whose class names are not exactly the model's.
        tta: "none" or "flip"; the model's own way by default.
        batch_size: images at once through the network.
        on_image: called with the number of images done, and of all.

    Raises:
        UserError: if there are no such data or sides, or no class in common with the model.
        RunError: if no image can be read.
    """
    if side not in CHOICES:
        raise unknown("--side", side, CHOICES)
    index = open_labelled(data)
    place_K, lacking = matched_classes(index, model.classes, strict=strict)
    own = training_sides(model.folder, data, index)
    chosen = on_side(index, own, side)
    label_N = place_K[index.labels[chosen]]
    left = Counter(index.classes[k] for k in index.labels[chosen[label_N < 0]].tolist())
    chosen, label_N = chosen[label_N >= 0], label_N[label_N >= 0]
    if not len(chosen):
        raise UserError(f"data {shown(index.name)}: no image on side '{side}' is of a class that the model knows")

    def read(i: int) -> npt.NDArray[np.uint8]:
        return index.read(i, model.short_side)

    logits, good, bad = [], [], []
    outcomes = model.logits_each(chosen.tolist(), read, batch_size=batch_size, tta=tta)
    for n, outcome in enumerate(outcomes):
        if isinstance(outcome, BadImageError):
            bad.append((index.names[chosen[n]], outcome.reason))
        else:
            logits.append(outcome)
            good.append(n)
        on_image(n + 1, len(chosen))
    if not good:
        raise RunError(f"data {shown(index.name)}: none of {len(chosen):,} images could be read; {bad[0][1]}")
    names = tuple(index.names[i] for i in chosen[good])
    counts = None if own is None else dict(Counter(own[name] for name in names if name in own))
    return OnFolder(
        index.name,
        side,
        np.stack(logits),
        label_N[good],
        names,
        tuple(bad),
        dict(sorted(left.items())),
        lacking,
        counts,
    )


def matched_classes(
    index: ImageIndex, classes: Sequence[str], *, strict: bool
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Returns the model's number for each class of the data, -1 for one it does not know; and what the data lack.

    Raises:
        UserError: if they have no class in common, or `strict` and the classes are not the same.
    """
    place_K = np.array(_places(index.classes, classes), dtype=np.int64)
    strangers = [name for name, k in zip(index.classes, place_K, strict=True) if k < 0]
    lacking = tuple(name for k, name in enumerate(classes) if k not in set(place_K.tolist()))
    if len(strangers) == len(index.classes):
        raise UserError(
            f"data {shown(index.name)}: none of its classes ({listed(index.classes)}) is one of the model's "
            f"({listed(classes)}); folders of classes must be named as in training"
        )
    if strict and (strangers or lacking):
        raise UserError(
            f"data {shown(index.name)}: its classes are not the model's (only in the data: {listed(strangers)}; only "
            f"in the model: {listed(lacking)}); rename the folders, or leave --strict away"
        )
    return place_K, lacking


def listed(names: Sequence[str]) -> str:
    """Returns the first names, escaped, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return (", ".join(f"'{shown(name)}'" for name in names[:MOST_NAMED]) or "none") + more


def open_labelled(data: str | Path) -> ImageIndex:
    """Returns the index of labelled images. They need not be fit for training: one class, or one image, will do.

    Raises:
        UserError: if there are no such data, or no images in class folders.
    """
    root = expanded(data)
    if data != "digits" and root.suffix.lower() in MANIFESTS:
        return read_manifest(root, trainable=False)
    if data in ("digits", "") or caltech101.find(root):
        return open_data(data)
    place = shown(str(root))
    if not root.is_dir():
        raise UserError(f"data folder {place}: no such folder")
    top = subfolders(root)
    sided = [(side, folder) for folder in top if (side := side_of(folder.name))]
    # as in training; or nothing but sides, such as a test set alone
    divided = {"train"} < {side for side, _ in sided} or (len(sided) == len(top) and any(map(subfolders, top)))
    rows = [
        ((folder / entry.name).relative_to(root).as_posix(), folder.name, side)
        for side, parent in (sided if divided else [("pool", root)])
        for folder in subfolders(parent)
        for entry in entries(folder)
        if is_image(entry)
    ]
    if not rows:
        raise UserError(f"data folder {place}: no images in class folders; they belong in {shown(root.name)}/<class>/*")
    names, classes, given = zip(*rows, strict=True)
    number = {name: k for k, name in enumerate(sorted(set(classes)))}
    return ImageIndex(
        name=root.resolve().name,
        classes=tuple(number),
        labels=np.array([number[name] for name in classes], dtype=np.int64),
        names=names,
        given=given if divided else None,
        root=root.resolve(),
    )


def _places(folder: Sequence[str], model: Sequence[str]) -> list[int]:
    """Returns the model's number for each class of a folder, -1 where it has none.

    Names are compared in Unicode's composed form: a copy by way of macOS has the same letters in other bytes.
    """
    exact = {name: k for k, name in enumerate(model)}
    composed = {unicodedata.normalize("NFC", name): k for k, name in enumerate(model)}
    if len(composed) < len(exact):  # two classes of the model differ in nothing else
        composed = {}
    return [exact.get(name, composed.get(unicodedata.normalize("NFC", name), -1)) for name in folder]


def training_sides(folder: Path, data: str | Path, index: ImageIndex) -> dict[str, str] | None:
    """Returns on which side the model's own training had each image: train, val or test, by the image's name.

    None where the model was trained on other data, or its run's record is not beside it. Data are the same if their
    fingerprint is: every name, label and byte.
    """
    if not ((folder / RESULT).is_file() and (folder / RECIPE).is_file()):
        return None
    try:
        shape = {"seed": int, "data": {"fingerprint": str, "given_test_images": int, "images": int}}
        result = conform(StoredRun(folder).result, shape)
        seen, left = result["data"], result["data"].get("left_out") or {"images": 0}
        images = seen["images"] + seen["given_test_images"]
        if not images <= len(index) <= images + left["images"]:  # before anything is hashed
            return None
        same, _ = sound(open_data(data), workers=cores(), allow=1.0)
        if same.fingerprint != seen["fingerprint"]:
            return None
        sides = split(same, Recipe.load(folder / RECIPE).split, result["seed"])
    except (UserError, RunError, ValueError, KeyError, TypeError):  # not fit for training, or a record of another kind
        return None
    return {
        same.names[i]: side
        for side, members in (("train", sides.train), ("val", sides.val), ("test", sides.test))
        for i in members.tolist()
    }


def on_side(index: ImageIndex, own: dict[str, str] | None, side: str) -> npt.NDArray[np.int64]:
    """Returns the indices of the images on a side: of the model's own training if known, or else the folder's.

    Raises:
        UserError: if there are no sides, or there is nothing on this one.
    """
    if side == "all":
        return np.arange(len(index))
    if own is not None:
        chosen = np.array([own.get(name) == side for name in index.names])
    elif index.given is not None:
        chosen = np.array([given == side or (given, side) == ("pool", "train") for given in index.given])
    else:
        raise UserError(
            f"--side {side}: {shown(index.name)} has no folders train, val and test, and is not what the model was "
            "trained on; leave --side away"
        )
    if not chosen.any():
        raise UserError(f"--side {side}: {shown(index.name)} has no images on that side")
    return np.flatnonzero(chosen)
