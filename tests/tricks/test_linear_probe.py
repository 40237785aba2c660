from __future__ import annotations

import numpy as np
import pytest
import torch

from bagoftricks.errors import UserError
from bagoftricks.models.build import build
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.resnet import ResNet, depth_of
from bagoftricks.training.bag import Bag
from bagoftricks.tricks.base import Trick
from bagoftricks.tricks.gradual_unfreezing import GradualUnfreezing
from bagoftricks.tricks.linear_probe import LinearProbe

ON = {"linear_probe.epochs": 1, "epochs": 2}


def free(model: ResNet, epoch: int, **tricks: Trick) -> set[int]:
    """The depths that are trained in an epoch."""
    model.train()
    Bag(tricks, np.array([3, 3]), 0, "cpu").freeze(model, epoch)
    depths = {depth_of(name) for name, p in model.named_parameters() if p.requires_grad}
    fixed = {depth_of(name) for name, p in model.named_parameters() if not p.requires_grad}
    assert not depths & fixed
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.training == (depth_of(name) in depths)
    return depths


def test_the_classifier_alone_then_everything() -> None:
    model = build(ModelConfig("CD", 18), 2)
    assert [free(model, epoch, probe=LinearProbe(2)) for epoch in range(3)] == [{5}, {5}, set(range(6))]


def test_features_stay_and_the_classifier_is_that_of_a_linear_model() -> None:
    """A step of the probe is a step of logistic regression on the features."""
    model = build(ModelConfig("A", 18), 2)
    x, y = torch.randn(8, 3, 32, 32), torch.eye(2).repeat(4, 1)
    with torch.no_grad():
        features = torch.nn.Sequential(*list(model.eval().children())[:-1])(x).flatten(1)
    free(model, 0, probe=LinearProbe(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.nn.functional.cross_entropy(model(x), y).backward()
    assert all(p.grad is None for name, p in model.named_parameters() if depth_of(name) < 5)
    error = (model.fc(features).softmax(1) - y) / 8
    torch.testing.assert_close(model.fc.weight.grad, error.T @ features, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # statistics too


def test_two_that_freeze_agree_on_what_both_let_go() -> None:
    model = build(ModelConfig("A", 18), 2)
    tricks = {"probe": LinearProbe(3), "gradual": GradualUnfreezing(1)}
    assert [free(model, epoch, **tricks) for epoch in (1, 3)] == [{5}, {2, 3, 4, 5}]


def test_neutral_is_off() -> None:
    assert not LinearProbe().active


def test_refuses() -> None:
    with pytest.raises(UserError, match=r"linear_probe\.epochs"):
        LinearProbe(-1)
