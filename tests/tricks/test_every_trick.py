"""What holds for each trick: off it is not there, on it changes the training, the same way each time, and resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bagoftricks.data.index import ImageIndex, subset
from bagoftricks.recipe import Conditions, Recipe, Value, identity
from bagoftricks.training.fit import Listener
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.train import Result, train
from bagoftricks.tricks.base import Trick

CPU = Hardware("cpu", "fp32", 1)
NAMES = [f.name for f in fields(Recipe) if isinstance(getattr(Recipe(), f.name), Trick)]
ON: dict[str, dict[str, Value]] = {name: import_module(f"tests.tricks.test_{name}").ON for name in NAMES}
"""A setting of each, from its own test."""


@pytest.fixture(scope="module")
def uneven(digits: ImageIndex) -> ImageIndex:
    """Classes of 20 and of 10 digits."""
    kept = [i for i in range(len(digits)) if digits.labels[i] < 5 or i % 2]
    return subset(digits, kept)


def weights_of(result: Result) -> dict[str, torch.Tensor]:
    assert result.model is not None
    return result.model.state_dict()


def equal(a: Result, b: Result) -> bool:
    return all(torch.equal(value, weights_of(b)[name]) for name, value in weights_of(a).items())


@pytest.fixture(scope="module")
def plain(uneven: ImageIndex) -> Callable[[Recipe], Result]:
    """Trains a recipe without tricks, once."""
    return cache(lambda recipe: train(recipe, uneven, hardware=CPU))


@pytest.mark.parametrize("name", NAMES)
def test_on_it_changes_the_training_the_same_way_each_time_and_resumes(
    name: str, uneven: ImageIndex, recipe: Recipe, plain: Callable[[Recipe], Result], tmp_path: Path
) -> None:
    base = recipe.with_fields({"label_smoothing.amount": 0.0, "epochs": 1})
    chosen = base.with_fields(ON[name])
    assert list(chosen.tricks) == [name]
    once = train(chosen, uneven, hardware=CPU)
    others = {field: value for field, value in ON[name].items() if not field.startswith(f"{name}.")}
    assert not equal(once, plain(base.with_fields(others)))
    assert all(np.isfinite(value) for value in once.measures.values())

    def cut(done: int, total: int) -> None:
        if done == 4:
            while not list(tmp_path.glob("runs/*.partial/checkpoint/state.pt")):
                pass
            raise InterruptedError

    options: dict[str, Any] = {"out": tmp_path, "hardware": CPU}
    with pytest.raises(InterruptedError):
        train(chosen, uneven, listener=Listener(on_step=cut), checkpoint_minutes=1e-9, **options)
    resumed: list[int] = []
    again = train(chosen, uneven, listener=Listener(on_resume=lambda done, total: resumed.append(done)), **options)
    assert resumed
    assert equal(once, again)
    assert once.measures == again.measures


@pytest.mark.parametrize("name", NAMES)
def test_off_it_leaves_no_trace_in_a_runs_identity(name: str) -> None:
    off = Recipe().with_fields({"label_smoothing.amount": 0.0})
    conditions = Conditions(0, "data")
    assert not any(field.startswith(f"{name}.") for field in off.canonical())
    assert identity(off, conditions) != identity(off.with_fields(ON[name]), conditions)
