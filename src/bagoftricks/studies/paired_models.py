"""Two trained models on one validation set: McNemar's test, a paired bootstrap, and the images on which they differ.

This says which of two *models* is better on images of this kind; not which of two recipes is, for another seed gives
another model (`effects` answers that). Differences are the second model's minus the first's.

Shapes: N images, K classes, B bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bagoftricks.errors import UserError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DRAWS = 10_000
CHUNK = 2_000_000
"""Draws times images that are held at a time."""
TOP5_CLASSES = 6
"""Least number of classes for which Top-5 says anything, as in training."""
LEVEL = 0.95
FEW = 10
"""Deciding images below which a percentile interval covers too rarely (64 % for 95 % at three on average)."""


@dataclass(frozen=True)
class McNemar:
    """The test of whether two models are right equally often, on the images that only one of them has right."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float
    """Exact, two-sided: binomial over the discordant images."""
    mid_p: float
    """With half the probability of what was observed: less cautious, and close to its level."""


def mcnemar(first: npt.ArrayLike, second: npt.ArrayLike) -> McNemar:
    """Returns McNemar's exact test and its mid-p variant.

    Source: McNemar 1947, Psychometrika 12; Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13.

    Args:
        first: (N,) whether the first model is right.
        second: (N,) whether the second is, on the same images.
    """
    from scipy import stats

    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    least, discordant = min(only_first, only_second), only_first + only_second
    tail = 2 * float(stats.binom.cdf(least, discordant, 0.5))
    mid_p = tail - float(stats.binom.pmf(least, discordant, 0.5))
    return McNemar(int((a & b).sum()), only_first, only_second, int((~a & ~b).sum()), min(1.0, tail), min(1.0, mid_p))


@dataclass(frozen=True)
class Difference:
    """One metric of both models, and their difference with a percentile interval."""

    metric: str
    """top1, top5 (from six classes on), mean_class_acc, macro_f1 or loss."""
    first: float
    second: float
    difference: float
    """Second minus first: of a loss, below 0 is better."""
    low: float
    high: float
    deciding: int | None
    """Of Top-1 and Top-5, the images that one model alone has right; below `FEW` the interval is too narrow."""


@dataclass(frozen=True)
class Disagreement:
    """An image that the models guess differently."""

    place: int
    """In the arrays."""
    label: int
    guesses: tuple[int, int]
    probabilities: tuple[float, float]
    """Of each guess."""
    true_probabilities: tuple[float, float]
    """Of the true class, by each model."""


@dataclass(frozen=True)
class Comparison:
    """What two models say of the same images."""

    images: int
    mcnemar: McNemar
    differences: tuple[Difference, ...]
    draws: int
    level: float
    disagreements: tuple[Disagreement, ...]
    """Those first where the probability of the true class differs most."""

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold, without the images."""
        return {name: value for name, value in asdict(self).items() if name != "disagreements"}


def check_pair(first: Mapping[str, npt.NDArray[Any]], second: Mapping[str, npt.NDArray[Any]]) -> IntArray:
    """Returns where each image of the first run stands in the second: they must hold out the same ones.

    Args:
        first: `logits` (N, K), `labels` (N) and `members` (N) of a run.
        second: those of the other.

    Raises:
        UserError: if arrays are missing or do not fit, classes, images or labels differ.
    """
    for which, arrays in (("first", first), ("second", second)):
        if lacking := {"logits", "labels", "members"} - set(arrays):
            raise UserError(f"the {which} run's predictions lack {', '.join(sorted(lacking))}; train it again")
        shapes = [np.shape(arrays[name]) for name in ("logits", "labels", "members")]
        if len(shapes[0]) != 2 or shapes[1:] != [shapes[0][:1]] * 2 or not shapes[0][0]:
            raise UserError(f"the {which} run's predictions are damaged (shapes {shapes}); train it again")
        if not np.isfinite(arrays["logits"]).all():
            raise UserError(f"the {which} run's predictions hold numbers that are not finite; nothing to compare")
        if not 0 <= arrays["labels"].min() <= arrays["labels"].max() < shapes[0][1]:
            raise UserError(f"the {which} run's predictions hold labels that are no class; train it again")
    classes = first["logits"].shape[1], second["logits"].shape[1]
    if classes[0] != classes[1]:
        raise UserError(f"the runs know {classes[0]} and {classes[1]} classes: not the same data, nothing to compare")
    a, b = first["members"], second["members"]
    shared, in_first, in_second = np.intersect1d(a, b, return_indices=True)
    if not len(shared) == len(a) == len(b):
        raise UserError(
            f"the validation sets differ: {len(a):,} and {len(b):,} images, of which {len(shared):,} are the same; "
            "compare runs of one seed and one split"
        )
    place = np.empty(len(a), dtype=np.int64)
    place[in_first] = in_second
    if wrong := int((first["labels"] != second["labels"][place]).sum()):
        raise UserError(f"{wrong:,} of {len(a):,} images have another label in the second run: not the same data")
    return place


def compare(
    first_logits: npt.ArrayLike,
    second_logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Returns how two models differ on the same images.

    Args:
        first_logits: (N, K) of the first model.
        second_logits: (N, K) of the second.
        labels: (N,) true classes, 0 to K - 1.
        draws: of the bootstrap.
        seed: of its draws.
    """
    label_N = np.asarray(labels, dtype=np.int64)
    models = [_Model.read(logits, label_N) for logits in (first_logits, second_logits)]
    differences = bootstrap(models[0], models[1], label_N, draws=draws, seed=seed)
    test = mcnemar(*(model.right for model in models))
    return Comparison(len(label_N), test, differences, draws, LEVEL, _disagreements(models, label_N))


