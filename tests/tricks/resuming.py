"""Trainings that are cut and go on."""

from __future__ import annotations

import shutil
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


def whole_and_resumed(chosen: Recipe, index: ImageIndex, out: Path) -> tuple[Result, Result]:
    """Trains a run to its end, and once more from the checkpoint that it had in the middle."""
    kept = out / "kept"

    def keep(done: int, total: int) -> None:
        if done == total // 2 + 1:
            (state,) = wait_for_checkpoint(out / "whole")
            there = kept / state.relative_to(out / "whole").parent
            there.mkdir(parents=True)
            shutil.copy(state, there)

    whole = train(
        chosen, index, out=out / "whole", hardware=CPU, listener=Listener(on_step=keep), checkpoint_minutes=1e-9
    )
    resumed: list[int] = []
    listener = Listener(on_resume=lambda done, total: resumed.append(done))
    again = train(chosen, index, out=kept, hardware=CPU, listener=listener)
    assert resumed[0] > 0
    return whole, again


def wait_for_checkpoint(out: Path) -> list[Path]:
    """Returns where the checkpoint lies, once a thread has written it."""
    deadline = time.monotonic() + 30
    while not (found := list(out.glob("runs/*.partial/checkpoint/state.pt"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def cut_and_resumed(chosen: Recipe, index: ImageIndex, out: Path) -> Result:
    """Trains half of a run, and then the rest from its checkpoint."""

    def cut(done: int, total: int) -> None:
        if done == total // 2 + 1:  # of several epochs, in the second
            wait_for_checkpoint(out)
            raise InterruptedError

    options: dict[str, Any] = {"out": out, "hardware": CPU}
    with pytest.raises(InterruptedError):
        train(chosen, index, listener=Listener(on_step=cut), checkpoint_minutes=1e-9, **options)
    resumed: list[int] = []
    again = train(chosen, index, listener=Listener(on_resume=lambda done, total: resumed.append(done)), **options)
    assert resumed
    return again
