"""Same seed, same result: to the last bit, whatever else is otherwise. Times alone may differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from bagoftricks.data import cache
from bagoftricks.data.cache import open_images
from bagoftricks.data.digits import read_digits
from bagoftricks.data.index import subset
from bagoftricks.data.sources import open_data
from bagoftricks.recipe import Recipe
from bagoftricks.store import Store, StoredRun
from bagoftricks.studies.design import Study
from bagoftricks.studies.plan import plan_study
from bagoftricks.studies.run import execute_plan
from bagoftricks.training.hardware import Hardware, has_fast_bf16, why_not_native
from bagoftricks.training.train import train
from tests.conftest import ROOT, make_photos

CPU = Hardware("cpu", "fp32", 1)
RECIPE = Recipe().with_fields(
    {
        "epochs": 2,
        "batch_size": 16,
        "model.tweaks": "CD",  # every kind of layer but B's, which has no operation of its own
        "model.depth": 10,
        "input.size": 32,
        "schedule.warmup_epochs": 0.0,
        "mixup.alpha": 0.2,
    }
)
PRECISIONS = [
    "fp32",
    pytest.param("bf16", marks=pytest.mark.skipif(not has_fast_bf16("cpu"), reason="no bf16 units: emulated")),
    pytest.param("native", marks=pytest.mark.skipif(bool(why_not_native("cpu", "bf16")), reason="no kernels")),
]
"""fp32; bf16 by torch's kernels, and by ours."""
TIMES = ("images_per_s", "train_s", "eval_s")
ELSEWHERE = """
import sys, torch
from pathlib import Path
from tests.test_repeatable import train_digits
deterministic = sys.argv[3] == "True"
train_digits(Path(sys.argv[1]), sys.argv[2], deterministic=deterministic)
assert torch.are_deterministic_algorithms_enabled() == deterministic
"""


def train_digits(out: Path, precision: str = "fp32", seed: int = 0, deterministic: bool = False) -> StoredRun:
    """Trains on eight digits of each class and returns what is kept of it."""
    whole = read_digits()
    eight = subset(whole, np.concatenate([np.flatnonzero(whole.labels == k)[:8] for k in range(10)]).tolist())
    hardware = replace(CPU, precision=precision, deterministic=deterministic)
    if precision == "native":
        hardware = replace(hardware, precision="bf16", kernels="native")
    return stored(train(RECIPE, eight, seed=seed, out=out, hardware=hardware))


def train_photos(out: Path, photos: Path) -> StoredRun:
    return stored(train(RECIPE.with_fields({"batch_size": 8}), photos, out=out, hardware=CPU))


def stored(result: Any) -> StoredRun:
    run = Store(result.folder.parent.parent).get(result.id)
    assert run is not None
    return run


def content(run: StoredRun) -> dict[str, Any]:
    """All that a run's folder says but for times, and the name of the data's folder."""
    result = {name: value for name, value in run.result.items() if name != "seconds"}
    weights = load_file(run.folder / "model.safetensors")  # its header has an order of its own each time
    result["data"] = {name: value for name, value in result["data"].items() if name != "name"}
    return {
        "id": run.id,
        "result": result,
        "epochs": [{name: value for name, value in row.items() if name not in TIMES} for row in run.history],
        "arrays": {name: (a.shape, a.dtype.str, a.tobytes()) for name, a in run.predictions().items()},
        "names": run.names(),
        "weights": {name: (a.shape, a.dtype.str, a.tobytes()) for name, a in weights.items()},
    }


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredRun]:
    """One training in each precision, on demand."""

    class Once(dict[str, StoredRun]):
        def __missing__(self, precision: str) -> StoredRun:
            self[precision] = train_digits(tmp_path_factory.mktemp(precision), precision)
            return self[precision]

    return Once()


