from __future__ import annotations

from pathlib import Path

import pytest

from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import UserError
from bagoftricks.recipe import Recipe
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.train import train
from bagoftricks.tricks.early_stopping import EarlyStopping, stalled

ON = {
    "early_stopping.patience": 1,
    "epochs": 3,
    "optimizer.lr": 1e-3,
    "schedule.decay": "constant",
    "model.tweaks": "A",
    "model.depth": 18,
}
"""A network and a rate at which the loss is higher after the second epoch than after the first, by far."""
CPU = Hardware("cpu", "fp32", 1)


def test_against_an_explicit_loop() -> None:
    losses = [3.0, 2.0, 2.5, 2.0, 1.9, 2.2, 2.1, 1.9, 2.0]
    for patience in (1, 2, 3):
        best, waited, expected = float("inf"), 0, None
        for epoch, loss in enumerate(losses):
            if loss < best:
                best, waited = loss, 0
            else:
                waited += 1
            if waited >= patience and expected is None:
                expected = epoch
        found = next((e for e in range(len(losses)) if stalled(losses[: e + 1], patience)), None)
        assert found == expected
    assert not stalled([1.0], 1)


def test_a_training_ends_and_says_what_it_had(digits: ImageIndex, recipe: Recipe, tmp_path: Path) -> None:
    chosen = recipe.with_fields({**ON, "epochs": 8})
    result = train(chosen, digits, out=tmp_path, hardware=CPU)
    losses = [row["eval_loss"] for row in result.history]
    assert 1 < len(losses) < 8
    assert stalled(losses, 1)
    assert not stalled(losses[:-1], 1)
    assert result.measures["loss"] == losses[-1]
    assert train(chosen, digits, out=tmp_path, hardware=CPU).history == result.history


def test_neutral_is_off() -> None:
    assert not EarlyStopping().active


def test_refuses() -> None:
    with pytest.raises(UserError, match=r"early_stopping\.patience"):
        EarlyStopping(-1)
