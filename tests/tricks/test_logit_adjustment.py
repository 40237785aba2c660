from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bagoftricks.errors import UserError
from bagoftricks.tricks.logit_adjustment import LogitAdjustment

ON = {"logit_adjustment.tau": 1.0}

COUNTS = np.array([50, 3, 17, 130])


def test_against_an_explicit_loop() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    found = LogitAdjustment(0.7).on_logits(logits, COUNTS)
    for n in range(5):
        for k in range(4):
            assert float(found[n, k]) == pytest.approx(float(logits[n, k]) + 0.7 * math.log(COUNTS[k] / 200), abs=1e-5)


def test_at_1_even_logits_give_the_classes_shares() -> None:
    found = LogitAdjustment(1.0).on_logits(torch.zeros(1, 4), COUNTS).softmax(1)
    np.testing.assert_allclose(found[0], COUNTS / 200, rtol=1e-5)


def test_a_class_without_images_stays_finite() -> None:
    assert LogitAdjustment(1.0).on_logits(torch.zeros(1, 3), np.array([5, 0, 5])).isfinite().all()


def test_neutral_is_off() -> None:
    assert not LogitAdjustment().active


@pytest.mark.parametrize("tau", [-0.1, 11, float("nan")])
def test_refuses(tau: float) -> None:
    with pytest.raises(UserError, match=r"logit_adjustment\.tau"):
        LogitAdjustment(tau)