@dataclass(frozen=True)
class _Model:
    """One model's answers, an entry for each image."""

    classes: int
    guess: IntArray
    right: npt.NDArray[np.bool_]
    in_top5: npt.NDArray[np.bool_]
    loss: FloatArray
    p_guess: FloatArray
    p_true: FloatArray

    @classmethod
    def read(cls, logits: npt.ArrayLike, label_N: IntArray) -> _Model:
        logits_NK = np.asarray(logits, dtype=np.float64)
        shifted = logits_NK - logits_NK.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        rows, guess = np.arange(len(label_N)), logits_NK.argmax(axis=1)
        true = logits_NK[rows, label_N][:, None]
        earlier = np.arange(logits_NK.shape[1]) < label_N[:, None]
        rank = ((logits_NK > true) | ((logits_NK == true) & earlier)).sum(axis=1)  # of equals the first, as in argmax
        return cls(
            logits_NK.shape[1], guess, guess == label_N, rank < 5,
            -log_p[rows, label_N], np.exp(log_p[rows, guess]), np.exp(log_p[rows, label_N]),
        )  # fmt: skip


def bootstrap(
    first: _Model, second: _Model, label_N: IntArray, *, draws: int, seed: int, level: float = LEVEL
) -> tuple[Difference, ...]:
    """Returns every metric's difference with its percentile interval: images are drawn, the same ones for both models.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. Metrics averaged over classes
    are of the classes that were drawn, as in training of those seen.
    """
    n = len(label_N)
    metrics = [_metrics(model, label_N) for model in (first, second)]
    whole = np.ones((1, n), dtype=np.int64)
    values = [{name: float(measure(whole)[0]) for name, measure in each.items()} for each in metrics]
    rng, drawn = np.random.default_rng(seed), {name: np.empty(draws) for name in metrics[0]}
    for start in range(0, draws, max(1, CHUNK // n)):
        count = min(max(1, CHUNK // n), draws - start)
        chosen = rng.integers(0, n, (count, n)) + np.arange(count)[:, None] * n
        times_BN = np.bincount(chosen.ravel(), minlength=count * n).reshape(count, n)
        for name, into in drawn.items():
            into[start : start + count] = metrics[1][name](times_BN) - metrics[0][name](times_BN)
    deciding = {"top1": first.right != second.right, "top5": first.in_top5 != second.in_top5}
    tail = (1 - level) / 2
    found = []
    for name, values_B in drawn.items():
        low, high = map(float, np.quantile(values_B, [tail, 1 - tail]))
        one, other = values[0][name], values[1][name]
        alone = int(deciding[name].sum()) if name in deciding else None
        found.append(Difference(name, one, other, other - one, low, high, alone))
    return tuple(found)


def _metrics(model: _Model, label_N: IntArray) -> dict[str, Callable[[IntArray], FloatArray]]:
    """Returns each metric as a function of (B, N), how often each image was drawn, to (B,)."""

    def mean(values_N: npt.NDArray[Any]) -> Callable[[IntArray], FloatArray]:
        return lambda times_BN: np.asarray(times_BN @ values_N.astype(np.float64) / len(values_N))

    def by_class(times_BN: IntArray) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
        images = _sums(times_BN, label_N, model.classes)
        return images, _sums(times_BN * model.right, label_N, model.classes), images > 0

    def mean_class_acc(times_BN: IntArray) -> FloatArray:
        images, right, seen = by_class(times_BN)
        return np.asarray((right / np.maximum(images, 1)).sum(axis=1) / seen.sum(axis=1))

    def macro_f1(times_BN: IntArray) -> FloatArray:
        images, right, seen = by_class(times_BN)
        guessed = _sums(times_BN, model.guess, model.classes)
        return np.asarray((2 * right / np.maximum(images + guessed, 1) * seen).sum(axis=1) / seen.sum(axis=1))

    top5 = {"top5": mean(model.in_top5)} if model.classes >= TOP5_CLASSES else {}
    return {
        "top1": mean(model.right), **top5,
        "mean_class_acc": mean_class_acc, "macro_f1": macro_f1, "loss": mean(model.loss),
    }  # fmt: skip


def _sums(times_BN: IntArray, group_N: IntArray, groups: int) -> FloatArray:
    """Returns (B, groups) sums over the images of each group."""
    order = np.argsort(group_N, kind="stable")
    there, starts = np.unique(group_N[order], return_index=True)
    sums = np.zeros((len(times_BN), groups))
    sums[:, there] = np.add.reduceat(times_BN[:, order], starts, axis=1)
    return sums


def _disagreements(models: list[_Model], label_N: IntArray) -> tuple[Disagreement, ...]:
    first, second = models
    differ = np.flatnonzero(first.guess != second.guess)
    gap = np.abs(first.p_true - second.p_true)[differ]
    return tuple(
        Disagreement(
            int(i), int(label_N[i]), (int(first.guess[i]), int(second.guess[i])),
            (float(first.p_guess[i]), float(second.p_guess[i])), (float(first.p_true[i]), float(second.p_true[i])),
        )
        for i in differ[np.argsort(-gap, kind="stable")]
    )  # fmt: skip
