"""The architectures against independent ones: torchvision's, timm's, and an A made of torchvision's blocks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn

from bagoftricks.errors import UserError
from bagoftricks.models.config import TWEAKS, ModelConfig
from bagoftricks.models.resnet import Bottleneck, ResNet, catalogue, cost, roles


def torchvision_a() -> nn.Module:
    """torchvision's ResNet-50 is B; exchanging the strides of its bottlenecks makes it A."""
    model = torchvision.models.resnet50(weights=None)
    for module in model.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
    return model


@torch.no_grad()
def shake(model: nn.Module) -> nn.Module:
    """Gives batch norms weights and statistics of their own: at their initial values, mistakes would hide."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.0, generator=generator)
            module.bias.uniform_(-0.2, 0.2, generator=generator)
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)  # type: ignore[union-attr,operator]
            module.running_var.uniform_(0.8, 1.2, generator=generator)  # type: ignore[union-attr,operator]
    return model


@pytest.mark.parametrize(
    ("tweaks", "reference"),
    [
        ("A", torchvision_a),
        ("B", lambda: torchvision.models.resnet50(weights=None)),
        ("B", lambda: timm.create_model("resnet50")),
        ("BC", lambda: timm.create_model("resnet50c")),
        ("BCD", lambda: timm.create_model("resnet50d")),
    ],
    ids=["A-torchvision", "B-torchvision", "B-timm", "BC-timm", "BCD-timm"],
)
@torch.no_grad()
def test_same_weights_give_the_same_logits(tweaks: str, reference: Callable[[], nn.Module]) -> None:
    theirs = shake(reference()).eval()
    ours = ResNet(tweaks).eval()
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
    for size in (224, 112):
        x_NCHW = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))
        expected = theirs(x_NCHW)
        assert expected.std() > 0.01
        torch.testing.assert_close(ours(x_NCHW), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_and_b_differ_with_the_same_weights() -> None:
    a, b = shake(ResNet("A")).eval(), ResNet("B").eval()
    b.load_state_dict(a.state_dict())
    x_NCHW = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(a(x_NCHW), b(x_NCHW), atol=1e-3)


@pytest.mark.parametrize("size", [65, 97])
@pytest.mark.parametrize("tweaks", ["D", "BD"])
@torch.no_grad()
def test_odd_sizes_agree_between_pool_and_stride(tweaks: str, size: int) -> None:
    assert ResNet(tweaks, num_classes=3).eval()(torch.zeros(1, 3, size, size)).shape == (1, 3)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_parameters_are_torchvisions(depth: int) -> None:
    reference = getattr(torchvision.models, f"resnet{depth}")
    with torch.device("meta"):
        expected = sum(p.numel() for p in reference().parameters())
    assert cost(ModelConfig("A", depth))[0] == expected
    with torch.device("meta"):
        assert list(ResNet("A", depth).state_dict()) == list(reference().state_dict())


def test_multiply_adds_are_the_published_ones() -> None:
    """He et al. 2019, Table 5, and timm: A 3.8, B 4.1, BC and BCD 4.3 G."""
    rows = {row["tweaks"]: row["multiply_adds"] / 1e9 for row in catalogue(50)}
    assert set(rows) == set(TWEAKS)
    assert rows["A"] == pytest.approx(3.86, abs=0.01)
    assert rows["B"] == pytest.approx(4.09, abs=0.01)
    assert rows["BCD"] == pytest.approx(4.33, abs=0.02)


def test_layers_that_architectures_share_start_equal() -> None:
    states = {tweaks: ResNet(tweaks, num_classes=5, seed=3).state_dict() for tweaks in ("A", "B", "BCD")}
    by_role = {t: {role: state[key] for key, role in roles(state).items()} for t, state in states.items()}
    for other in ("B", "BCD"):
        shared = set(by_role["A"]) & set(by_role[other])
        assert len(shared) > 300
        assert all(torch.equal(by_role["A"][role], by_role[other][role]) for role in shared)
    different = ResNet("A", num_classes=5, seed=4).state_dict()
    assert not torch.equal(states["A"]["conv1.weight"], different["conv1.weight"])


def test_initial_weights_have_the_stated_spread() -> None:
    weight = ResNet("B").layer3[1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


def test_zero_gamma_makes_blocks_identities() -> None:
    model = ResNet("B", zero_init_gamma=True, num_classes=3)
    blocks = [m for m in model.modules() if isinstance(m, Bottleneck)]
    assert len(blocks) == 16
    assert all(not block.bn3.weight.any() and block.bn1.weight.all() for block in blocks)
    x_NCHW = torch.rand(2, 256, 8, 8)
    torch.testing.assert_close(model.layer1[1].eval()(x_NCHW), x_NCHW)


@pytest.mark.parametrize(
    ("tweaks", "depth", "message"),
    [
        ("B", 18, "have none"),
        ("BCD", 34, "have none"),
        ("X", 50, "unknown model.tweaks"),
        ("BB", 50, "unknown"),
        ("B", 20, "depth"),
    ],
)
def test_refuses(tweaks: str, depth: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ResNet(tweaks, depth)


def test_shallow_networks_train_with_c_and_d() -> None:
    logits = ResNet("CD", 18, num_classes=4)(torch.randn(2, 3, 32, 32))
    logits.sum().backward()
    assert logits.shape == (2, 4)
