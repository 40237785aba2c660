"""A run that was cut off goes on to the very same weights, measures and predictions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bagoftricks import Result, train
from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import DeviceMemoryError, RunError, StorageError, UserError
from bagoftricks.models.resnet import ResNet
from bagoftricks.recipe import Recipe
from bagoftricks.store import Store
from bagoftricks.training.checkpoint import Checkpoints, State
from bagoftricks.training.fit import Listener
from bagoftricks.training.hardware import Hardware
from tests.conftest import make_photos

CPU = Hardware("cpu", "fp32", 1)
EACH_STEP = 1e-9
"""Minutes between checkpoints: one at each step, if the one before is written."""
TIMES = {"images_per_s", "train_s", "eval_s"}


class Cut(BaseException):
    """What ends a run in these tests; nobody catches it."""


def outcome(folder: Path) -> dict[str, Any]:
    """Returns all of a run's folder that may not depend on interruptions."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    with np.load(folder / "predictions.npz") as arrays:
        predictions = {name: arrays[name].tobytes() for name in arrays.files}
    return {
        "files": sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")),
        "weights": {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "model.safetensors").items()},
        "rows": [{name: value for name, value in row.items() if name not in TIMES} for row in rows],
        "result": {name: value for name, value in result.items() if name != "seconds"},
        "predictions": predictions,
        "recipe": (folder / "recipe.toml").read_text(),
    }


def cut_at(step: int, out: Path) -> Listener:
    """Returns a listener that ends the run after `step` steps, with the newest checkpoint on disk."""

    def on_step(done: int, total: int) -> None:
        if done == step:
            deadline = time.monotonic() + 30
            while not list(out.glob("runs/*.partial/checkpoint/state.pt")) and time.monotonic() < deadline:
                time.sleep(0.01)
            raise Cut

    return Listener(on_step=on_step)


def folder_of(result: Result) -> Path:
    assert result.folder is not None
    return result.folder


