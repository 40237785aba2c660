"""The learning-rate finder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from bagoftricks.cli import main
from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import RunError, UserError
from bagoftricks.recipe import Recipe
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.lr_find import find_lr, rates, smooth, steepest, valley

CPU = Hardware("cpu", "fp32", 1)


def test_rates_rise_by_the_same_factor() -> None:
    found = rates(1e-5, 1.0, 6)
    assert found == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0])


def test_smoothing_against_scipy() -> None:
    from scipy.ndimage import gaussian_filter1d

    losses = np.random.default_rng(0).normal(2, 1, 60)
    expected = gaussian_filter1d(losses, 3.0, truncate=10.0)
    found = smooth(losses.tolist())
    assert found[25:35] == pytest.approx(expected[25:35].tolist(), rel=1e-5)  # the ends are each one's own affair
    assert smooth([2.0] * 7) == pytest.approx([2.0] * 7)


def test_steepest_and_valley_of_a_made_up_curve() -> None:
    """Flat to 1e-4, down to 1e-2 as a cosine in the logarithm, then up."""
    lrs = rates(1e-6, 1.0, 121)

    def loss(lr: float) -> float:
        share = min(1.0, max(0.0, (math.log10(lr) + 4) / 2))
        return 3 + math.cos(math.pi * share) + max(0.0, math.log10(lr) + 2)

    losses = [loss(lr) for lr in lrs]
    assert steepest(lrs, losses) == pytest.approx(1e-3, rel=0.15)
    assert valley(lrs, losses) == pytest.approx(1e-3, rel=0.3)


def test_valley_against_all_subsequences() -> None:
    from itertools import combinations, pairwise

    losses = np.random.default_rng(1).normal(0, 1, 10).round(1).tolist()
    every = [chosen for n in range(1, 11) for chosen in combinations(range(10), n)]
    falls = [chosen for chosen in every if all(losses[a] > losses[b] for a, b in pairwise(chosen))]
    longest = max(map(len, falls))
    lrs = rates(1e-3, 1.0, 10)
    middles = {round(math.sqrt(lrs[c[0]] * lrs[c[-1]]), 9) for c in falls if len(c) == longest}
    assert round(valley(lrs, losses), 9) in middles


def test_on_digits_it_finds_a_rate_that_trains(digits: ImageIndex, recipe: Recipe) -> None:
    chosen = recipe.with_fields({"optimizer.name": "sgd", "mixup.alpha": 0.2})
    curve = find_lr(chosen, digits, hardware=CPU, steps=60, lowest=1e-4, highest=10.0)
    again = find_lr(chosen, digits, hardware=CPU, steps=60, lowest=1e-4, highest=10.0)
    assert curve == again
    assert curve.broke
    assert 10 <= len(curve.lrs) < 60
    assert 1e-4 < curve.suggestion < curve.lrs[-1] / 2
    assert min(curve.smoothed) < curve.smoothed[0]


def test_rates_are_those_that_the_recipe_would_have(digits: ImageIndex, recipe: Recipe) -> None:
    """With a scaling that halves the rate, twice the rate does the same."""
    scaled = recipe.with_fields({"lr_scaling.per": 2 * recipe.batch_size})
    plain = find_lr(recipe, digits, hardware=CPU, steps=12, lowest=1e-4, highest=1e-2)
    found = find_lr(scaled, digits, hardware=CPU, steps=12, lowest=2e-4, highest=2e-2)
    assert found.losses == pytest.approx(plain.losses, rel=1e-4)
    assert found.suggestion == pytest.approx(2 * plain.suggestion, rel=1e-3)


def test_refuses(digits: ImageIndex, recipe: Recipe) -> None:
    for lowest, highest in ((1.0, 0.1), (0.0, 1.0), (1e-3, 1000.0)):
        with pytest.raises(UserError, match="rates from"):
            find_lr(recipe, digits, hardware=CPU, lowest=lowest, highest=highest)
    with pytest.raises(UserError, match="steps = 2"):
        find_lr(recipe, digits, hardware=CPU, steps=2)
    sgd = recipe.with_fields({"optimizer.name": "sgd"})
    with pytest.raises(RunError, match=r"the loss broke after \d steps, at a rate of .*: begin with a lower one"):
        find_lr(sgd, digits, hardware=CPU, lowest=50.0, highest=100.0)


def test_the_command_draws_and_suggests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "A", "--model.depth", "10", "--size", "32", "--batch-size", "16", "--steps", "20"]
    asked = ["lr-find", "--data", "digits", "--precision", "fp32", "--out", str(tmp_path / "lr"), *flags]
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["lrs"]) == len(found["losses"]) == len(found["smoothed"]) >= 10
    assert found["recipe_lr"] == Recipe().optimizer.lr
    names = {path.name for path in (tmp_path / "lr").iterdir()}
    assert names == {"lr-find.svg", "lr-find.png", "lr-find.csv"}
    svg = (tmp_path / "lr" / "lr-find.svg").read_text()
    assert "suggested: " in svg
    assert len((tmp_path / "lr" / "lr-find.csv").read_text().splitlines()) == 1 + len(found["lrs"])
    assert main(asked) == 0
    assert "Suggested: " in capsys.readouterr().out
    assert main([*asked, "--highest", "1e-9"]) == 2
