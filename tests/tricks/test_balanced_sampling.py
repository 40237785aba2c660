from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import WeightedRandomSampler

from bagoftricks.errors import UserError
from bagoftricks.rng import stream
from bagoftricks.tricks.balanced_sampling import BalancedSampling, probabilities

ON = {"balanced_sampling.power": 1.0}

LABELS = np.repeat(np.arange(3), [90, 9, 1])


def test_probabilities_against_an_explicit_loop() -> None:
    for power in (0.5, 1.0):
        raw = [[90, 9, 1][label] ** -power for label in LABELS]
        np.testing.assert_allclose(probabilities(LABELS, power), np.array(raw) / sum(raw))


def test_every_class_is_shown_equally_often_as_torchs_sampler_does() -> None:
    order = np.arange(100)
    drawn = np.concatenate(
        [BalancedSampling(1.0).on_order(order, LABELS, stream(0, "balanced_sampling", e)) for e in range(200)]
    )
    ours = np.bincount(LABELS[drawn], minlength=3) / len(drawn)
    sampler = WeightedRandomSampler(torch.from_numpy(probabilities(LABELS, 1.0)), 20_000, generator=torch.Generator())
    theirs = np.bincount(LABELS[list(sampler)], minlength=3) / 20_000
    np.testing.assert_allclose(ours, 1 / 3, atol=0.012)
    np.testing.assert_allclose(ours, theirs, atol=0.016)
    within = np.bincount(drawn[LABELS[drawn] == 0], minlength=90)[:90]
    assert within.std() < 2 * within.mean() ** 0.5  # no image of a class is preferred


def test_draws_as_many_of_the_given_indices_and_is_deterministic() -> None:
    order = np.arange(100) + 1000
    one, two = (BalancedSampling(0.5).on_order(order, LABELS, stream(0, "balanced_sampling", 3)) for _ in range(2))
    assert len(one) == 100
    assert set(one) <= set(order)
    assert np.array_equal(one, two)


def test_neutral_is_off() -> None:
    assert not BalancedSampling().active


@pytest.mark.parametrize("power", [-0.1, 1.1, float("nan")])
def test_refuses(power: float) -> None:
    with pytest.raises(UserError, match=r"balanced_sampling\.power"):
        BalancedSampling(power)
