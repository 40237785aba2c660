from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from bagoftricks.errors import UserError
from bagoftricks.tricks.focal import Focal, focal_loss

ON = {"focal.gamma": 2.0}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, generator=generator)
    return logits, torch.rand(5, 4, generator=generator).softmax(1)


@pytest.mark.parametrize("weighted", [False, True])
def test_against_an_explicit_loop(weighted: bool) -> None:
    logits, y = batch()
    weight = torch.tensor([1.0, 2.0, 0.5, 0.0]) if weighted else None
    total, norm = 0.0, 0.0
    for n in range(5):
        p = [math.exp(float(v)) for v in logits[n]]
        for k in range(4):
            share, w = p[k] / sum(p), 1.0 if weight is None else float(weight[k])
            total -= w * float(y[n, k]) * (1 - share) ** 2 * math.log(share)
            norm += w * float(y[n, k])
    assert float(focal_loss(logits, y, 2.0, weight)) == pytest.approx(total / norm, rel=1e-5)


def test_two_classes_are_torchvisions_sigmoid_form() -> None:
    """With logits (0, z) softmax is the sigmoid of z."""
    z = torch.linspace(-3, 3, 7)
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 1])
    logits = torch.stack([torch.zeros(7), z], 1)
    theirs = sigmoid_focal_loss(z, labels.float(), alpha=-1, gamma=2.0, reduction="mean")
    torch.testing.assert_close(focal_loss(logits, F.one_hot(labels, 2).float(), 2.0), theirs)


def test_gamma_0_is_cross_entropy() -> None:
    logits, y = batch()
    torch.testing.assert_close(focal_loss(logits, y, 0.0), F.cross_entropy(logits, y))


def test_certain_logits_have_finite_gradients() -> None:
    logits = torch.tensor([[80.0, 0.0], [-80.0, 0.0]], requires_grad=True)
    focal_loss(logits, torch.eye(2), 0.5).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_neutral_is_off() -> None:
    assert not Focal().active


@pytest.mark.parametrize("gamma", [-0.1, 11, float("nan")])
def test_refuses(gamma: float) -> None:
    with pytest.raises(UserError, match=r"focal\.gamma"):
        Focal(gamma)
