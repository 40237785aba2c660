"""Figures of classes and probabilities: against scikit-learn, explicit loops and cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from bagoftricks.studies.classwise import (
    brier,
    calibration,
    chance_error,
    confused_pairs,
    confusion,
    cross_fitted,
    equal_mass,
    nll,
    per_class,
    reliability,
    seriation,
)
from bagoftricks.training.calibration import BINS, LEAST_T, MOST_T, fit_temperature, softmax


def draw(n: int, classes: int = 5, scale: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, times `scale`, of a model whose probabilities were exactly right before."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, classes))
    labels = (softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return (scale * logits).astype(np.float32), labels.astype(np.int64)


@pytest.fixture(scope="module")
def guesses() -> tuple[np.ndarray, np.ndarray]:
    """Of nine classes: one is never guessed, one has no image, one neither."""
    rng = np.random.default_rng(1)
    labels, guessed = rng.integers(0, 7, 300), rng.integers(1, 8, 300)
    return labels, np.where(rng.random(300) < 0.5, np.maximum(labels, 1), guessed)


def test_confusion_and_figures_agree_with_scikit_learn(guesses: tuple[np.ndarray, np.ndarray]) -> None:
    labels, guessed = guesses
    counts = confusion(labels, guessed, 9)
    assert counts.tolist() == confusion_matrix(labels, guessed, labels=range(9)).tolist()
    ours = per_class(counts)
    theirs = precision_recall_fscore_support(labels, guessed, labels=range(9), zero_division=0)
    for mine, other in zip((ours.precision, ours.recall, ours.f1, ours.support), theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-12)
    assert ours.precision[0] == ours.recall[0] == 0  # never guessed
    assert ours.support[7] == ours.support[8] == 0
    seen = precision_recall_fscore_support(labels, guessed, labels=range(7), average="macro", zero_division=0)
    np.testing.assert_allclose(ours.macro(), seen[:3])


def test_pairs_are_those_of_a_loop(guesses: tuple[np.ndarray, np.ndarray]) -> None:
    counts = confusion(*guesses, 9)
    pairs = confused_pairs(counts)
    expected = {}
    for label, guess in zip(*guesses, strict=True):
        if label != guess:
            expected.setdefault(frozenset((int(label), int(guess))), []).append((int(label), int(guess)))
    assert {frozenset((p.first, p.second)): p.total for p in pairs} == {k: len(v) for k, v in expected.items()}
    for pair in pairs:
        ways = expected[frozenset((pair.first, pair.second))]
        assert pair.first_for_second == ways.count((pair.first, pair.second)) >= pair.second_for_first
        images = sum(int((guesses[0] == k).sum()) for k in (pair.first, pair.second))
        assert pair.share == pytest.approx(len(ways) / images)
    assert [p.total for p in pairs] == sorted((p.total for p in pairs), reverse=True)
    assert confused_pairs(counts, 3) == pairs[:3]
    assert confused_pairs(np.diag([3, 4])) == []


def test_likelihood_and_brier_are_those_of_their_definitions() -> None:
    logits, labels = draw(50)
    p = softmax(logits)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert nll(logits, labels) == pytest.approx(log_loss(labels, p, labels=range(5)))
    assert nll(logits, labels, 2.5) == pytest.approx(log_loss(labels, softmax(logits, 2.5), labels=range(5)))
    loop = sum((p[i, k] - (labels[i] == k)) ** 2 for i in range(50) for k in range(5)) / 50
    assert brier(p, labels) == pytest.approx(loop)
    huge = np.array([[1e4, 0.0], [0.0, 1e4]])  # no overflow
    assert (nll(huge, np.array([0, 0])), brier(softmax(huge), np.array([0, 1]))) == (pytest.approx(5e3), 0)


def test_calibration_error_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(2)
    confidence, right = rng.random(500), rng.random(500) < 0.6
    confidence[:3] = 0.0, 1.0, 1 / BINS  # the edges
    error = 0.0
    for b in range(BINS):
        inside = (confidence > b / BINS) & (confidence <= (b + 1) / BINS)
        inside |= (confidence == 0) & (b == 0)
        if inside.any():
            error += inside.sum() / 500 * abs(right[inside].mean() - confidence[inside].mean())
    bins = reliability(confidence, right)
    assert bins.error == pytest.approx(error)
    assert bins.count.sum() == 500
    order = np.argsort(confidence)
    parts = np.array_split(order, BINS)
    adaptive = sum(len(p) / 500 * abs(right[p].mean() - confidence[p].mean()) for p in parts)
    bins = equal_mass(confidence, right)
    assert bins.error == pytest.approx(adaptive, abs=2e-3)  # the odd images may lie in other bins
    assert bins.count.max() - bins.count.min() <= 1
    for b in range(BINS):
        assert bins.low[b] <= bins.confidence[b] <= bins.high[b]
    assert equal_mass(confidence[:4], right[:4]).count.tolist() == [1, 1, 1, 1]


def test_known_calibration_errors() -> None:
    assert reliability(np.full(10, 0.9), np.arange(10) < 9).error == pytest.approx(0)
    assert reliability(np.full(10, 0.9), np.arange(10) < 5).error == pytest.approx(0.4)
    logits, labels = draw(200_000)
    p = softmax(logits)
    right = p.argmax(axis=1) == labels
    assert reliability(p.max(axis=1), right).error < 0.004
    assert equal_mass(p.max(axis=1), right).error < 0.004


def test_chance_error_is_what_exact_probabilities_show() -> None:
    errors = []
    for seed in range(60):
        logits, labels = draw(400, seed=seed)
        p = softmax(logits)
        errors.append(reliability(p.max(axis=1), p.argmax(axis=1) == labels).error)
    logits, _ = draw(400, seed=99)
    assert chance_error(softmax(logits).max(axis=1)) == pytest.approx(np.mean(errors), rel=0.1)


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_temperature_is_recovered(scale: float) -> None:
    logits, labels = draw(40_000, scale=scale)
    t = fit_temperature(logits, labels)
    assert t == pytest.approx(scale, rel=0.03)
    assert fit_temperature(4 * logits, labels) == pytest.approx(4 * t, rel=1e-3)
    for other in (0.98 * t, 1.02 * t):
        assert nll(logits, labels, t) < nll(logits, labels, other)


def test_a_model_that_is_never_wrong_has_no_best_temperature() -> None:
    logits = 3 * np.eye(4, dtype=np.float32)
    assert fit_temperature(logits, np.arange(4)) == pytest.approx(LEAST_T)  # the surer the better, within the bounds
    assert fit_temperature(logits, np.arange(4)[::-1].copy()) == pytest.approx(MOST_T)  # never right


def test_one_wrong_guess_is_not_scaled_by_what_those_that_are_right_tell() -> None:
    logits, labels = np.repeat(8 * np.eye(4), 10, axis=0), np.repeat(np.arange(4), 10)
    labels[3] = 1
    t_N = cross_fitted(logits, labels)
    assert t_N[3] == 1
    assert 0 < (t_N != 1).sum() < len(t_N)  # the other folds have a temperature
    assert calibration(logits, labels).after["nll"] < 1


def test_temperatures_come_from_other_images() -> None:
    logits, labels = draw(100, scale=3)
    before = cross_fitted(logits, labels)
    assert len(set(before)) == 5
    assert before.tolist() == cross_fitted(logits, labels).tolist()
    own = before == before[7]
    moved = labels.copy()
    moved[7] = (moved[7] + 1) % 5
    after = cross_fitted(logits, moved)
    assert after[own].tolist() == before[own].tolist()  # its own fold was not fitted on it
    assert (after[~own] != before[~own]).all()
    with pytest.raises(ValueError, match="4 images cannot be dealt into 5 folds"):
        cross_fitted(logits[:4], labels[:4])


def test_scaling_mends_what_is_too_sure_and_moves_no_guess() -> None:
    logits, labels = draw(3000, scale=3)
    fit = calibration(logits, labels)
    assert fit.temperature == pytest.approx(3, rel=0.1)
    assert fit.before["ece"] > 0.1 > 2 * fit.after["ece"]
    for name in ("nll", "brier", "ece", "ace"):
        assert fit.after[name] < fit.before[name]
    assert fit.right_N.mean() == pytest.approx((logits.argmax(axis=1) == labels).mean())
    assert fit.before["nll"] == pytest.approx(nll(logits, labels))
    assert fit.before["ece"] == pytest.approx(reliability(fit.confidence_N, fit.right_N).error)
    assert fit.after["ece"] == pytest.approx(reliability(fit.scaled_N, fit.right_N).error)


def test_confused_classes_stand_side_by_side() -> None:
    counts = 10 * np.eye(12, dtype=np.int64)
    for a, b in ((0, 7), (3, 11), (5, 9)):
        counts[a, b] = counts[b, a] = 6
    order = seriation(counts).tolist()
    assert sorted(order) == list(range(12))
    for a, b in ((0, 7), (3, 11), (5, 9)):
        assert abs(order.index(a) - order.index(b)) == 1
    assert sorted(seriation(np.diag([4, 4, 4, 0]))) == [0, 1, 2, 3]
    assert seriation(np.diag([1, 1])).tolist() == [0, 1]
