from __future__ import annotations

import pytest
import torch

from bagoftricks.errors import UserError
from bagoftricks.tricks.gradient_clipping import GradientClipping

ON = {"gradient_clipping.norm": 0.1}


def gradients(scale: float) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.zeros(shape, requires_grad=True) for shape in ((4, 3), (5,), (2, 2, 2))]
    for parameter in parameters:
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    return parameters  # type: ignore[return-value]


def test_against_an_explicit_loop() -> None:
    parameters = gradients(3.0)
    before = [p.grad.clone() for p in parameters if p.grad is not None]
    length = sum(float(value) ** 2 for g in before for value in g.flatten()) ** 0.5
    assert length > 2
    GradientClipping(2.0).on_gradients(parameters)
    for parameter, was in zip(parameters, before, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, was * 2.0 / length, rtol=1e-5, atol=1e-6)


def test_short_gradients_stay() -> None:
    parameters = gradients(0.01)
    before = [p.grad.clone() for p in parameters if p.grad is not None]
    GradientClipping(2.0).on_gradients(parameters)
    for parameter, was in zip(parameters, before, strict=True):
        torch.testing.assert_close(parameter.grad, was, rtol=0, atol=0)


def test_neutral_is_off() -> None:
    assert not GradientClipping().active
    assert GradientClipping(1.0).active


@pytest.mark.parametrize("norm", [-1, float("nan"), float("inf")])
def test_refuses(norm: float) -> None:
    with pytest.raises(UserError, match=r"gradient_clipping\.norm"):
        GradientClipping(norm)
