from __future__ import annotations

import math

import pytest
import torch

from bagoftricks.errors import UserError
from bagoftricks.tricks.bce import Bce, binary_cross_entropy

ON = {"bce.on": True}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, generator=generator), torch.rand(5, 4, generator=generator).softmax(1)


@pytest.mark.parametrize("threshold", [0.0, 0.25])
def test_against_an_explicit_loop(threshold: float) -> None:
    logits, y = batch()
    total = 0.0
    for n in range(5):
        for k in range(4):
            s, target = 1 / (1 + math.exp(-float(logits[n, k]))), float(y[n, k])
            if threshold:
                target = float(target > threshold)
            total -= target * math.log(s) + (1 - target) * math.log(1 - s)
    assert float(binary_cross_entropy(logits, y, threshold)) == pytest.approx(total / 20, rel=1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_agrees_with_timm(threshold: float) -> None:
    from timm.loss import BinaryCrossEntropy

    logits, y = batch()
    theirs = BinaryCrossEntropy(smoothing=0.0, target_threshold=threshold or None)
    torch.testing.assert_close(binary_cross_entropy(logits, y, threshold), theirs(logits, y))


def test_class_weights_weigh_images() -> None:
    logits, _ = batch()
    y, weight = torch.eye(4)[[0, 1, 1, 3, 2]], torch.tensor([1.0, 2.0, 0.5, 4.0])
    each = [float(binary_cross_entropy(logits[n : n + 1], y[n : n + 1], 0.0)) for n in range(5)]
    weights = [1.0, 2.0, 2.0, 4.0, 0.5]
    expected = sum(w * loss for w, loss in zip(weights, each, strict=True)) / sum(weights)
    assert float(binary_cross_entropy(logits, y, 0.0, weight)) == pytest.approx(expected, rel=1e-5)


def test_neutral_is_off_and_a_threshold_alone_does_nothing() -> None:
    assert not Bce().active
    assert not Bce(threshold=0.2).active
    assert Bce(on=True).active


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_refuses(threshold: float) -> None:
    with pytest.raises(UserError, match=r"bce\.threshold"):
        Bce(True, threshold)


def test_class_weights_are_those_of_the_soft_targets() -> None:
    """A threshold may leave an image both of its classes, or none: it weighs as one image all the same."""
    logits, _ = batch()
    y, weight = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.6, 0.4]]), torch.tensor([1.0, 3.0, 2.0, 2.0])
    for threshold in (0.2, 0.55, 0.9):
        each = [float(binary_cross_entropy(logits[n : n + 1], y[n : n + 1], threshold)) for n in range(2)]
        found = float(binary_cross_entropy(logits[:2], y, threshold, weight))
        assert found == pytest.approx((2 * each[0] + 2 * each[1]) / 4, rel=1e-5)
