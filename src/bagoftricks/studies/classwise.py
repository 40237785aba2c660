"""What predictions say class by class, and how far their probabilities can be trusted.

Shapes: N images, K classes, B bins of confidence. Logits are before the softmax; labels are 0 to K - 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bagoftricks.training.calibration import BINS, fit_temperature, softmax

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOLDS = 5


def nll(logits_NK: npt.NDArray[Any], label_N: Ints, temperature: float = 1.0) -> float:
    """Returns the mean negative log-likelihood (cross-entropy, in nats) of logits divided by a temperature."""
    z_NK = np.asarray(logits_NK, dtype=np.float64) / temperature
    z_NK = z_NK - z_NK.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(z_NK).sum(axis=1)) - z_NK[np.arange(len(z_NK)), label_N]))


def brier(p_NK: Floats, label_N: Ints) -> float:
    """Returns the mean squared distance of probabilities from the truth, summed over classes: 0 (best) to 2.

    Source: Brier 1950, in its original form for several classes.
    """
    true_N = p_NK[np.arange(len(p_NK)), label_N]
    return float(np.mean((p_NK**2).sum(axis=1) - 2 * true_N + 1))


def confusion(label_N: Ints, guess_N: Ints, num_classes: int) -> Ints:
    """Returns (K, K) counts: images of the row's class that were taken for the column's."""
    flat = np.bincount(label_N * num_classes + guess_N, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


@dataclass(frozen=True)
class PerClass:
    """Figures of each class, (K,) each; 0 where there is nothing to divide by."""

    precision: Floats
    recall: Floats
    """Also called the class's accuracy."""
    f1: Floats
    support: Ints
    """Images of the class."""

    def macro(self) -> tuple[float, float, float]:
        """Returns precision, recall and F1, each the mean over the classes that have images."""
        seen = self.support > 0
        return tuple(float(values[seen].mean()) for values in (self.precision, self.recall, self.f1))  # type: ignore[return-value]


def per_class(counts_KK: Ints) -> PerClass:
    """Returns precision, recall, F1 and support of a confusion matrix; as scikit-learn's with `zero_division=0`."""
    right, support, guessed = np.diag(counts_KK), counts_KK.sum(axis=1), counts_KK.sum(axis=0)

    def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
        quotient: Floats = np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
        return quotient

    return PerClass(ratio(right, guessed), ratio(right, support), ratio(2 * right, support + guessed), support)


@dataclass(frozen=True)
class Pair:
    """Two classes that are taken for each other."""

    first: int
    second: int
    """Class labels; `first` is the one that loses more images to the other."""
    first_for_second: int
    """Images of `first` that were taken for `second`."""
    second_for_first: int
    share: float
    """Of the two classes' images, those taken for the other: 0 to 1."""

    @property
    def total(self) -> int:
        return self.first_for_second + self.second_for_first


def confused_pairs(counts_KK: Ints, most: int | None = None) -> list[Pair]:
    """Returns the unordered pairs of classes with confusions, most confusions first, equal ones by their share."""
    support = counts_KK.sum(axis=1)
    both_KK = counts_KK + counts_KK.T
    pairs = []
    for a, b in np.argwhere(np.triu(both_KK, k=1)).tolist():
        first, second = (a, b) if counts_KK[a, b] >= counts_KK[b, a] else (b, a)
        there, back = int(counts_KK[first, second]), int(counts_KK[second, first])
        pairs.append(Pair(first, second, there, back, (there + back) / int(support[a] + support[b])))
    return sorted(pairs, key=lambda pair: (-pair.total, -pair.share, pair.first, pair.second))[:most]


@dataclass(frozen=True)
class Bins:
    """Guesses sorted by their confidence into bins, (B,) each."""

    low: Floats
    high: Floats
    """Edges: a bin holds confidences above `low` up to `high`."""
    count: Ints
    confidence: Floats
    """Mean of the bin; NaN where it is empty."""
    accuracy: Floats
    """Share of right guesses; NaN where the bin is empty."""

    @property
    def error(self) -> float:
        """The expected calibration error: the mean |accuracy - confidence| over images, 0 to 1."""
        filled = self.count > 0
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float(np.average(gaps, weights=self.count[filled]))


def reliability(confidence_N: Floats, right_N: npt.NDArray[np.bool_], bins: int = BINS) -> Bins:
    """Returns bins of equal width in confidence, as in Guo et al. 2017, arXiv:1706.04599."""
    edges = np.linspace(0, 1, bins + 1)
    place_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    return _binned(confidence_N, right_N, place_N, edges[:-1], edges[1:])


