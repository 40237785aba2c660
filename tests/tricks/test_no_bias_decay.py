from __future__ import annotations

import torch

from bagoftricks.models.build import build
from bagoftricks.models.config import ModelConfig
from bagoftricks.optim import OptimizerConfig
from bagoftricks.tricks.no_bias_decay import NoBiasDecay
from tests.tricks.parameters import bag, treated

ON = {"no_bias_decay.on": True, "optimizer.weight_decay": 0.1}


def test_without_tricks_the_parameters_are_as_they_were() -> None:
    model = build(ModelConfig("CD", 18), 2)
    assert [id(p) for p in bag().parameters(model)] == [id(p) for p in model.parameters()]


def test_no_bias_decay_is_timms() -> None:
    from timm.optim import param_groups_weight_decay

    model = build(ModelConfig("CD", 18), 2)
    mine = treated(bag(no_bias_decay=NoBiasDecay(True)).parameters(model), model)
    theirs = treated(param_groups_weight_decay(model, 0.1), model)
    for name in mine:
        assert (mine[name].get("weight_decay") == 0) == (theirs[name]["weight_decay"] == 0), name
    assert mine["fc.bias"]["weight_decay"] == mine["layer1.0.bn1.weight"]["weight_decay"] == 0
    assert "weight_decay" not in mine["fc.weight"]


def test_an_optimiser_decays_what_is_left() -> None:
    model = build(ModelConfig("A", 18), 2)
    optimizer = OptimizerConfig("sgd", 0.1, 0.0, weight_decay=0.5).build(
        bag(no_bias_decay=NoBiasDecay(True)).parameters(model)
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 0.95 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])


def test_neutral_is_off() -> None:
    assert not NoBiasDecay().active


def test_what_timm_leaves_out_is_left_out() -> None:
    """Position embeddings and the class token have three dimensions."""
    from timm.optim import param_groups_weight_decay

    model = build(ModelConfig(backbone="timm:vit_tiny_patch16_224"), 3)
    mine = treated(bag(no_bias_decay=NoBiasDecay(True)).parameters(model), model)
    left_out = {name for name, group in mine.items() if group.get("weight_decay") == 0.0}
    network = model.network
    groups = param_groups_weight_decay(network, 0.05, no_weight_decay_list=network.no_weight_decay())  # type: ignore[operator, arg-type]
    (theirs,) = (group["params"] for group in groups if group["weight_decay"] == 0.0)
    ids = {id(parameter) for parameter in theirs}
    assert left_out == {f"network.{name}" for name, p in network.named_parameters() if id(p) in ids}  # type: ignore[union-attr, operator]
    assert "network.pos_embed" in left_out
