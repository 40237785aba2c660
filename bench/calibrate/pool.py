"""Pools of real results: cheap classifiers on scikit-learn's digits, re-split by the package itself for every seed.

Two pools. `splits`: (N, 8) accuracies of N splits of all 1,797 digits, whose mean is what a study of this data set
estimates. `sets`: (D, K, 4) accuracies of K splits of each of D data sets of 200 digits, drawn from the 1,797, whose
grand mean is what a claim about new data is about.

Classifiers are fitted by ridge regression, in milliseconds. For `splits` on a hidden layer of random weights, so that a
result hangs on the split and on the initialisation, as a training's does; a seed gives both, and all cells share them.
For `sets` on the pixels themselves: without luck of its own a classifier shows the overlap of splits at its strongest.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bagoftricks.data.digits import read_digits
from bagoftricks.data.index import ImageIndex, subset
from bagoftricks.data.split import SplitConfig, split
from bagoftricks.files import replacing
from bagoftricks.rng import stream
from bench.calibrate.designs import FloatArray, factorial

SPLITS = 1_000
SETS, SPLITS_EACH, SET_SIZE = 2_000, 20, 200
HIDDEN = 64
PENALTIES = (0.1, 10.0)
IntArray = npt.NDArray[np.int64]
SPLIT = SplitConfig(duplicates="ignore")
"""8:2 within each class. Digits have no copies worth a hash of every small set."""

DESIGN = factorial(3)
"""Of `splits`: a is pixels' square roots, b copies shifted by one pixel, c the strong penalty; level 0 goes without."""
SETS_DESIGN = factorial(2)
"""Of `sets`: a is pixels' square roots, b the strong penalty."""


@dataclass(frozen=True)
class Pool:
    """Accuracies in [0, 1]."""

    splits: FloatArray
    """(N, 8) one row a split of all digits; columns as in `DESIGN`."""
    sets: FloatArray
    """(D, K, 4) K splits of each of D data sets; columns as in `SETS_DESIGN`."""


def load_pool(path: Path | None, splits: int = SPLITS, sets: int = SETS) -> Pool:
    """Returns the pool of a file, or computes it, in about two minutes, and writes it there."""
    made_of = [splits, sets, SPLITS_EACH, SET_SIZE, HIDDEN]
    if path is not None and path.exists():
        with np.load(path) as kept:
            if kept["made_of"].tolist() == made_of:
                return Pool(kept["splits"], kept["sets"])
    pool = make_pool(splits, sets)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, splits=pool.splits, sets=pool.sets, made_of=np.array(made_of))
    return pool


def make_pool(splits: int, sets: int) -> Pool:
    """Computes both pools; seeds count up from 0."""
    digits = read_digits()
    whole = []
    for seed in range(splits):
        _progress("splits of the digits", seed, splits)
        whole.append(_with_hidden_layer(digits, seed))
    parts = []
    for number in range(sets):
        _progress(f"data sets of {SET_SIZE} digits", number, sets)
        chosen = stream(number, "set").choice(len(digits), SET_SIZE, replace=False)
        drawn = subset(digits, np.sort(chosen).tolist())
        parts.append([_on_pixels(drawn, number * SPLITS_EACH + k) for k in range(SPLITS_EACH)])
    return Pool(np.array(whole), np.array(parts))


def _progress(what: str, at: int, of: int) -> None:
    if at % max(1, of // 5) == 0:
        print(f"pool: {what}, {at:,} of {of:,}", file=sys.stderr, flush=True)


def _with_hidden_layer(digits: ImageIndex, seed: int) -> list[float]:
    """Returns the accuracies of the eight cells in one block: one split, one set of random weights."""
    sides, grey = split(digits, SPLIT, seed), _grey(digits)
    rng = stream(seed, "init")
    weights, bias = rng.standard_normal((grey[0].size, HIDDEN)) / 4, rng.standard_normal(HIDDEN) / 4

    def hidden(images: FloatArray) -> FloatArray:
        return np.maximum(images.reshape(len(images), -1) @ weights + bias, 0.0)

    found = []
    for root, shifts in product((False, True), repeat=2):
        images = np.sqrt(grey) if root else grey
        train, labels = images[sides.train], digits.labels[sides.train]
        if shifts:
            train, labels = _shifted(train), np.tile(labels, 5)
        found += _ridge(hidden(train), labels, hidden(images[sides.val]), digits.labels[sides.val])
    return found


def _on_pixels(digits: ImageIndex, seed: int) -> list[float]:
    """Returns the accuracies of the four cells in one split."""
    sides, grey = split(digits, SPLIT, seed), _grey(digits).reshape(len(digits), -1)
    train, val = digits.labels[sides.train], digits.labels[sides.val]
    return [
        accuracy
        for images in (grey, np.sqrt(grey))
        for accuracy in _ridge(images[sides.train], train, images[sides.val], val)
    ]


def _grey(digits: ImageIndex) -> FloatArray:
    """Returns (n, 8, 8) pixels from 0 to 1."""
    assert digits.pixels is not None
    return digits.pixels[..., 0] / 255.0


def _ridge(inside: FloatArray, labels: IntArray, outside: FloatArray, truth: IntArray) -> list[float]:
    """Returns the accuracy on (m, F) features, fitted on (n, F) ones, with each penalty."""
    inside, outside = (np.concatenate([x, np.ones((len(x), 1))], axis=1) for x in (inside, outside))
    gram, target = inside.T @ inside, inside.T @ np.eye(10)[labels]
    fits = (np.linalg.solve(gram + penalty * np.eye(len(gram)), target) for penalty in PENALTIES)
    return [float(np.mean((outside @ fit).argmax(axis=1) == truth)) for fit in fits]


def _shifted(images: FloatArray) -> FloatArray:
    """Returns (5 n, 8, 8) the images and their copies shifted by one pixel each way."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    moves = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return np.concatenate([padded[:, y : y + images.shape[1], x : x + images.shape[2]] for y, x in moves])
