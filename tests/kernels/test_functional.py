"""Our kernels give what torch gives in double precision, to bf16's rounding, and the same bits each time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagoftricks.kernels import functional
from bagoftricks.kernels.build import Library, load
from bagoftricks.kernels.functional import native, norm, weight_gradient
from bagoftricks.models.resnet import ResNet
from bagoftricks.models.units import conv_norm_relu

LIBRARY = load()
needs_kernels = pytest.mark.skipif(isinstance(LIBRARY, str), reason=f"no kernels: {LIBRARY}")
needs_tiles = pytest.mark.skipif(
    isinstance(LIBRARY, str) or not LIBRARY.has_tiles, reason="no AMX units, or no kernels at all"
)
ROUNDING = 2**-8
"""Of bf16, relative."""


def images(n: int, c: int, h: int, w: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    x = torch.randn(n, c, h, w, generator=torch.Generator().manual_seed(seed)) + shift
    return x.bfloat16().contiguous(memory_format=torch.channels_last)


def assert_near(ours: Tensor, exact: Tensor, times: float = 1.0) -> None:
    """To the rounding of what is stored, with the largest value as measure."""
    assert (ours.double() - exact).abs().max() <= times * ROUNDING * exact.abs().max()


def make_norm(c: int) -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(c)
    generator = torch.Generator().manual_seed(1)
    nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
    nn.init.normal_(module.bias, generator=generator)
    return module


@needs_kernels
@pytest.mark.parametrize(("relu", "shortcut"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    ("shape", "threads"),
    [*product([(4, 64, 9, 7), (3, 32, 1, 1), (2, 160, 5, 5), (64, 96, 8, 9)], [1, 2, 3]), ((2, 64, 260, 263), 2)],
)  # the last is of 17 MB, written past the caches
def test_norm_is_torchs_in_double(shape: tuple[int, ...], relu: bool, shortcut: bool, threads: int) -> None:
    """Outputs, running statistics and every gradient; the mean is four deviations away from zero."""
    n, c, h, w = shape
    x, ours, theirs = images(n, c, h, w, shift=4.0).requires_grad_(), make_norm(c), make_norm(c).double()
    other = images(n, c, h, w, seed=2).requires_grad_() if shortcut else None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with native():
            y = norm(ours, x, other, relu=relu)
        assert y is not None
        x64 = x.detach().double().requires_grad_()
        other64 = other.detach().double().requires_grad_() if other is not None else None
        y64 = theirs(x64) + (other64 if other64 is not None else 0)
        if relu:
            y64 = y64 * (y > 0)  # where rounding decides the sign, gradients may go either way
        dy = images(n, c, h, w, seed=3)
        y.backward(dy)
        y64.backward(dy.double())
    finally:
        torch.set_num_threads(before)
    assert_near(y, y64)
    assert (y >= 0).all() or not relu
    assert x.grad is not None
    assert x64.grad is not None
    assert_near(x.grad, x64.grad, 2)
    if other is not None and other64 is not None:
        assert other.grad is not None
        assert other64.grad is not None
        assert_near(other.grad, other64.grad)
    pairs = (
        (ours.weight.grad, theirs.weight.grad), (ours.bias.grad, theirs.bias.grad),
        (ours.running_mean, theirs.running_mean), (ours.running_var, theirs.running_var),
    )  # fmt: skip
    for one, exact in pairs:
        assert one is not None
        assert exact is not None
        torch.testing.assert_close(one.double(), exact, rtol=1e-4, atol=1e-4 * exact.abs().max().item())
    assert ours.num_batches_tracked == 1


@needs_kernels
def test_the_same_bits_each_time() -> None:
    def once() -> list[Tensor]:
        x, other, module = (
            images(8, 64, 14, 14).requires_grad_(),
            images(8, 64, 14, 14, 1).requires_grad_(),
            make_norm(64),
        )
        with native():
            y = norm(module, x, other, relu=True)
        assert y is not None
        y.backward(images(8, 64, 14, 14, 2))
        return [y.detach(), x.grad, other.grad, module.weight.grad, module.running_var]  # type: ignore[list-item]

    for one, other in zip(once(), once(), strict=True):
        assert torch.equal(one, other)


@needs_kernels
def test_what_is_not_finite_stays_so() -> None:
    """A loss must become NaN then, so that the training ends."""
    x = images(4, 32, 3, 3)
    x[1, 3, 1, 1] = float("nan")
    with native():
        y = norm(make_norm(32), x, relu=True)
    assert y is not None
    assert y[:, 3].isnan().all()
    assert y[:, :3].isfinite().all()
    assert y[:, 4:].isfinite().all()


SHAPES = [
    (4, 32, 64, 9, 7, 1, 1), (2, 64, 32, 8, 8, 1, 2), (3, 32, 32, 7, 7, 3, 1), (2, 64, 96, 9, 9, 3, 2),
    (1, 32, 32, 1, 1, 3, 1), (5, 32, 64, 2, 2, 3, 2), (2, 32, 32, 12, 10, 5, 1), (9, 96, 32, 16, 16, 1, 1),
]  # fmt: skip
"""N, C, O, H, W, kernel, stride; positions are rarely a multiple of a tile's 32."""


