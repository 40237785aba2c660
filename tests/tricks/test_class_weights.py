from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from bagoftricks.errors import UserError
from bagoftricks.training.bag import Bag, cross_entropy
from bagoftricks.tricks.class_weights import ClassWeights, weights

ON = {"class_weights.power": 1.0}

COUNTS = np.array([50, 3, 17, 130])


def test_power_1_is_scikit_learns_balanced() -> None:
    labels = np.repeat(np.arange(4), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(weights(COUNTS, 1.0), expected)
    np.testing.assert_allclose(weights(COUNTS, 1), expected)  # as Python may have it


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_an_image_weighs_1_on_average(power: float) -> None:
    found = weights(COUNTS, power)
    assert sum(float(w) * int(n) for w, n in zip(found, COUNTS, strict=True)) == pytest.approx(200)
    for j in range(4):
        assert found[j] / found[0] == pytest.approx((COUNTS[0] / COUNTS[j]) ** power)


def test_a_class_without_images_weighs_nothing() -> None:
    assert weights(np.array([4, 0, 4]), 1.0).tolist() == [1.0, 0.0, 1.0]


def test_the_loss_is_torchs_with_labels_and_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(16, 4, generator=generator), torch.randint(0, 4, (16,), generator=generator)
    bag = Bag({"class_weights": ClassWeights(1.0)}, COUNTS, 0, "cpu")
    expected = F.cross_entropy(logits, labels, torch.from_numpy(weights(COUNTS, 1.0)).float())
    y = F.one_hot(labels, 4).float()
    torch.testing.assert_close(bag.loss(logits, torch.zeros(16, 3, 8, 8), y), expected)


def test_soft_targets_against_an_explicit_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, y = torch.randn(5, 4, generator=generator), torch.rand(5, 4, generator=generator).softmax(1)
    w = torch.tensor([1.0, 3.0, 0.5, 2.0])
    log_p = logits.log_softmax(1)
    parts = [(float(w[k] * y[n, k]), float(log_p[n, k])) for n in range(5) for k in range(4)]
    expected = -sum(a * b for a, b in parts) / sum(a for a, _ in parts)
    assert float(cross_entropy(logits, y, w)) == pytest.approx(expected, rel=1e-5)


def test_neutral_is_off() -> None:
    assert not ClassWeights().active


@pytest.mark.parametrize("power", [-0.1, 1.1, float("nan")])
def test_refuses(power: float) -> None:
    with pytest.raises(UserError, match=r"class_weights\.power"):
        ClassWeights(power)
