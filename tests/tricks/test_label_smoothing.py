from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bagoftricks.errors import UserError
from bagoftricks.rng import stream
from bagoftricks.tricks.label_smoothing import LabelSmoothing, smooth

ON = {"label_smoothing.amount": 0.1}


def test_agrees_with_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(16, 7, generator=generator), torch.randint(0, 7, (16,), generator=generator)
    ours = F.cross_entropy(logits, smooth(F.one_hot(labels, 7).float(), 0.1))
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, label_smoothing=0.1))


def test_against_an_explicit_loop() -> None:
    y = torch.tensor([[1.0, 0, 0, 0], [0, 0.7, 0.3, 0]])
    smoothed = smooth(y, 0.2)
    for i in range(2):
        for k in range(4):
            assert float(smoothed[i, k]) == pytest.approx(0.8 * float(y[i, k]) + 0.2 / 4)


def test_neutral_is_off_and_images_pass() -> None:
    assert not LabelSmoothing().active
    x, y = torch.rand(2, 3, 4, 4), torch.eye(2)
    same, smoothed = LabelSmoothing(0.1).on_batch(x, y, stream(0, "label_smoothing"))
    assert same is x
    assert smoothed.dtype == y.dtype
    assert torch.equal(y, torch.eye(2))


@pytest.mark.parametrize("amount", [-0.1, 1.0, float("nan")])
def test_refuses(amount: float) -> None:
    with pytest.raises(UserError, match=r"label_smoothing\.amount"):
        LabelSmoothing(amount)
