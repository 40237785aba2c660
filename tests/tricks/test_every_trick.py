"""What holds for each trick: off it is not there, on it changes the training, the same way each time, and resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from bagoftricks.data.index import ImageIndex, subset
from bagoftricks.dotted import Value
from bagoftricks.recipe import Conditions, Recipe, identity
from bagoftricks.training.train import Result, train
from bagoftricks.tricks.base import Trick
from tests.tricks.resuming import CPU, cut_and_resumed, equal, whole_and_resumed

NAMES = [f.name for f in fields(Recipe) if isinstance(getattr(Recipe(), f.name), Trick)]
ON: dict[str, dict[str, Value]] = {name: import_module(f"tests.tricks.test_{name}").ON for name in NAMES}
"""A setting of each, from its own test."""


@pytest.fixture(scope="module")
def uneven(digits: ImageIndex) -> ImageIndex:
    """Classes of 20 and of 10 digits."""
    kept = [i for i in range(len(digits)) if digits.labels[i] < 5 or i % 2]
    return subset(digits, kept)


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
    once, again = whole_and_resumed(chosen, uneven, tmp_path)
    others = {field: value for field, value in ON[name].items() if not field.startswith(f"{name}.")}
    without = plain(base.with_fields(others))
    assert once.measures != without.measures
    assert equal(once, without) == (name == "test_time_flip")  # which leaves the training alone
    assert all(np.isfinite(value) for value in once.measures.values())
    assert equal(once, again)
    assert once.measures == again.measures


def test_tricks_with_a_state_resume_together(uneven: ImageIndex, recipe: Recipe, tmp_path: Path) -> None:
    names = ("linear_probe", "sam", "ema", "gradient_clipping", "no_bias_decay", "dropout", "progressive_resizing")
    chosen = recipe.with_fields({field: value for name in names for field, value in ON[name].items()} | {"epochs": 2})
    once = train(chosen, uneven, hardware=CPU)
    assert equal(once, cut_and_resumed(chosen, uneven, tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_off_it_leaves_no_trace_in_a_runs_identity(name: str) -> None:
    off = Recipe().with_fields({"label_smoothing.amount": 0.0})
    conditions = Conditions(0, "data")
    assert not any(field.startswith(f"{name}.") for field in off.canonical())
    others = {field: value for field, value in ON[name].items() if not field.startswith(f"{name}.")}
    assert identity(off.with_fields(others), conditions) != identity(off.with_fields(ON[name]), conditions)
