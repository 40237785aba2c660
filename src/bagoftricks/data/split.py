"""Splits: each class by itself, by seed, every class on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bagoftricks.data.index import ImageIndex, IntArray
from bagoftricks.errors import UserError
from bagoftricks.rng import stream


@dataclass(frozen=True)
class SplitConfig:
    """How images are divided into training and validation."""

    val_fraction: float = 0.2
    """Share of each class held out for validation, between 0 and 1; ignored where the data brings its own split."""

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise UserError(f"split.val_fraction = {self.val_fraction}: must be between 0 and 1, both excluded")


@dataclass(frozen=True)
class Split:
    """Indices of the images on each side, ascending."""

    train: IntArray
    val: IntArray


def split(index: ImageIndex, config: SplitConfig, seed: int) -> Split:
    """Divides an index, deterministically by seed; a split that the data set brings is kept for every seed.

    Each class draws from a stream of its own name, so that adding a class moves no other. It gives round(n * fraction)
    images to validation, at least one, and keeps at least one for training.
    """
    if index.given is not None:
        sides = np.array(index.given)
        return Split(np.flatnonzero(sides == "train"), np.flatnonzero(sides == "val"))
    train, val = [], []
    for label, name in enumerate(index.classes):
        members = np.flatnonzero(index.labels == label)
        held_out = min(max(1, round(len(members) * config.val_fraction)), len(members) - 1)
        shuffled = stream(seed, f"split/{name}").permutation(members)
        val.append(shuffled[:held_out])
        train.append(shuffled[held_out:])
    return Split(np.sort(np.concatenate(train)), np.sort(np.concatenate(val)))