@pytest.fixture(scope="module")
def uncut(digits: ImageIndex, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of a run that nothing interrupted."""
    return outcome(folder_of(train(recipe, digits, out=tmp_path_factory.mktemp("uncut"), hardware=CPU)))


RECIPES = {
    "adamw, mixup, smoothing": {"mixup.alpha": 0.2, "label_smoothing.amount": 0.1},
    "sgd, cosine with warm-up": {"optimizer.name": "sgd", "schedule.decay": "cosine", "schedule.warmup_epochs": 0.5},
    "adam": {"optimizer.name": "adam", "optimizer.weight_decay": 0.0},
}


@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
def test_a_run_cut_anywhere_ends_as_if_it_had_not_been(
    changes: dict[str, Any], digits: ImageIndex, tmp_path: Path, recipe: Recipe
) -> None:
    chosen = recipe.with_fields({"epochs": 3, **changes})
    whole = train(chosen, digits, out=tmp_path / "whole", hardware=CPU)
    expected, steps = outcome(folder_of(whole)), len(digits) * 4 // 5 // chosen.batch_size
    rng = np.random.default_rng(7)
    cuts = sorted(rng.choice(np.arange(2, 3 * steps), size=4, replace=False).tolist())
    resumed: list[int] = []
    for cut in cuts:
        with pytest.raises(Cut):
            train(
                chosen, digits, out=tmp_path / "cut", hardware=CPU, listener=cut_at(cut, tmp_path / "cut"),
                checkpoint_minutes=EACH_STEP,
            )  # fmt: skip
    listener = Listener(on_resume=lambda done, total: resumed.append(done))
    again = train(chosen, digits, out=tmp_path / "cut", hardware=CPU, listener=listener)
    assert 0 < resumed[0] < 3 * steps
    assert outcome(folder_of(again)) == expected
    assert again.measures == whole.measures
    assert [row["epoch"] for row in again.history] == [1, 2, 3]


def test_the_checkpoint_between_epochs_is_enough(
    digits: ImageIndex, tmp_path: Path, recipe: Recipe, uncut: dict[str, Any]
) -> None:
    steps = len(digits) * 4 // 5 // recipe.batch_size
    with pytest.raises(Cut):
        train(recipe, digits, out=tmp_path / "cut", hardware=CPU, listener=cut_at(steps + 1, tmp_path / "cut"))
    resumed: list[int] = []
    listener = Listener(on_resume=lambda done, total: resumed.append(done))
    again = train(recipe, digits, out=tmp_path / "cut", hardware=CPU, listener=listener)
    assert resumed == [steps]
    assert outcome(folder_of(again)) == uncut


@pytest.mark.parametrize("damage", ["cut short", "other bytes", "another version", "another micro-batch", "a pickle"])
def test_a_checkpoint_that_cannot_be_continued_costs_time_alone(
    damage: str, digits: ImageIndex, tmp_path: Path, recipe: Recipe, uncut: dict[str, Any]
) -> None:
    out = tmp_path / "cut"
    with pytest.raises(Cut):
        train(
            recipe, digits, out=out, hardware=CPU, listener=cut_at(3, out), checkpoint_minutes=EACH_STEP,
            micro_batch=8 if damage == "another micro-batch" else None,
        )  # fmt: skip
    (path,) = out.glob("runs/*.partial/checkpoint/state.pt")
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "other bytes":
        path.write_bytes(b"<html>")
    elif damage == "another version":
        kept = torch.load(path, weights_only=True)
        torch.save({**kept, "conditions": {**kept["conditions"], "torch": "1.0"}}, path)
    elif damage == "a pickle":
        torch.save(Trap(tmp_path / "sprung"), path)
    resumed: list[int] = []
    listener = Listener(on_resume=lambda done, total: resumed.append(done))
    again = train(recipe, digits, out=out, hardware=CPU, listener=listener)
    assert resumed == []
    assert not (tmp_path / "sprung").exists()
    assert outcome(folder_of(again)) == uncut


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "Input/output error"), RuntimeError("can't allocate memory")]
)
def test_a_checkpoint_that_cannot_be_read_now_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save(State(1, 2, {}, {}, {}, torch.zeros(2), [], 1.5, 2.5))
    checkpoints.wait()

    def load(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", load)
        with pytest.raises(RunError, match="try the same command again"):
            checkpoints.load()
    found = checkpoints.load()
    assert found is not None
    assert found.step == 2


class Trap:
    """Executes something where it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_nothing_is_written_within_where_nothing_is_asked_for(
    digits: ImageIndex, tmp_path: Path, recipe: Recipe
) -> None:
    seen: list[bool] = []

    def look(step: int, total: int) -> None:
        seen.append(bool(list(tmp_path.glob("runs/*.partial/checkpoint/*"))))

    train(recipe, digits, out=tmp_path, hardware=CPU, listener=Listener(on_step=look), checkpoint_minutes=0)
    assert seen
    assert not any(seen)


CHILD = """
import os, signal, sys
from pathlib import Path
import torch
from bagoftricks import train
from bagoftricks.data import cache
from bagoftricks.recipe import Recipe
from bagoftricks.training.fit import Listener
from bagoftricks.training.hardware import Hardware

data, out, recipe, where = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]

def die(*ignored, **named):
    os.kill(os.getpid(), signal.SIGKILL)

listener = Listener()
if where == "in a step":
    listener = Listener(on_step=lambda done, total: die() if done == 4 else None)
elif where == "in a checkpoint":
    plain, saved = torch.save, []
    def save(values, file):
        saved.append(1)
        if len(saved) == 2:
            plain_write = file.write
            def write(data):
                plain_write(data[: len(data) // 2])
                file.flush()
                die()
            file.write = write
        return plain(values, file)
    torch.save = save
elif where == "in the cache":
    listener = Listener(on_image=lambda done: die() if done == 9 else None)
elif where == "at the end":
    import bagoftricks.store
    bagoftricks.store.publish_folder = die
train(
    Recipe.from_toml(recipe), data, out=out, hardware=Hardware("cpu", "fp32", 1), listener=listener,
    checkpoint_minutes=1e-9,
)
"""


@pytest.fixture(scope="module")
def of_photos(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> tuple[Recipe, dict[str, Any]]:
    """A recipe, and the outcome of its run on photographs that nothing killed."""
    root, chosen = tmp_path_factory.mktemp("of photos"), recipe.with_fields({"batch_size": 4})
    return chosen, outcome(folder_of(train(chosen, make_photos(root / "photos"), out=root / "whole", hardware=CPU)))


@pytest.mark.parametrize("where", ["in a step", "in a checkpoint", "in the cache", "at the end"])
def test_a_killed_process_costs_nothing_but_time(
    where: str, photos: Path, tmp_path: Path, of_photos: tuple[Recipe, dict[str, Any]]
) -> None:
    chosen, whole = of_photos
    out = tmp_path / "killed"
    command = [sys.executable, "-c", CHILD, str(photos), str(out), chosen.to_toml(), where]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    left = {p.name.rpartition(".")[2] for p in out.rglob(".*.tmp")}
    assert left or where not in ("in a checkpoint", "in the cache")
    again = train(chosen, photos, out=out, hardware=CPU)
    assert outcome(folder_of(again)) == whole
    assert not list(out.rglob(".*.tmp"))  # nor does anything half-written stay
    assert not list(Store(out).runs.glob("*.partial"))


def test_within_an_epoch_there_is_one_every_few_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("bagoftricks.training.checkpoint.time.monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path, {}, minutes=5)
    state = State(0, 1, {}, {}, {}, torch.zeros(1), [], 1.0, 1.0)
    due = []
    for seconds in (299, 1, 60, 239, 1, 400):
        now[0] += seconds
        due.append(checkpoints.due())
        if due[-1]:
            checkpoints.save(state)
            checkpoints.wait()
    assert due == [False, True, False, False, True, True]
    never = Checkpoints(tmp_path, {}, minutes=0)
    now[0] += 10_000
    assert not never.due()


def test_a_disk_that_fills_while_a_checkpoint_is_written_is_named(
    digits: ImageIndex, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = torch.save

    def save(values: Any, file: Any) -> None:
        with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
            plain(values, full)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(StorageError, match="no room is left on the disk; make some, and give the same command again"):
        train(recipe, digits, out=tmp_path, hardware=CPU, checkpoint_minutes=EACH_STEP)
    monkeypatch.undo()
    assert train(recipe, digits, out=tmp_path, hardware=CPU).history


def test_a_folder_that_vanishes_is_named(digits: ImageIndex, tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "out"

    def vanish(step: int, total: int) -> None:
        if out.exists():
            out.rename(tmp_path / "elsewhere")

    with pytest.raises(StorageError, match=f"{out}: the folder has gone; put it back"):
        train(recipe, digits, out=out, hardware=CPU, listener=Listener(on_step=vanish))


def test_micro_batches_give_the_batchs_gradient_where_no_batch_norm_looks(
    digits: ImageIndex, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In eval mode batch-norm looks at no batch, so that parts add up to the whole, rounding apart."""
    monkeypatch.setattr(ResNet, "train", lambda self, mode=True: torch.nn.Module.train(self, False))
    chosen = recipe.with_fields({"optimizer.name": "sgd", "epochs": 1, "batch_size": 20, "mixup.alpha": 0.2})
    one = train(chosen, digits, out=tmp_path / "1", hardware=CPU)
    six = train(chosen, digits, out=tmp_path / "2", hardware=CPU, micro_batch=7)  # 20 = 7 + 7 + 6
    assert six.measures == pytest.approx(one.measures, rel=1e-3)
    a, b = (load_file(folder_of(result) / "model.safetensors") for result in (one, six))
    assert all(torch.allclose(a[name], b[name], rtol=1e-3, atol=1e-5) for name in a)
    assert json.loads((folder_of(six) / "result.json").read_text())["micro_batch"] == 7
    assert json.loads((folder_of(one) / "result.json").read_text())["micro_batch"] == 20


def test_parts_of_a_batch_have_two_images_at_least(digits: ImageIndex, recipe: Recipe) -> None:
    """Also where an odd batch is halved: batch-norm has no variance over one."""
    seen: list[int] = []
    plain = ResNet.forward

    def forward(self: ResNet, x_NCHW: torch.Tensor) -> torch.Tensor:
        seen.append(len(x_NCHW))
        return plain(self, x_NCHW)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResNet, "forward", forward)
        result = train(recipe.with_fields({"epochs": 1, "batch_size": 33}), digits, hardware=CPU, micro_batch=2)
    assert result.history
    parts = seen[: 4 * 16]
    assert sorted(set(parts)) == [2, 3]
    assert sum(parts) == 4 * 33
    with pytest.raises(UserError, match="micro_batch 1: must be at least 2"):
        train(recipe, digits, hardware=CPU, micro_batch=1)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you …"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.11 GB, other allocations: …"),
    ],
)
def test_memory_that_runs_out_is_named(
    error: RuntimeError, digits: ImageIndex, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ResNet.forward

    def forward(self: ResNet, x_NCHW: torch.Tensor) -> torch.Tensor:
        if len(x_NCHW) > 8:
            raise error
        return plain(self, x_NCHW)

    monkeypatch.setattr(ResNet, "forward", forward)
    with pytest.raises(
        DeviceMemoryError, match="out of memory with 16 images of 32 pixels at once: pass --micro-batch 8"
    ):
        train(recipe, digits, hardware=CPU)


def test_a_state_keeps_the_memory_layout_and_is_a_copy(tmp_path: Path) -> None:
    weights = torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)
    checkpoints = Checkpoints(tmp_path / "a" / "b", {})
    (tmp_path / "a").mkdir()
    state = State(1, 2, {"w": weights}, {"state": {0: {"step": torch.tensor(3.0)}}}, {}, torch.zeros(2), [], 1.5, 2.5)
    checkpoints.save(state)
    before = weights.clone(memory_format=torch.preserve_format)
    weights.zero_()
    checkpoints.wait()
    found = checkpoints.load()
    assert found is not None
    assert torch.equal(found.model["w"], before)
    assert found.model["w"].stride() == before.stride()
    assert (found.epoch, found.step, found.seconds, checkpoints.spent_s) == (1, 2, 1.5, 2.5)