@pytest.fixture(scope="module")
def of_photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StoredRun]:
    """A folder of photographs, and a training on them with a cache that one thread has built."""
    root = tmp_path_factory.mktemp("photos")
    photos = make_photos(root / "photos")
    return photos, train_photos(root / "out", photos)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_in_one_process(references: dict[str, StoredRun], tmp_path: Path, precision: str) -> None:
    expected = references[precision]
    torch.manual_seed(7)  # the global generators are nobody's
    assert content(train_digits(tmp_path, precision)) == content(expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_in_another_process_elsewhere(references: dict[str, StoredRun], tmp_path: Path, precision: str) -> None:
    """With another PYTHONHASHSEED and working directory."""
    here = content(references[precision])
    assert content(elsewhere(tmp_path, precision, "17", False)) == here
    assert here["epochs"][-1]["train_loss"] > 0


def test_with_deterministic_algorithms_alone(references: dict[str, StoredRun], tmp_path: Path) -> None:
    """On a CPU the flag changes no bit, and no operation of a training lacks such an algorithm."""
    run = elsewhere(tmp_path, "fp32", "0", True)
    assert run.environment["deterministic"] is True
    assert content(run) == content(references["fp32"])


def elsewhere(tmp_path: Path, precision: str, hash_seed: str, deterministic: bool) -> StoredRun:
    """Trains in a new process, in another working directory."""
    folder = tmp_path / "somewhere else"
    folder.mkdir()
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "out"), precision, str(deterministic)]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    (run,) = Store(tmp_path / "out").models()
    return run


def test_another_seed_gives_another_result(references: dict[str, StoredRun], tmp_path: Path) -> None:
    one, other = content(references["fp32"]), content(train_digits(tmp_path, seed=1))
    assert [key for key in one if one[key] == other[key]] == []


def test_another_precision_gives_another_result(references: dict[str, StoredRun], tmp_path: Path) -> None:
    one, other = content(references["fp32"]), content(train_digits(tmp_path, "bf16"))
    assert one["names"] == other["names"]
    assert [key for key in ("id", "epochs", "weights") if one[key] == other[key]] == []


def test_with_any_number_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs side by side are what they are alone, and what `train` makes of them; the threads being the same."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole = read_digits()
    eight = subset(whole, np.concatenate([np.flatnonzero(whole.labels == k)[:8] for k in range(10)]).tolist())
    study = Study("jobs", RECIPE, {"mixup.alpha": [0.2, 0.0]}, seeds=(0,))
    found: list[dict[str, Any]] = []
    for jobs in (1, 2):
        out = tmp_path / str(jobs)
        plan = plan_study(study, eight, out=out, jobs=jobs, device="cpu", precision="fp32")
        if plan.jobs < jobs:
            pytest.skip("one core: no two runs side by side")
        assert plan.hardware.threads == 1
        execute_plan(plan, out, keep="all", samples=False)
        runs = [Store(out).get(run.id) for run in plan.runs]
        found.append({run.id: content(run) for run in runs if run})
    assert len(found[0]) == 2
    assert found[0] == found[1]
    alone = content(train_digits(tmp_path / "alone"))
    assert found[0][alone["id"]] == alone


def test_a_folders_threads_stay_whatever_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    study = Study("threads", RECIPE.with_fields({"epochs": 1}), {"mixup.alpha": [0.0, 0.2]})
    whole = read_digits()
    first = plan_study(study, whole, out=tmp_path, jobs=1, device="cpu", precision="fp32")
    (tmp_path / "plan.json").write_text(json.dumps(first.to_dict()), encoding="utf-8")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    later = plan_study(study, whole, out=tmp_path, jobs=1, device="cpu", precision="fp32")
    assert later.hardware.threads == first.hardware.threads == 1
    assert [run.id for run in later.runs] == [run.id for run in first.runs]


def test_with_a_cache_that_many_threads_built(of_photos: tuple[Path, StoredRun], tmp_path: Path) -> None:
    photos, expected = of_photos
    open_images(open_data(photos), RECIPE.input.size, tmp_path / "cache", workers=4)
    built = sorted(path.name for path in (tmp_path / "cache").glob("*.u8"))
    assert len(built) == 1
    earlier = expected.folder.parent.parent / "cache"
    assert (tmp_path / "cache" / built[0]).read_bytes() == (earlier / built[0]).read_bytes()
    assert content(train_photos(tmp_path, photos)) == content(expected)


def test_with_images_decoded_at_each_use(
    of_photos: tuple[Path, StoredRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, expected = of_photos
    monkeypatch.setattr(cache, "LIMIT_BYTES", 0)
    assert content(train_photos(tmp_path, photos)) == content(expected)
    assert list(tmp_path.rglob("*.u8")) == []


def test_with_a_folder_of_another_name(
    of_photos: tuple[Path, StoredRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied file by file in the opposite order, and named relative to another working directory."""
    photos, expected = of_photos
    for path in sorted(photos.rglob("*.jpg"), reverse=True):
        copy = tmp_path / "renamed" / path.relative_to(photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert content(train_photos(tmp_path / "out", Path("renamed"))) == content(expected)
