from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bagoftricks.errors import UserError
from bagoftricks.tricks.sam import Sam, ascent

ON = {"sam.rho": 0.05}


def test_against_an_explicit_loop() -> None:
    """Two steps of plain gradient descent on a small network, written out."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(16, 4, generator=generator), torch.randint(0, 3, (16,), generator=generator)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    weights = [p.detach().clone() for p in model.parameters()]

    def gradients(at: list[Tensor]) -> list[Tensor]:
        at = [w.detach().clone().requires_grad_() for w in at]
        logits = torch.tanh(x @ at[0].T + at[1]) @ at[2].T + at[3]
        return list(torch.autograd.grad(nn.functional.cross_entropy(logits, y), at))

    def compute() -> None:
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()

    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    for _ in range(2):
        g = gradients(weights)
        length = sum(float(value) ** 2 for part in g for value in part.flatten()) ** 0.5
        worst = [w + 0.1 * part / length for w, part in zip(weights, g, strict=True)]
        weights = [w - 0.3 * part for w, part in zip(weights, gradients(worst), strict=True)]
        compute()
        Sam(0.1).on_backward(model, compute)
        optimizer.step()
    for parameter, expected in zip(model.parameters(), weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)


def test_steps_have_a_common_length() -> None:
    steps = ascent([torch.ones(3), 2 * torch.ones(2, 2)], 0.5)
    assert sum(float(step.square().sum()) for step in steps) == pytest.approx(0.25)
    assert all(float(step.abs().max()) == 0 for step in ascent([torch.zeros(3)], 0.5))


def test_weights_and_running_statistics_are_those_of_the_first_pass() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))
    x = torch.randn(8, 3, 6, 6)

    def compute() -> None:
        model.zero_grad()
        model(x).square().mean().backward()

    compute()
    before = {name: value.clone() for name, value in model.state_dict().items() if "num_batches" not in name}
    first = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    Sam(0.5).on_backward(model, compute)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert not all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), first, strict=True))  # type: ignore[arg-type]
    assert model[1].momentum == 0.1


def test_neutral_is_off() -> None:
    assert not Sam().active


@pytest.mark.parametrize("rho", [-0.1, 11, float("nan")])
def test_refuses(rho: float) -> None:
    with pytest.raises(UserError, match=r"sam\.rho"):
        Sam(rho)