@needs_tiles
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 2, 3, 4, 6])
def test_weight_gradient_is_torchs_in_double(shape: tuple[int, ...], threads: int) -> None:
    assert isinstance(LIBRARY, Library)
    n, c, o, h, w, kernel, stride = shape
    x = images(n, c, h, w)
    weight = torch.zeros(o, c, kernel, kernel, dtype=torch.float64, requires_grad=True)
    y = F.conv2d(x.double(), weight, None, stride, kernel // 2)
    dy = images(*y.shape, seed=1)  # type: ignore[arg-type]
    y.backward(dy.double())
    assert weight.grad is not None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = [weight_gradient(x, dy, kernel, stride, kernel // 2, LIBRARY) for _ in range(2)]
    finally:
        torch.set_num_threads(before)
    assert found[0].dtype == torch.float32
    # products of bf16 are exact in float, and sums of thousands of them lose five digits at most
    torch.testing.assert_close(found[0].double(), weight.grad, rtol=1e-4, atol=1e-5 * weight.grad.abs().max().item())
    assert torch.equal(*found)


@needs_tiles
@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 9), (3, 2, 8), (1, 2, 9), (1, 1, 20), (3, 1, 3)])
def test_convolution_and_its_gradients(kernel: int, stride: int, side: int) -> None:
    """With torch's convolutions and with products: both kinds are among these."""
    conv = nn.Conv2d(32, 64, kernel, stride, kernel // 2, bias=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    exact = nn.Conv2d(32, 64, kernel, stride, kernel // 2, bias=False).double()
    exact.load_state_dict({"weight": conv.weight.detach().bfloat16().double()})
    x = images(3, 32, side, side).requires_grad_()
    x64 = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16), native():
        y = functional.conv2d(conv, x)
    y64 = exact(x64)
    dy = images(*y.shape, seed=1)  # type: ignore[arg-type]
    y.backward(dy)
    y64.backward(dy.double())
    assert_near(y, y64)
    assert x.grad is not None
    assert x64.grad is not None
    assert_near(x.grad, x64.grad, 2)
    assert conv.weight.grad is not None
    assert exact.weight.grad is not None
    assert conv.weight.grad.stride() == conv.weight.stride()
    torch.testing.assert_close(conv.weight.grad.double(), exact.weight.grad, rtol=1e-3, atol=1e-3)


def spied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that are called from now on."""
    called: list[str] = []
    for kind in (functional._Norm, functional._Conv):
        plain: Callable[..., Tensor] = kind.apply
        name = kind.__name__
        monkeypatch.setattr(
            kind, "apply", lambda *given, name=name, plain=plain: called.append(name) or plain(*given), raising=True
        )
    return called


@needs_kernels
@pytest.mark.parametrize("tweaks", ["A", "B", "BCD"])
def test_a_networks_step_uses_them_and_agrees(tweaks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits as near to fp32's as torch's bf16 gets, up to luck; every batch-norm is ours."""
    called = spied(monkeypatch)
    x = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)

    def logits(low: bool, ours: bool) -> Tensor:
        model = ResNet(tweaks, 50, 10, zero_init_gamma=True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            if not ours:
                return model(x).float()  # type: ignore[no-any-return]
            with native():
                result = model(x).float()
        F.cross_entropy(result, torch.arange(8)).backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
        return result.detach()  # type: ignore[no-any-return]

    exact, theirs, ours = logits(False, False), logits(True, False), logits(True, True)
    assert called.count("_Norm") == 53 + (2 if "C" in tweaks else 0)
    assert (ours - exact).norm() < 2 * (theirs - exact).norm()
    assert (ours - exact).norm() < 0.1 * exact.norm()


@needs_kernels
def test_elsewhere_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the block, in fp32, in eval mode, with odd channels, another order of memory, one value a channel."""
    called, module, x = spied(monkeypatch), make_norm(32), images(2, 32, 4, 4)
    conv = nn.Conv2d(32, 32, 1, bias=False)
    assert norm(module, x) is None
    with native():
        assert norm(module, x.float()) is None
        assert norm(module.eval(), x) is None
        assert norm(make_norm(24), images(2, 24, 4, 4)) is None
        assert norm(make_norm(32), x.contiguous()) is None
        assert norm(make_norm(32), images(1, 32, 1, 1)) is None
        assert norm(nn.Identity(), x) is None
        assert norm(make_norm(64), x) is None  # torch says what is wrong with it
        assert norm(make_norm(32).bfloat16(), x) is None
        assert norm(make_norm(32), x, images(2, 32, 1, 1), relu=True) is None
        assert norm(make_norm(32), x[:0]) is None
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            functional.conv2d(conv, x)
        functional.conv2d(conv, x.float())
        with torch.autocast("cpu", torch.bfloat16):
            functional.conv2d(nn.Conv2d(32, 32, (1, 3), bias=False), x)
        functional.conv2d(nn.Conv2d(32, 32, 3, groups=4, bias=False).bfloat16(), x)
    assert called == []


@needs_kernels
def test_neither_input_is_written_over() -> None:
    x, module = images(2, 32, 4, 4), make_norm(32)
    kept = x.clone()
    with native():
        conv = nn.Conv2d(32, 32, 1, bias=False)
        with torch.autocast("cpu", torch.bfloat16):
            conv_norm_relu(conv, module, nn.ReLU(inplace=True), x)
        norm(module, x, x, relu=True)
    assert torch.equal(x, kept)


def test_no_kernels_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "load", lambda: "for a reason")
    with pytest.raises(RuntimeError, match="for a reason"), native():
        pass
    assert functional._active == []
