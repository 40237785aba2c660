from __future__ import annotations

import pytest

from bagoftricks.data.batches import Batches
from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import UserError
from bagoftricks.recipe import Recipe
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.train import train
from bagoftricks.tricks.progressive_resizing import ProgressiveResizing, grown

ON = {"progressive_resizing.start": 0.5, "input.size": 64, "epochs": 2}


def test_against_an_explicit_loop() -> None:
    found = [grown(224, epoch, 10, 0.5, 0.8) for epoch in range(10)]
    expected = []
    for epoch in range(10):
        exact = 224 * min(1.0, 0.5 + 0.5 * epoch / 8)
        expected.append(-min((abs(32 * k - exact), -32 * k) for k in range(1, 8))[1])  # the larger where two are near
    assert found == expected
    assert found[0] == 128
    assert found == sorted(found)
    assert found[8:] == [224, 224]


def test_never_below_32_nor_above_the_full_size_which_may_be_odd() -> None:
    assert grown(40, 0, 4, 0.1, 1.0) == 32
    assert grown(72, 3, 4, 0.5, 0.5) == 72
    assert max(grown(72, epoch, 10, 0.9, 1.0) for epoch in range(10)) <= 72


def test_a_training_sees_the_sizes(digits: ImageIndex, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[int, set[int]] = {}
    original = Batches.training

    def spy(self: Batches, epoch: int, *given: object) -> object:
        for x, y in original(self, epoch, *given):  # type: ignore[arg-type]
            sizes.setdefault(epoch, set()).add(x.shape[-1])
            yield x, y

    monkeypatch.setattr(Batches, "training", spy)
    chosen = recipe.with_fields({"epochs": 3, "input.size": 64, "progressive_resizing.start": 0.5})
    train(chosen, digits, hardware=Hardware("cpu", "fp32", 1))
    assert sizes == {0: {32}, 1: {grown(64, 1, 3, 0.5, 0.8)}, 2: {grown(64, 2, 3, 0.5, 0.8)}}


def test_neutral_is_off_and_an_end_alone_does_nothing() -> None:
    assert not ProgressiveResizing().active
    assert not ProgressiveResizing(until=0.5).active


@pytest.mark.parametrize(("start", "until", "field"), [(0.0, 0.8, "start"), (1.1, 0.8, "start"), (0.5, 0.0, "until")])
def test_refuses(start: float, until: float, field: str) -> None:
    with pytest.raises(UserError, match=rf"progressive_resizing\.{field}"):
        ProgressiveResizing(start, until)
