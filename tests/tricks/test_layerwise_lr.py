from __future__ import annotations

import pytest

from bagoftricks.errors import UserError
from bagoftricks.models.build import build
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.resnet import depth_of
from bagoftricks.tricks.layerwise_lr import LayerwiseLr
from bagoftricks.tricks.no_bias_decay import NoBiasDecay
from tests.tricks.parameters import bag, treated

ON = {"layerwise_lr.decay": 0.5}


def test_layerwise_rates_by_depth() -> None:
    model = build(ModelConfig("BCD", 50), 2)
    found = treated(bag(layerwise_lr=LayerwiseLr(0.5), no_bias_decay=NoBiasDecay(True)).parameters(model), model)
    assert found["conv1.0.weight"]["lr_scale"] == found["bn1.bias"]["lr_scale"] == 0.5**5
    for stage in range(1, 5):
        assert {g["lr_scale"] for n, g in found.items() if n.startswith(f"layer{stage}.")} == {0.5 ** (5 - stage)}
    assert found["fc.weight"]["lr_scale"] == 1.0
    assert found["layer2.0.bn1.bias"]["weight_decay"] == 0
    assert "weight_decay" not in found["layer2.0.conv1.weight"]


def test_every_parameter_has_a_depth() -> None:
    for tweaks in ("A", "BCD"):
        depths = {depth_of(name) for name, _ in build(ModelConfig(tweaks, 50), 2).named_parameters()}
        assert depths == set(range(6))


def test_neutral_is_off() -> None:
    assert not LayerwiseLr().active


@pytest.mark.parametrize("decay", [0.0, 1.1, float("nan")])
def test_refuses(decay: float) -> None:
    with pytest.raises(UserError, match=r"layerwise_lr\.decay"):
        LayerwiseLr(decay)
