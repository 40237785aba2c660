from __future__ import annotations

import pytest

from bagoftricks.data.batches import Batches
from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import UserError
from bagoftricks.recipe import Recipe
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.train import train
from bagoftricks.tricks.fixres import Fixres, reduced

ON = {"fixres.share": 0.75, "input.size": 64}


@pytest.mark.parametrize("size", [32, 64, 72, 128, 224, 300])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.75, 0.78, 0.8, 0.99])
def test_against_an_explicit_search(size: int, share: float) -> None:
    grid = list(range(32, size + 1, 16))
    nearest = min(grid, key=lambda side: (abs(side - size * share), -side))
    found = reduced(size, share)
    assert found == nearest or (found == size and abs(size - size * share) < abs(nearest - size * share) + 16)
    assert 32 <= found <= size


def test_the_papers_and_torchvisions_pairs() -> None:
    assert reduced(160, 0.8) == 128
    assert reduced(224, 0.78) == 176


def test_training_is_small_and_grows_to_it_beside_progressive_resizing(
    digits: ImageIndex, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[int, set[int]] = {}
    seen: set[int] = set()
    training, evaluation = Batches.training, Batches.evaluation

    def spy(self: Batches, epoch: int, *given: object) -> object:
        for x, y in training(self, epoch, *given):  # type: ignore[arg-type]
            sizes.setdefault(epoch, set()).add(x.shape[-1])
            yield x, y

    def look(self: Batches) -> object:
        for x, y in evaluation(self):
            seen.add(x.shape[-1])
            yield x, y

    monkeypatch.setattr(Batches, "training", spy)
    monkeypatch.setattr(Batches, "evaluation", look)
    chosen = recipe.with_fields(
        {**ON, "epochs": 2, "progressive_resizing.start": 0.6, "progressive_resizing.until": 0.5}
    )
    train(chosen, digits, hardware=Hardware("cpu", "fp32", 1))
    assert sizes == {0: {32}, 1: {48}}
    assert seen == {64}


def test_neutral_is_off() -> None:
    assert not Fixres().active
    assert Fixres().on_size(100, 0, 3) == 100


@pytest.mark.parametrize("share", [0.0, 1.01, float("nan")])
def test_refuses(share: float) -> None:
    with pytest.raises(UserError, match=r"fixres\.share"):
        Fixres(share)
