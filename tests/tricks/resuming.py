"""Trainings that are cut and go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bagoftricks.data.index import ImageIndex
from bagoftricks.recipe import Recipe
from bagoftricks.training.fit import Listener
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.train import Result, train

CPU = Hardware("cpu", "fp32", 1)


def weights_of(result: Result) -> dict[str, torch.Tensor]:
    assert result.model is not None
    return result.model.state_dict()


def equal(a: Result, b: Result) -> bool:
    return all(torch.equal(value, weights_of(b)[name]) for name, value in weights_of(a).items())


def cut_and_resumed(chosen: Recipe, index: ImageIndex, out: Path) -> Result:
    """Trains half of a run, and then the rest from its checkpoint."""

    def cut(done: int, total: int) -> None:
        if done == total // 2 + 1:  # of several epochs, in the second
            deadline = time.monotonic() + 30
            while not list(out.glob("runs/*.partial/checkpoint/state.pt")) and time.monotonic() < deadline:
                time.sleep(0.01)
            raise InterruptedError

    options: dict[str, Any] = {"out": out, "hardware": CPU}
    with pytest.raises(InterruptedError):
        train(chosen, index, listener=Listener(on_step=cut), checkpoint_minutes=1e-9, **options)
    resumed: list[int] = []
    again = train(chosen, index, listener=Listener(on_resume=lambda done, total: resumed.append(done)), **options)
    assert resumed
    return again
