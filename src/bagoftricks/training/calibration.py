"""Calibration: probabilities that mean what they say, by one number that divides the logits.

Temperature scaling (Guo et al. 2017, arXiv:1706.04599): p = softmax(logits / T), with the T that makes the labels of
held-out images most likely. It changes no guess, only how sure the model says it is: T above 1 tells that it was too
sure of itself.

Shapes: N images, K classes, B bins of confidence. Logits are before the softmax; labels are 0 to K - 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_T, MOST_T = 0.05, 20.0
"""Where a temperature is looked for."""
BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""


def softmax(logits_NK: npt.NDArray[Any], temperature: float = 1.0) -> Floats:
    """Returns (N, K) probabilities of logits divided by a temperature."""
    z_NK = np.asarray(logits_NK, dtype=np.float64) / temperature
    e_NK = np.exp(z_NK - z_NK.max(axis=1, keepdims=True))
    p_NK: Floats = e_NK / e_NK.sum(axis=1, keepdims=True)
    return p_NK


def fit_temperature(logits_NK: npt.NDArray[Any], labels_N: npt.NDArray[Any]) -> float:
    """Returns the temperature that makes labels most likely, from 0.05 to 20; 1 where all are equally likely by any.

    The mean negative log-likelihood is convex in 1 / T, so that there is one optimum; it is looked for over log T.
    Where every guess is right there is none, and the result is 0.05: so few or so easy images say nothing of how often
    the model will be wrong.

    Args:
        logits_NK: of images that the model was not trained on.
        labels_N: their classes.

    Raises:
        ValueError: for no images, other shapes, or logits that are not finite.
    """
    from scipy.optimize import minimize_scalar

    z_NK, label_N = _checked(logits_NK, labels_N)
    z_NK = z_NK - z_NK.max(axis=1, keepdims=True)
    if not z_NK.any():  # one class, or none preferred
        return 1.0
    true = float(z_NK[np.arange(len(z_NK)), label_N].mean())

    def loss(log_t: float) -> float:
        scale = math.exp(-log_t)
        return float(np.log(np.exp(z_NK * scale).sum(axis=1)).mean()) - true * scale

    bounds = (math.log(LEAST_T), math.log(MOST_T))
    inside = float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5}).x)
    best = min((*bounds, inside), key=loss)  # the search never reaches the bounds
    return min(max(math.exp(best), LEAST_T), MOST_T)


def expected_calibration_error(probs_NK: npt.NDArray[Any], labels_N: npt.NDArray[Any], bins: int = BINS) -> float:
    """Returns the expected calibration error, from 0 (best) to 1: sum over bins of (n_b / N) |accuracy - confidence|.

    Bins are of equal width in the probability of the guess, and hold their upper edge. It is a mean of absolute values,
    so that chance alone keeps it above 0 where images are few.

    Args:
        probs_NK: rows that add up to 1.
        labels_N: true classes.
        bins: B, at least 1.

    Raises:
        ValueError: for no images, other shapes, no bins, or what is no probability.
    """
    p_NK, label_N = _checked(probs_NK, labels_N)
    if bins < 1:
        raise ValueError(f"bins = {bins}: must be at least 1")
    if p_NK.min() < 0 or p_NK.max() > 1 + 1e-6:  # of float32, which adds up to a little more
        raise ValueError("probabilities must be from 0 to 1; are these logits?")
    guess_N, confidence_N = p_NK.argmax(axis=1), p_NK.max(axis=1)
    place_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    gap_B = np.bincount(place_N, (guess_N == label_N) - confidence_N, bins)
    return float(np.abs(gap_B).sum() / len(p_NK))


def _checked(values_NK: npt.NDArray[Any], labels_N: npt.NDArray[Any]) -> tuple[Floats, Ints]:
    """Returns both as float64 and int64, after checking that they belong together."""
    x_NK, label_N = np.asarray(values_NK, dtype=np.float64), np.asarray(labels_N, dtype=np.int64)
    if x_NK.ndim != 2 or label_N.shape != x_NK.shape[:1] or not x_NK.size:
        raise ValueError(f"values of shape {x_NK.shape} for labels of shape {label_N.shape}: must be (N, K) and (N,)")
    if not np.isfinite(x_NK).all():
        raise ValueError("not all values are finite")
    if label_N.min() < 0 or label_N.max() >= x_NK.shape[1]:
        raise ValueError(f"labels must be from 0 to {x_NK.shape[1] - 1}")
    return x_NK, label_N
