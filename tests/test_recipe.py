from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagoftricks.errors import UserError
from bagoftricks.recipe import Conditions, Recipe, field_help, field_types, identity, parse_value
from bagoftricks.tricks.label_smoothing import LabelSmoothing
from bagoftricks.tricks.mixup import Mixup

HERE = Conditions(seed=0, data="abc")


def test_toml_round_trip() -> None:
    recipe = Recipe().with_fields({"mixup.alpha": 0.2, "model.tweaks": "BCD", "init": "weights/ä.pth", "epochs": 3})
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@given(
    lr=st.floats(1e-6, 10),
    alpha=st.floats(0, 10),
    amount=st.floats(0, 0.9),
    epochs=st.integers(1, 1000),
    flip=st.booleans(),
)
def test_toml_round_trip_of_any_values(lr: float, alpha: float, amount: float, epochs: int, flip: bool) -> None:
    fields = {
        "optimizer.lr": lr,
        "mixup.alpha": alpha,
        "label_smoothing.amount": amount,
        "epochs": epochs,
        "input.flip": flip,
    }
    recipe = Recipe().with_fields(fields)
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert identity(Recipe.from_toml(recipe.to_toml()), HERE) == identity(recipe, HERE)


def test_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().epochs = 3  # type: ignore[misc]


def test_whole_numbers_serve_as_floats() -> None:
    assert Recipe().with_fields({"mixup.alpha": 1}) == Recipe().with_fields({"mixup.alpha": 1.0})
    assert Recipe.from_toml("mixup = { alpha = 1 }").mixup.alpha == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown recipe field 'epoch': did you mean 'epochs'"),
        ("[mixup]\nalfa = 1", "did you mean 'mixup.alpha'"),
        ("epochs = 0", "epochs = 0: must be between"),
        ("epochs = 1.5", "epochs = 1.5: must be a whole number"),
        ("epochs = true", "epochs = True: must be a whole number"),
        ("batch_size = 1", "batch_size = 1: must be"),
        ("init = ''", "init is empty"),
        ("[input]\nsize = 8", "input.size = 8: must be between 32 and 1024"),
        ("[input]\ncrop_min = 0", "input.crop_min = 0"),
        ("[mixup]\nalpha = -0.1", "mixup.alpha = -0.1"),
        ("[label_smoothing]\namount = 1", "label_smoothing.amount = 1"),
        ("[model]\ntweaks = 'BG'", "unknown model.tweaks 'BG'"),
        ("[model]\ndepth = 51", "model.depth = 51: choose from 10"),
        ("[model]\ndepth = 18\ntweaks = 'B'", "have none; use A or letters of C to F"),
        ("[split]\nval_fraction = 1", "split.val_fraction"),
        ("epochs = 2\nschedule = { warmup_epochs = 3 }", "more than the 2 epochs trained"),
        ("schedule = { warmup_epochs = inf }", "at least 0 and finite"),
        ("epochs = ", "no valid TOML"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe.from_toml(text)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Recipe.load(tmp_path / "none.toml")


def test_tweaks_are_canonical() -> None:
    for name in ("DCB", "bcd", "ABCD"):
        assert Recipe().with_fields({"model.tweaks": name}).model.tweaks == "BCD"


def test_identity_changes_with_what_changes_the_result() -> None:
    recipe = Recipe()
    names = {identity(recipe, HERE)}
    for change in ({"optimizer.lr": 0.5}, {"mixup.alpha": 0.1}, {"model.zero_init_gamma": True}, {"input.size": 64}):
        names.add(identity(recipe.with_fields(change), HERE))  # type: ignore[arg-type]
    for field, value in (
        ("seed", 1),
        ("data", "x"),
        ("weights", "x"),
        ("threads", 2),
        ("precision", "bf16"),
        ("device", "cuda"),
        ("deterministic", True),
        ("kernels", "native"),
    ):
        names.add(identity(recipe, dataclasses.replace(HERE, **{field: value})))
    assert len(names) == 13


def test_identity_ignores_where_the_weights_lie() -> None:
    here = dataclasses.replace(HERE, weights="digest")
    assert identity(Recipe(init="a.pth"), here) == identity(Recipe(init="elsewhere/b.pth"), here)


def test_inactive_tricks_leave_no_trace_in_the_identity() -> None:
    off = Recipe(mixup=Mixup(), label_smoothing=LabelSmoothing())
    assert not any(name.startswith(("mixup", "label_smoothing")) for name in off.canonical())
    assert list(off.tricks) == []
    assert list(Recipe(mixup=Mixup(0.2), label_smoothing=LabelSmoothing(0.1)).tricks) == ["label_smoothing", "mixup"]


def test_identity_is_stable() -> None:
    """A change here makes every stored run unreachable: raise recipe.SCHEMA, and say so under Numerics."""
    first = Recipe().with_fields({"split.duplicates": "ignore"})  # what the first version's default did
    assert identity(first, HERE) == "504737d3b39d42ea"


def test_every_field_has_help() -> None:
    assert list(field_help()) == list(field_types())
    assert all(len(text) > 10 for text in field_help().values())


def test_values_from_the_command_line() -> None:
    assert parse_value("input.flip", "off") is False
    assert parse_value("epochs", "3") == 3
    assert parse_value("optimizer.lr", "1e-3") == 0.001
    assert parse_value("optimizer.name", "sgd") == "sgd"
    for name, text in (("input.flip", "perhaps"), ("epochs", "3.5"), ("optimizer.lr", "fast"), ("optimizer.rate", "1")):
        with pytest.raises(UserError):
            parse_value(name, text)


def test_the_cost_of_tricks_is_known_beforehand() -> None:
    assert Recipe().cost == 1.0
    assert Recipe().with_fields({"sam.rho": 0.05, "mixup.alpha": 0.2}).cost == 2.0
    probed = Recipe().with_fields({"epochs": 4, "linear_probe.epochs": 2})
    assert probed.cost == pytest.approx(0.5 + 0.5 / 3)
    unfrozen = Recipe().with_fields({"epochs": 5, "gradual_unfreezing.epochs": 1})
    assert unfrozen.cost == pytest.approx(1 - 2 / 3 * (1 + 0.8 + 0.6 + 0.4 + 0.2) / 5)
    resized = Recipe().with_fields({"epochs": 10, "progressive_resizing.start": 0.5})
    assert 0.6 < resized.cost < 0.75
    with pytest.raises(UserError, match=r"linear_probe\.epochs = 4: must be below epochs = 4"):
        Recipe().with_fields({"epochs": 4, "linear_probe.epochs": 4})
