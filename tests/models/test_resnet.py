"""The architectures against independent ones: torchvision's, timm's, and an A made of torchvision's blocks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from bagoftricks.errors import UserError
from bagoftricks.models.build import catalogue, cost
from bagoftricks.models.config import TWEAKS, ModelConfig
from bagoftricks.models.resnet import Bottleneck, ResNet, roles
from bagoftricks.models.units import BlurPool, SqueezeExcitation


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
        ("BE", lambda: timm.create_model("seresnet50")),
        ("BF", lambda: timm.create_model("resnetblur50")),
        ("BCDEF", lambda: timm.create_model("resnetblur50d", block_args={"attn_layer": "se"})),
    ],
    ids=["A-torchvision", "B-torchvision", "B-timm", "BC-timm", "BCD-timm", "BE-timm", "BF-timm", "BCDEF-timm"],
)
@torch.no_grad()
def test_same_weights_give_the_same_logits(tweaks: str, reference: Callable[[], nn.Module]) -> None:
    theirs = shake(reference()).eval()
    ours = ResNet(tweaks).eval()
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
    for size in (224, 113):
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


def test_ten_layers_are_eighteen_with_a_block_a_stage() -> None:
    """5.4 million parameters for 1,000 classes, as Simon et al. 2016 (arXiv:1612.01452) have it."""
    with torch.device("meta"):
        expected = timm.create_model("resnet18", layers=[1, 1, 1, 1]).state_dict()
        found = ResNet("A", 10).state_dict()
    assert {key: value.shape for key, value in found.items()} == {k: v.shape for k, v in expected.items()}
    assert cost(ModelConfig("A", 10))[0] == pytest.approx(5.4e6, rel=0.02)


def test_multiply_adds_are_the_published_ones() -> None:
    """He et al. 2019, Table 5, and timm: A 3.8, B 4.1, BC and BCD 4.3 G."""
    rows = {row["tweaks"]: row["multiply_adds"] / 1e9 for row in catalogue(50)}
    assert set(rows) == {*TWEAKS, "BE", "BF", "BCDEF"}
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


@pytest.mark.parametrize("tweaks", ["CD", "CDEF"])
def test_shallow_networks_train(tweaks: str) -> None:
    model = ResNet(tweaks, 18, num_classes=4)
    logits = model(torch.randn(2, 3, 32, 32))
    logits.sum().backward()
    assert logits.shape == (2, 4)
    assert all(parameter.grad is not None for parameter in model.parameters())


@torch.no_grad()
def test_excitation_against_an_explicit_loop() -> None:
    unit, x = SqueezeExcitation(20), torch.randn(2, 20, 3, 5)
    w1, w2 = (layer.weight[:, :, 0, 0].tolist() for layer in (unit.fc1, unit.fc2))
    b1, b2 = unit.fc1.bias.tolist(), unit.fc2.bias.tolist()  # type: ignore[union-attr]
    assert len(b1) == 8
    for n in range(2):
        means = [float(x[n, c].mean()) for c in range(20)]
        inner = [
            max(0.0, sum(w * m for w, m in zip(row, means, strict=True)) + b) for row, b in zip(w1, b1, strict=True)
        ]
        outer = [sum(w * h for w, h in zip(row, inner, strict=True)) + b for row, b in zip(w2, b2, strict=True)]
        for c in range(20):
            gate = 1 / (1 + math.exp(-outer[c]))
            torch.testing.assert_close(unit(x)[n, c], x[n, c] * gate)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (2, 2)])
@torch.no_grad()
def test_blur_against_an_explicit_loop(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    blurred = BlurPool(3).double()(x)
    assert blurred.shape == (2, 3, (height + 1) // 2, (width + 1) // 2)

    def mirrored(i: int, n: int) -> int:
        return -i if i < 0 else 2 * n - 2 - i if i >= n else i

    for n, c, i, j in np.ndindex(*blurred.shape):
        total = 0.0
        for di, dj in np.ndindex(3, 3):
            weight = (1, 2, 1)[di] * (1, 2, 1)[dj] / 16
            total += weight * float(x[n, c, mirrored(2 * i + di - 1, height), mirrored(2 * j + dj - 1, width)])
        assert float(blurred[n, c, i, j]) == pytest.approx(total, abs=1e-12)


@torch.no_grad()
def test_what_is_too_fine_for_half_the_pixels_is_gone_before_they_are_left_out() -> None:
    """A checkerboard, of which every other pixel says all or nothing, comes out even."""
    x = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)[None, None]
    assert not BlurPool(1)(x).any()
    assert x[..., ::2, ::2].all()


def test_gates_and_blurs_leave_what_they_share_with_others_equal() -> None:
    plain, more = ResNet("B", num_classes=5, seed=3).state_dict(), ResNet("BEF", num_classes=5, seed=3).state_dict()
    assert set(plain) < set(more)
    assert all(torch.equal(value, more[key]) for key, value in plain.items())
    gates = set(more) - set(plain)
    assert len(gates) == 16 * 4
    assert all(".se.fc" in key for key in gates)
    assert not any(more[key].any() for key in gates if key.endswith("bias"))
    again = ResNet("BEF", num_classes=5, seed=3).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in more.items())
