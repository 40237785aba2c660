"""Temperature scaling and the calibration error, against what is known and against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bagoftricks.studies import classwise
from bagoftricks.training.calibration import (
    LEAST_T,
    MOST_T,
    expected_calibration_error,
    fit_temperature,
    softmax,
)
from bagoftricks.training.keeping import honest_temperature


def simulated(temperature: float, n: int = 20_000, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    draw = np.random.default_rng(0)
    logits_NK = draw.normal(0, 3, (n, classes)) * temperature
    p_NK = softmax(logits_NK, temperature)
    label_N = (p_NK.cumsum(axis=1) < draw.random((n, 1))).sum(axis=1)
    return logits_NK, np.minimum(label_N, classes - 1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7, 6.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    logits_NK, label_N = simulated(temperature)
    assert fit_temperature(logits_NK, label_N) == pytest.approx(temperature, rel=0.03)
    assert fit_temperature(logits_NK.astype(np.float32), label_N.astype(np.int32)) == pytest.approx(
        temperature, rel=0.03
    )


def test_no_other_temperature_makes_the_labels_likelier() -> None:
    logits_NK, label_N = simulated(2.0, n=300)

    def nll(temperature: float) -> float:
        return -float(np.log(softmax(logits_NK, temperature)[np.arange(300), label_N]).mean())

    best = nll(fit_temperature(logits_NK, label_N))
    assert all(best <= nll(t) + 1e-9 for t in np.geomspace(LEAST_T, MOST_T, 400))


def test_it_agrees_with_the_report() -> None:
    logits_NK, label_N = simulated(1.4, n=500)
    p_NK = softmax(logits_NK)
    right_N = p_NK.argmax(axis=1) == label_N
    assert expected_calibration_error(p_NK, label_N) == pytest.approx(
        classwise.reliability(p_NK.max(axis=1), right_N).error
    )


def test_guesses_that_are_all_right_say_nothing_of_a_temperature() -> None:
    logits_NK = np.eye(4, dtype=np.float32)
    assert honest_temperature(logits_NK, np.arange(4)) is None
    assert honest_temperature(logits_NK, np.array([0, 1, 2, 2])) is not None


@pytest.mark.parametrize("temperature", [1.0, 0.2, 5.0])
def test_softmax_is_that_of_a_loop(temperature: float) -> None:
    logits_NK = np.array([[1000.0, 999.0, -1000.0], [0.1, 0.2, 0.3]])
    for row, p_K in zip(logits_NK, softmax(logits_NK, temperature), strict=True):
        powers = [np.exp((value - max(row)) / temperature) for value in row]
        assert p_K == pytest.approx([power / sum(powers) for power in powers])


def loop_error(p_NK: np.ndarray, label_N: np.ndarray, bins: int) -> float:
    total = 0.0
    for b in range(bins):
        inside = [
            (max(p), int(np.argmax(p)) == label)
            for p, label in zip(p_NK.tolist(), label_N.tolist(), strict=True)
            if b < max(p) * bins <= b + 1
        ]
        if inside:
            confidence = sum(c for c, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            total += len(inside) / len(p_NK) * abs(accuracy - confidence)
    return total


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 40), classes=st.integers(1, 9), bins=st.integers(1, 20), seed=st.integers(0, 2**20))
def test_the_error_is_that_of_a_loop(n: int, classes: int, bins: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    p_NK = softmax(draw.normal(0, 3, (n, classes)))
    label_N = draw.integers(0, classes, n)
    error = expected_calibration_error(p_NK, label_N, bins)
    assert error == pytest.approx(loop_error(p_NK, label_N, bins))
    assert 0 <= error <= 1


def test_sure_and_right_is_perfect_sure_and_wrong_is_worst() -> None:
    p_NK = np.eye(3)
    assert expected_calibration_error(p_NK, np.array([0, 1, 2])) == 0
    assert expected_calibration_error(p_NK, np.array([1, 2, 0])) == 1


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 20),
    classes=st.integers(1, 5),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
    what=st.sampled_from(["right", "wrong", "first"]),
    seed=st.integers(0, 2**20),
)
def test_degenerate_cases_stay_in_bounds(n: int, classes: int, scale: float, what: str, seed: int) -> None:
    logits_NK = np.random.default_rng(seed).normal(0, 1, (n, classes)) * scale
    label_N = {
        "right": logits_NK.argmax(axis=1), "wrong": logits_NK.argmin(axis=1), "first": np.zeros(n, dtype=np.int64),
    }[what]  # fmt: skip
    assert LEAST_T <= fit_temperature(logits_NK, label_N) <= MOST_T


def test_where_any_temperature_is_as_good_it_is_one() -> None:
    assert fit_temperature(np.full((4, 1), 7.0), np.zeros(4, dtype=int)) == 1
    assert fit_temperature(np.zeros((4, 3)), np.array([0, 1, 2, 0])) == 1


def test_all_right_is_as_sure_and_all_wrong_as_unsure_as_allowed() -> None:
    logits_NK = np.array([[3.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(logits_NK, np.array([0, 1])) == pytest.approx(LEAST_T)
    assert fit_temperature(logits_NK, np.array([1, 0])) == pytest.approx(MOST_T)


@pytest.mark.parametrize(
    ("logits", "labels", "match"),
    [
        (np.empty((0, 3)), np.empty(0), "must be"),
        (np.zeros(3), np.zeros(3), "must be"),
        (np.zeros((2, 3)), np.zeros(3), "must be"),
        (np.array([[np.nan, 0.0]]), np.zeros(1), "finite"),
        (np.zeros((1, 2)), np.array([2]), "from 0 to 1"),
        (np.zeros((1, 2)), np.array([-1]), "from 0 to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(logits: np.ndarray, labels: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        fit_temperature(logits, labels)
    with pytest.raises(ValueError, match=match):
        expected_calibration_error(logits, labels)


def test_logits_are_no_probabilities() -> None:
    with pytest.raises(ValueError, match="logits"):
        expected_calibration_error(np.array([[3.0, -1.0]]), np.array([0]))
    with pytest.raises(ValueError, match="bins"):
        expected_calibration_error(np.eye(2), np.array([0, 1]), bins=0)
