"""Folded networks give the logits of the networks they were made from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bagoftricks.models.inference import for_inference
from bagoftricks.models.resnet import ResNet


def trained(tweaks: str, depth: int) -> ResNet:
    """A network whose batch-norms do something."""
    model = ResNet(tweaks, depth, num_classes=7)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return model.eval()


@pytest.mark.parametrize(
    ("tweaks", "depth"), [("A", 50), ("B", 50), ("C", 50), ("D", 50), ("BCD", 50), ("CD", 18), ("BEF", 50)]
)
@torch.no_grad()
def test_same_logits(tweaks: str, depth: int) -> None:
    model = trained(tweaks, depth)
    x_NCHW = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = model(x_NCHW)
    folded = for_inference(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(x_NCHW), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@torch.no_grad()
def test_the_model_stays_as_it_was() -> None:
    model = trained("B", 50).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = for_inference(model)
    folded(torch.randn(2, 3, 32, 32))
    assert model.training
    assert not folded.training
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 53
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@torch.no_grad()
def test_computes_in_bf16() -> None:
    model = trained("B", 50)
    x_NCHW = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    logits = for_inference(model, torch.bfloat16)(x_NCHW.bfloat16())
    assert logits.dtype == torch.bfloat16
    expected = model(x_NCHW)
    assert (logits.float() - expected).abs().max() < 0.1 * expected.abs().max()


@torch.no_grad()
def test_other_networks_are_only_copied() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    copied = for_inference(model)
    assert isinstance(copied[1], nn.BatchNorm2d)
    x_NCHW = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(copied(x_NCHW), model.eval()(x_NCHW))