def equal_mass(confidence_N: Floats, right_N: npt.NDArray[np.bool_], bins: int = BINS) -> Bins:
    """Returns bins that hold equally many images, for the adaptive calibration error (Nguyen and O'Connor 2015)."""
    count, bins = len(confidence_N), min(bins, len(confidence_N))
    order = np.argsort(confidence_N, kind="stable")
    place_N = np.empty(count, dtype=np.int64)
    place_N[order] = np.arange(count) * bins // count
    last = -(-np.arange(1, bins) * count // bins) - 1
    edges = np.concatenate([[0.0], confidence_N[order][last], [1.0]])
    return _binned(confidence_N, right_N, place_N, edges[:-1], edges[1:])


def _binned(confidence_N: Floats, right_N: npt.NDArray[np.bool_], place_N: Ints, low: Floats, high: Floats) -> Bins:
    count = np.bincount(place_N, minlength=len(low)).astype(np.int64)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place_N, confidence_N, len(low)) / count
        accuracy = np.bincount(place_N, right_N.astype(np.float64), len(low)) / count
    return Bins(low, high, count, confidence, accuracy)


def chance_error(confidence_N: Floats, bins: int = BINS, draws: int = 200) -> float:
    """Returns the calibration error that probabilities which are exactly right show on so few images, on average.

    The error is a mean of absolute values, so chance alone keeps it above 0. The outcomes are drawn from the given
    confidences; the same at every call.
    """
    place_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    right_DN = np.random.default_rng(0).random((draws, len(confidence_N))) < confidence_N
    gap_DN = right_DN - confidence_N
    sums_DB = np.stack([gap_DN[:, place_N == b].sum(axis=1) for b in range(bins)], axis=1)
    return float(np.abs(sums_DB).sum(axis=1).mean() / len(confidence_N))


def cross_fitted(logits_NK: npt.NDArray[Any], label_N: Ints, folds: int = FOLDS) -> Floats:
    """Returns (N,) a temperature for each image that was fitted on other images.

    Images are dealt into folds at random, the same at every call; each fold takes the temperature of the others, 1
    where every guess of the others is right, which tells no temperature.
    Figures after scaling with it are of images that the temperature has not seen.

    Raises:
        ValueError: for fewer images than folds.
    """
    if len(label_N) < folds:
        raise ValueError(f"{len(label_N)} images cannot be dealt into {folds} folds")
    fold_N = np.random.default_rng(0).permutation(len(label_N)) % folds
    t_N, wrong_N = np.ones(len(label_N)), logits_NK.argmax(axis=1) != label_N
    for fold in range(folds):
        if wrong_N[others_N := fold_N != fold].any():
            t_N[~others_N] = fit_temperature(logits_NK[others_N], label_N[others_N])
    return t_N


@dataclass(frozen=True)
class Calibration:
    """How far one run's probabilities can be trusted, before and after temperature scaling."""

    temperature: float
    """Fitted on all images; the figures after scaling are cross-fitted."""
    before: Mapping[str, float]
    after: Mapping[str, float]
    """nll, brier, ece (equal width), ace (equal mass), chance (the ece that exact probabilities would show)."""
    confidence_N: Floats
    scaled_N: Floats
    """Probability of each guess, before and after scaling."""
    right_N: npt.NDArray[np.bool_]


def calibration(logits_NK: npt.NDArray[Any], label_N: Ints) -> Calibration:
    """Returns one run's calibration; temperature scaling leaves every guess as it is.

    Raises:
        ValueError: for fewer than five images.
    """
    t_N1 = cross_fitted(logits_NK, label_N)[:, None]
    scaled_NK = np.asarray(logits_NK, dtype=np.float64) / t_N1
    right_N = logits_NK.argmax(axis=1) == label_N

    def figures(z_NK: npt.NDArray[Any]) -> tuple[dict[str, float], Floats]:
        p_NK = softmax(z_NK)
        confidence_N: Floats = p_NK.max(axis=1)
        return {
            "nll": nll(z_NK, label_N),
            "brier": brier(p_NK, label_N),
            "ece": reliability(confidence_N, right_N).error,
            "ace": equal_mass(confidence_N, right_N).error,
            "chance": chance_error(confidence_N),
        }, confidence_N

    (before, confidence_N), (after, scaled_N) = figures(logits_NK), figures(scaled_NK)
    return Calibration(fit_temperature(logits_NK, label_N), before, after, confidence_N, scaled_N, right_N)


def seriation(counts_KK: Ints) -> Ints:
    """Returns (K,) the classes in an order that puts those next to each other that are taken for each other.

    Average linkage over the symmetric share of confusions, with optimal leaf ordering (Bar-Joseph et al. 2001).
    """
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    if len(counts_KK) < 3:
        return np.arange(len(counts_KK))
    share_KK = counts_KK / np.maximum(1, counts_KK.sum(axis=1, keepdims=True))
    near_KK = share_KK + share_KK.T
    np.fill_diagonal(near_KK, 0)
    far_KK = 1 - near_KK / max(near_KK.max(), 1e-12)
    np.fill_diagonal(far_KK, 0)
    flat = squareform(far_KK, checks=False)
    order: Ints = leaves_list(optimal_leaf_ordering(linkage(flat, "average"), flat)).astype(np.int64)
    return order
