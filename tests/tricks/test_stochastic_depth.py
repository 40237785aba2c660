from __future__ import annotations

import pytest
import torch

from bagoftricks.errors import UserError
from bagoftricks.models.build import build
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.units import conv_norm, conv_norm_add_relu, drop_add_relu
from bagoftricks.tricks.stochastic_depth import StochasticDepth

ON = {"stochastic_depth.prob": 0.5}


def test_the_probability_grows_with_the_depth_as_in_timm() -> None:
    from timm.models.resnet import resnet50

    model = build(ModelConfig("B", 50), 2)
    StochasticDepth(0.16).on_model(model)
    ours = [block.drop_prob for block in model.blocks()]
    assert ours == pytest.approx([0.01 * (i + 1) for i in range(16)])
    # timm's begin at 0 and end at the same: block i of 16 has 0.16 * i / 15
    theirs = [
        getattr(block.drop_path, "drop_prob", 0.0) if block.drop_path is not None else 0.0
        for layer in ("layer1", "layer2", "layer3", "layer4")
        for block in getattr(resnet50(drop_path_rate=0.16), layer)
    ]
    assert theirs[-1] == pytest.approx(ours[-1])
    assert all(abs(a - b) <= 0.0101 for a, b in zip(ours, theirs, strict=True))


def test_agrees_with_torchvision() -> None:
    from torchvision.ops import stochastic_depth

    conv, norm = torch.nn.Conv2d(8, 8, 1, bias=False), torch.nn.BatchNorm2d(8)
    x, shortcut = torch.randn(2, 64, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    ours = drop_add_relu(conv_norm(conv, norm, x), shortcut, 0.25)
    branch = conv_norm(conv, norm, x)
    torch.manual_seed(1)
    torch.testing.assert_close(ours, (stochastic_depth(branch, 0.25, "row") + shortcut).relu())


def test_a_branch_is_there_or_not_by_image() -> None:
    generator = torch.Generator().manual_seed(0)
    conv, norm = torch.nn.Conv2d(8, 8, 1, bias=False), torch.nn.BatchNorm2d(8)
    x, shortcut = torch.randn(2, 64, 8, 4, 4, generator=generator)
    torch.manual_seed(1)
    found = drop_add_relu(conv_norm(conv, norm, x), shortcut, 0.25)
    branch = conv_norm(conv, norm, x)
    without = 0
    for i in range(64):
        if torch.equal(found[i], shortcut[i].relu()):
            without += 1
        else:
            torch.testing.assert_close(found[i], (shortcut[i] + branch[i] / 0.75).relu())
    assert 6 < without < 28
    torch.testing.assert_close(
        drop_add_relu(conv_norm(conv, norm, x), shortcut, 0.0), conv_norm_add_relu(conv, norm, x, shortcut)
    )


@pytest.mark.parametrize("config", [ModelConfig("CD", 18), ModelConfig("BCD", 50)])
def test_evaluation_has_every_block(config: ModelConfig) -> None:
    model, x = build(config, 3), torch.randn(2, 3, 32, 32)
    before = model.eval()(x)
    StochasticDepth(0.5).on_model(model)
    assert torch.equal(model(x), before)
    model.train()
    assert not torch.equal(model(x), model(x))


def test_neutral_is_off() -> None:
    assert not StochasticDepth().active


@pytest.mark.parametrize("prob", [-0.1, 1.0, float("nan")])
def test_refuses(prob: float) -> None:
    with pytest.raises(UserError, match=r"stochastic_depth\.prob"):
        StochasticDepth(prob)
