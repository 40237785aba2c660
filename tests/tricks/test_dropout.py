from __future__ import annotations

import pytest
import torch

from bagoftricks.errors import UserError
from bagoftricks.models.build import build
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.resnet import ResNet
from bagoftricks.tricks.dropout import Dropout

ON = {"dropout.prob": 0.3}


def network() -> ResNet:
    """One whose logits are its features."""
    model = build(ModelConfig("A", 18), 512)
    with torch.no_grad():
        model.fc.weight.copy_(torch.eye(512))
        model.fc.bias.zero_()
    return model


def test_drops_its_share_of_the_features_in_training_alone() -> None:
    model, x = network(), torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    names = list(model.state_dict())
    whole = model.train()(x)
    Dropout(0.25).on_model(model)
    torch.manual_seed(0)
    dropped = model(x)
    seen = whole.abs() > 1e-6
    zero = (dropped == 0) & seen
    assert 0.23 < float(zero.sum() / seen.sum()) < 0.27
    torch.testing.assert_close(dropped[~zero], whole[~zero] / 0.75)  # batch-norm sees the batch: the same in both
    still = model.eval()(x)
    assert torch.equal(still, model(x))
    model.dropout = 0.0
    assert torch.equal(still, model(x))
    assert list(model.state_dict()) == names


def test_neutral_is_off() -> None:
    assert not Dropout().active


@pytest.mark.parametrize("prob", [-0.1, 1.0, float("nan")])
def test_refuses(prob: float) -> None:
    with pytest.raises(UserError, match=r"dropout\.prob"):
        Dropout(prob)
