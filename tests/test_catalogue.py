"""The bag's catalogue: every trick has a card, and the commands show it."""

from __future__ import annotations

import json
from dataclasses import fields
from pkgutil import iter_modules

import pytest

from bagoftricks import tricks
from bagoftricks.catalogue import BUILT_IN, card, cards, read_card
from bagoftricks.cli import main
from bagoftricks.errors import UserError
from bagoftricks.optim import DECAYS
from bagoftricks.recipe import Recipe
from bagoftricks.tricks.base import Trick


def test_every_file_of_tricks_is_a_field_of_the_recipe_and_has_a_card() -> None:
    files = {module.name for module in iter_modules(tricks.__path__)} - {"base"}
    named = {f.name for f in fields(Recipe) if isinstance(getattr(Recipe(), f.name), Trick)}
    assert files == named
    assert set(cards()) == named | set(BUILT_IN)
    assert set(DECAYS) - {"constant"} <= set(BUILT_IN)


def test_a_card_says_what_there_is_to_know() -> None:
    for name, found in cards().items():
        assert len(found.summary) > 20, name
        assert found.cost.endswith("."), name
        assert any(mark in found.source for mark in ("arXiv", "19", "20")), name
        assert found.fields or name == "low_precision", name
    mixup = card("mixup")
    assert mixup.fields == {"mixup.alpha": 0.0}
    assert "1710.09412" in mixup.source
    assert "CutMix" in mixup.interacts
    assert "lam ~ Beta(alpha, alpha)" in mixup.about
    assert not mixup.on_by_default
    assert {name for name, c in cards().items() if c.on_by_default} == {
        "label_smoothing", "cosine", "warmup", "low_precision", "B",
    }  # fmt: skip


def test_a_docstring_without_its_parts_is_no_card() -> None:
    with pytest.raises(ValueError, match="noise lacks a title, a source or a cost"):
        read_card("noise", "Noise: add noise.\n\nSource: nobody 2020.\n", {}, False)


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cards())
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tricks"]
    assert [row["name"] for row in rows] == list(cards())
    by_name = {row["name"]: row for row in rows}
    assert by_name["ema"]["fields"]["ema.decay"]["default"] == 0.0
    assert {"title", "about", "source", "cost", "interacts", "on_by_default"} <= by_name["ema"].keys()


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "no-bias-decay"]) == 0
    text = capsys.readouterr().out
    for part in ("No bias decay", "Cost:", "Source:", "no_bias_decay.on = false"):
        assert part in text
    assert main(["show", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "B"


def test_show_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="did you mean 'cutmix'"):
        card("cutmx")
    assert main(["show", "mixupp"]) == 2
    assert "did you mean 'mixup'" in capsys.readouterr().err
