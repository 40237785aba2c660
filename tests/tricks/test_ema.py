from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel as TorchAverage

from bagoftricks.errors import UserError
from bagoftricks.tricks.ema import AveragedModel, Ema, decay_at

ON = {"ema.decay": 0.9}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))


def walk(model: nn.Module, steps: int, *followers: object) -> list[dict[str, torch.Tensor]]:
    """Changes weights and running statistics `steps` times and returns them after each."""
    generator = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(steps):
        model(torch.randn(4, 3, 6, 6, generator=generator))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        for follower in followers:
            follower.after_step(model) if hasattr(follower, "after_step") else follower.update_parameters(model)  # type: ignore[attr-defined]
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
    return seen


def test_against_an_explicit_loop() -> None:
    model = network()
    mean = {name: value.clone() for name, value in model.state_dict().items()}
    companion = Ema(0.6).companion(model)
    for step, weights in enumerate(walk(model, 12, companion), 1):
        decay = min(0.6, (1 + step) / (10 + step))
        for name, value in weights.items():
            mean[name] = decay * mean[name] + (1 - decay) * value if value.is_floating_point() else value
    averaged = companion.evaluated(model)
    assert averaged is not model
    for name, value in averaged.state_dict().items():
        torch.testing.assert_close(value, mean[name], rtol=1e-5, atol=1e-6)


def test_after_the_ramp_it_is_torchs_average() -> None:
    model = network()
    ours = AveragedModel(model, 0.3)
    ours.steps = 1000  # the ramp is over
    theirs = TorchAverage(
        model, multi_avg_fn=lambda mean, new, _: torch._foreach_lerp_(mean, new, 0.7), use_buffers=False
    )
    theirs.n_averaged += 1  # torch copies at its first update
    walk(model, 5, ours, theirs)
    for mine, other in zip(ours.model.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_ramp() -> None:
    assert [decay_at(step, 0.999) for step in (1, 8, 90)] == [2 / 11, 0.5, 0.91]
    assert decay_at(10**6, 0.999) == 0.999


def test_the_trained_network_is_not_touched_and_a_state_continues() -> None:
    model = network()
    whole, half = AveragedModel(model, 0.9), AveragedModel(model, 0.9)
    walk(model, 3, whole, half)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    continued = AveragedModel(network(7), 0.9)
    continued.load_state_dict(half.state_dict())
    whole.after_step(model)
    continued.after_step(model)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, continued.model.state_dict()[name])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(p.requires_grad for p in whole.model.parameters())


def test_neutral_is_off() -> None:
    assert not Ema().active
    assert Ema(0.9).active


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_refuses(decay: float) -> None:
    with pytest.raises(UserError, match=r"ema\.decay"):
        Ema(decay)


def test_a_tensor_that_is_used_twice_is_averaged_once() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1] = model[0]
    companion, before = AveragedModel(model, 0.9), model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight += 1
    companion.after_step(model)
    torch.testing.assert_close(companion.model[0].weight, before + (1 - decay_at(1, 0.9)))  # type: ignore[index]
