from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from bagoftricks.errors import UserError
from bagoftricks.optim import OptimizerConfig, ScheduleConfig, lr_factor


def test_cosine_matches_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(50):
        assert lr_factor(ScheduleConfig("cosine"), step, 50, 10) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-9
        )
        optimizer.step()
        reference.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)


def test_warmup_is_linear_and_hands_over_at_the_base_rate() -> None:
    schedule = ScheduleConfig("cosine", warmup_epochs=0.5)
    factors = [lr_factor(schedule, step, 40, 20) for step in range(40)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1
    assert factors[25] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)
    assert all(a > b for a, b in pairwise(factors[10:]))


def test_one_cycle_matches_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=50, cycle_momentum=False)
    for step in range(50):
        schedule = ScheduleConfig("onecycle", warmup_epochs=0.5)  # it has a rise of its own
        assert lr_factor(schedule, step, 50, 10) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if step < 49:
            reference.step()


@pytest.mark.parametrize("total", [1, 2, 3, 4, 7, 10])
def test_one_cycle_of_few_steps(total: int) -> None:
    factors = [lr_factor(ScheduleConfig("onecycle"), step, total, 1) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[-1] < 0.01


def test_steps_match_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.StepLR(optimizer, step_size=20, gamma=0.3)
    for step in range(70):
        schedule = ScheduleConfig("step", step_epochs=2, step_factor=0.3)
        assert lr_factor(schedule, step, 70, 10) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


def test_steps_are_counted_from_the_start_of_the_training() -> None:
    """Warm-up takes place within them."""
    schedule = ScheduleConfig("step", warmup_epochs=1.5, step_epochs=2, step_factor=0.3)
    factors = [lr_factor(schedule, step, 70, 10) for step in range(70)]
    assert factors[:15] == pytest.approx([(i + 1) / 15 for i in range(15)])
    assert factors[15:20] == [1.0] * 5
    assert factors[20:40] == pytest.approx([0.3] * 20)
    assert factors[40:60] == pytest.approx([0.09] * 20)


def test_constant_is_constant() -> None:
    assert {lr_factor(ScheduleConfig(), step, 40, 20) for step in range(40)} == {1.0}


def test_warmup_longer_than_training_never_divides_by_zero() -> None:
    assert [lr_factor(ScheduleConfig("cosine", 9), step, 4, 2) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_builds_the_optimizer(name: str, kind: type) -> None:
    config = OptimizerConfig(name=name, lr=0.1, momentum=0.8, beta2=0.95, weight_decay=0.01)  # type: ignore[arg-type]
    optimizer = config.build([torch.nn.Parameter(torch.zeros(1))])
    group = optimizer.param_groups[0]
    assert type(optimizer) is kind
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.01)
    assert group.get("momentum", group.get("betas", (0,))[0]) == 0.8
    assert name == "sgd" or group["betas"] == (0.8, 0.95)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimizerConfig(name="adm"), "unknown optimizer.name 'adm': did you mean 'adam'"),  # type: ignore[arg-type]
        (lambda: OptimizerConfig(lr=0), "optimizer.lr = 0"),
        (lambda: OptimizerConfig(momentum=1), "optimizer.momentum = 1"),
        (lambda: OptimizerConfig(weight_decay=-1), "optimizer.weight_decay = -1"),
        (lambda: ScheduleConfig(decay="cosin"), "did you mean 'cosine'"),  # type: ignore[arg-type]
        (lambda: ScheduleConfig(warmup_epochs=float("nan")), "schedule.warmup_epochs"),
        (lambda: ScheduleConfig(step_epochs=0), "schedule.step_epochs"),
        (lambda: ScheduleConfig(step_factor=1), "schedule.step_factor"),
    ],
)
def test_refuses(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()  # type: ignore[operator]
