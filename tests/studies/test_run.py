"""Studies on tiny data: nothing twice, nothing lost, failures reported."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import DeviceMemoryError, UserError
from bagoftricks.files import write_json
from bagoftricks.models.resnet import ResNet
from bagoftricks.progress import StudyProgress
from bagoftricks.recipe import Recipe
from bagoftricks.reports.results import read_results
from bagoftricks.store import Store
from bagoftricks.studies.best import keep_best
from bagoftricks.studies.continuing import merged
from bagoftricks.studies.cost import estimate, given_up, trimmed
from bagoftricks.studies.design import Study
from bagoftricks.studies.engine import Event, Task
from bagoftricks.studies.inference import detectable
from bagoftricks.studies.plan import plan_study
from bagoftricks.studies.run import execute_plan, run_study
from bagoftricks.study_folder import read_plan
from bagoftricks.training import speed
from bagoftricks.training.train import train
from tests.conftest import make_photos


@pytest.fixture(scope="module")
def study(recipe: Recipe) -> Study:
    fixed = recipe.with_fields({"epochs": 1, "batch_size": 64})
    return Study("tiny", fixed, {"mixup.alpha": [0.0, 0.2]}, seeds=(0, 1))


def execute(study: Study, index: ImageIndex, out: Path, **options: int) -> list[tuple[str, str]]:
    events: list[Event] = []
    execute_plan(plan_study(study, index, out=out, **options), out, on_event=events.append)
    return [(event.kind, event.task.name) for event in events]


def test_nothing_is_done_twice_and_seeds_may_join(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    one = study.adapted({}, seeds=1)
    first = execute(one, digits, tmp_path, jobs=2)
    assert sorted(name for kind, name in first if kind == "done") == ["baseline seed 0", "mixup.alpha=0.2 seed 0"]
    left = [run / "checkpoint" for run in (tmp_path / "runs").iterdir()]
    for folder in left:  # as after a kill in the moment when a run is in its place, and its checkpoint still in it
        folder.mkdir()
        (folder / "state.pt").write_bytes(b"state")
    assert execute(one, digits, tmp_path) == []
    assert not [folder for folder in left if folder.exists()]
    plan = plan_study(one, digits, out=tmp_path)
    (tmp_path / "runs" / plan.runs[0].id / "checkpoint").mkdir()
    train(plan.runs[0].cell.recipe, digits, seed=plan.runs[0].seed, out=tmp_path, hardware=plan.hardware)
    assert not [folder for folder in left if folder.exists()]
    stamp = {
        run.id: (tmp_path / "runs" / run.id / "result.json").stat().st_mtime_ns for run in read_results(tmp_path).runs
    }
    second = execute(study, digits, tmp_path, jobs=1)
    assert sorted(name for kind, name in second if kind == "done") == ["baseline seed 1", "mixup.alpha=0.2 seed 1"]
    results = read_results(tmp_path)
    assert results.counts() == {"done": 4, "running": 0, "failed": 0, "left": 0}
    assert results.plan["study"]["seeds"] == [0, 1]
    for run_id, time_ns in stamp.items():
        assert (tmp_path / "runs" / run_id / "result.json").stat().st_mtime_ns == time_ns
    spread = results.spread("baseline", "top1")
    assert spread is not None
    assert spread.n == 2

    # an earlier seed count forgets nothing
    assert execute(one, digits, tmp_path) == []
    assert read_results(tmp_path).counts()["done"] == 4

    # the folder belongs to its study
    with pytest.raises(UserError, match="with other settings"):
        execute(study.adapted({"optimizer.lr": 0.5}), digits, tmp_path)
    with pytest.raises(UserError, match="holds another data"):
        plan_study(study, "digits", out=tmp_path)
    with pytest.raises(UserError, match="holds another study"):
        plan_study(replace(study, name="other"), digits, out=tmp_path)
    with pytest.raises(UserError, match="with other settings"):  # nor may new seeds of a cell differ from its old ones
        plan_study(replace(study.adapted({"epochs": 2}), seeds=(7,)), digits, out=tmp_path)


def test_a_folder_takes_no_cells_that_its_own_would_confound(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    """Those that stay have no level of a factor that came, and a ladder's steps lead from one to the next."""

    def planned(design: str, factors: dict[str, list[Any]], out: str) -> dict[str, Any]:
        plan = plan_study(Study("s", study.recipe, factors, design), digits, out=tmp_path / out)
        write_json(tmp_path / out / "plan.json", merged(plan, Store(tmp_path / out)))
        return read_plan(tmp_path / out)

    both = {"mixup.alpha": [0.0, 0.2], "label_smoothing.amount": [0.1, 0.0]}
    planned("full", {"mixup.alpha": [0.0, 0.2]}, "grown")
    assert len(planned("full", both, "grown")["cells"]) == 4  # what was there is part of it
    with pytest.raises(UserError, match=r"of a study of other factors \(label_smoothing.amount is in one alone\)"):
        planned("full", {"mixup.alpha": [0.0, 0.2]}, "grown")
    longer = {**both, "optimizer.lr": [0.001, 0.01]}
    planned("ladder", longer, "ladder")
    planned("ladder", longer, "ladder")
    with pytest.raises(UserError, match="holds a ladder with another step|of other factors"):
        planned("ladder", {"label_smoothing.amount": [0.1, 0.0], "optimizer.lr": [0.001, 0.01]}, "ladder")
    with pytest.raises(UserError, match="holds a ladder with another step"):
        planned("ladder", {name: longer[name] for name in reversed(longer)}, "ladder")


def test_the_time_left_counts_no_epochs_of_earlier_attempts(
    study: Study, digits: ImageIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that continues tells its earlier epochs again, within the second."""
    runs = plan_study(study.adapted({"epochs": 4}), digits, out=tmp_path).runs
    task = stub_task(runs[0].id, runs[0].name, runs[0].cell.recipe, tmp_path)
    with StudyProgress(runs) as progress:
        progress.started -= 100.0
        for epoch, seconds in ((1, 0.5), (2, 0.6), (3, 100.0)):
            row = {"epoch": epoch, "images_per_s": 9.0, "train_s": 90.0}
            progress.on_event(Event("epoch", task, row=row, seconds=seconds))
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(", ")[2] for line in lines] == ["an unknown time left in all"] * 2 + ["22 min left in all"]


def test_a_folder_of_an_earlier_version_continues(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    first = plan_study(study.adapted({}, seeds=1), digits, out=tmp_path).to_dict()
    assert first["data"].pop("class_names") == list("0123456789")
    write_json(tmp_path / "plan.json", first)
    later = plan_study(study, digits, out=tmp_path)
    assert [run.id for run in later.runs[:2]] == [run["id"] for run in first["runs"]]
    assert later.to_dict()["data"]["class_names"] == list("0123456789")


def test_a_folder_goes_on_with_its_kernels(
    study: Study, digits: ImageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bagoftricks.training.hardware.load", lambda: object())
    assert plan_study(study, digits, precision="bf16").hardware.kernels == "native"
    plan = plan_study(study, digits, precision="bf16", kernels="torch").to_dict()
    assert plan["hardware"].pop("kernels") == "torch"  # as folders were written before there was a choice
    write_json(tmp_path / "plan.json", plan)
    assert plan_study(study, digits, out=tmp_path, precision="bf16").hardware.kernels == "torch"
    for other in ({"precision": "bf16", "kernels": "native"}, {"precision": "fp32"}):
        with pytest.raises(UserError, match=r"with other settings \(.* kernels\); choose another --out"):
            plan_study(study, digits, out=tmp_path, **other)  # type: ignore[arg-type]


def test_one_failing_run_does_not_stop_the_others(recipe: Recipe, digits: ImageIndex, tmp_path: Path) -> None:
    fixed = recipe.with_fields({"epochs": 2, "batch_size": 8, "optimizer.name": "sgd", "schedule.decay": "constant"})
    study = Study("breaks", fixed, {"optimizer.lr": [100.0, 0.01]})
    kinds = execute(study, digits, tmp_path)
    assert ("failed", "baseline seed 0") in kinds
    assert ("done", "optimizer.lr=0.01 seed 0") in kinds
    results = read_results(tmp_path)
    assert results.counts() == {"done": 1, "running": 0, "failed": 1, "left": 0}
    (failed,) = (run for run in results.runs if run.state == "failed")
    assert "loss became" in failed.error
    again = execute(study, digits, tmp_path)  # what failed is tried again when asked for again
    assert ("failed", "baseline seed 0") in again
    assert len(again) == 2


def test_planning_writes_nothing_and_costs_are_stated(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    plan = plan_study(study, digits, out=tmp_path / "out", jobs=1000)
    assert plan.jobs * plan.hardware.threads <= (os.cpu_count() or 1)
    assert len(plan.runs) == len({run.id for run in plan.runs}) == 4
    cost = estimate(plan, tmp_path / "out")
    assert cost.runs == 4
    assert cost.images == 4 * 160
    assert cost.seconds == pytest.approx(4 * (160 + 0.35 * 40) / cost.images_per_s / plan.jobs)
    assert list(tmp_path.iterdir()) == []
    written = json.loads(json.dumps(plan.to_dict()))
    assert {"cells", "runs"} <= set(written)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"batch_size": 161}, "larger than the training set"), ({"init": "none.pth"}, "no such file")],
)
def test_refuses_before_writing(
    study: Study, digits: ImageIndex, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_study(study.adapted(changes), digits, out=tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_unfitting_weights_are_refused_before_writing(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"w\.pth"):
        run_study(study.adapted({"init": str(tmp_path / "w.pth")}), digits, out=tmp_path / "out")
    with pytest.raises(UserError, match="pass --init with a file of ImageNet weights"):
        run_study("paper", digits, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_may_move(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    """A run is named by their content, and a study continues wherever they lie."""
    out = tmp_path / "out"
    save_file(ResNet("A", 10, num_classes=10).state_dict(), tmp_path / "w.safetensors")
    first = plan_study(study.adapted({"init": str(tmp_path / "w.safetensors")}), digits, out=out)
    write_json(out / "plan.json", first.to_dict())
    (tmp_path / "w.safetensors").rename(tmp_path / "moved.safetensors")
    second = plan_study(study.adapted({"init": str(tmp_path / "moved.safetensors")}, seeds=3), digits, out=out)
    assert [run.id for run in second.runs[:4]] == [run.id for run in first.runs]
    save_file(ResNet("A", 10, num_classes=10, seed=1).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="with other settings"):
        plan_study(study.adapted({"init": str(tmp_path / "other.safetensors")}), digits, out=out)


def test_never_writes_into_the_data(study: Study, photos: Path) -> None:
    before = sorted(photos.rglob("*"))
    with pytest.raises(UserError, match="lies inside the data folder"):
        run_study(study.adapted({"batch_size": 8}), photos, out=photos / "study")
    assert sorted(photos.rglob("*")) == before


def test_weights_stay_by_policy(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    counts = {}
    for keep in ("none", "best", "all"):
        out = run_study(study, digits, out=tmp_path / keep, jobs=2, keep=keep)
        counts[keep] = len(Store(out).models())
        results = read_results(out)
        if keep == "best":
            means = {cell: results.spread(cell, "top1").mean for cell in results.cells}  # type: ignore[union-attr]
            best = {run.id for run in results.of_cell(max(means, key=lambda cell: means[cell]))}
            assert {run.id for run in Store(out).models()} == best
    assert counts == {"none": 0, "best": 2, "all": 4}
    store, plan = Store(tmp_path / "all"), plan_study(study, digits, out=tmp_path / "all")
    shutil.rmtree(store.runs / plan.runs[0].id)  # with it another cell may be the best
    assert keep_best(plan, store).endswith("1 of 4 runs is not finished; the same command tries again")
    assert len(store.models()) == 3
    with pytest.raises(UserError, match="unknown policy of keeping weights 'bets': did you mean 'best'"):
        run_study(study, digits, out=tmp_path / "none", keep="bets")


def test_max_hours_refuses_or_trims(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    plan = plan_study(study.adapted({}, seeds=6), digits, out=tmp_path)
    cost = replace(
        estimate(plan, tmp_path),
        seconds=6 * 600.0,
        seconds_by_seed=dict.fromkeys(range(6), 600.0),
        longest_by_seed=dict.fromkeys(range(6), 100.0),
    )
    with pytest.raises(
        UserError, match=r"about 1 h to do, more than --max-hours 0.5; 3 of its 6 seeds would fit \(--trim"
    ):
        trimmed(plan, cost, 0.5, allowed=False)
    fewer = trimmed(plan, cost, 0.5, allowed=True)
    assert fewer.seeds == (0, 1, 2)
    text = given_up(plan.study, fewer)
    assert "Trimmed to 3 of 6 seeds" in text
    assert "from 1.4 to 3.3 standard deviations" in text  # scipy's noncentral t, 80 % power: 1.43 and 3.26
    assert "Below 5 seeds there is no verdict" in text
    grown = replace(plan.study, factors={**plan.study.factors, "label_smoothing.amount": [0.0, 0.1]})
    text = given_up(grown, replace(grown, seeds=(0, 1, 2)))  # three effects, which the report corrects together
    assert f"from {detectable(6, 1.0, tests=3):.1f} to {detectable(3, 1.0, tests=3):.1f} standard deviations" in text
    with pytest.raises(UserError, match="one seed alone takes 0.17 h"):
        trimmed(plan, cost, 0.1, allowed=True)
    slow = replace(cost, longest_by_seed=dict.fromkeys(plan.study.seeds, 3000.0))  # one run of it takes so long
    with pytest.raises(UserError, match="one seed alone takes 0.83 h"):
        trimmed(plan, slow, 0.8, allowed=True)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"retries": -1}, "--retries -1: must be at least 0"),
        ({"stall_minutes": 0.0}, "--stall-minutes 0.0: must be above 0"),
        ({"stall_minutes": math.inf}, "--stall-minutes inf: must be above 0"),
    ],
)
def test_limits_that_make_no_sense(
    study: Study, digits: ImageIndex, tmp_path: Path, limits: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_study(study, digits, out=tmp_path / "out", **limits)
    assert not (tmp_path / "out").exists()


def test_progress_tells_every_kind_of_event(
    study: Study, digits: ImageIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = plan_study(study, digits, out=tmp_path).runs
    tasks = [stub_task(run.id, run.name, run.cell.recipe, tmp_path) for run in runs]
    with StudyProgress(runs) as progress:
        progress.on_image(0)
        progress.on_image(0)
        progress.on_event(Event("busy", tasks[0]))
        progress.on_event(Event("retrying", tasks[1], text="it died; it is tried again (1 of 2)"))
        progress.on_event(Event("memory", tasks[1], text="at most 32"))
        progress.on_event(Event("found", tasks[0]))
        progress.on_event(Event("done", tasks[1], seconds=3.0))
        progress.on_event(Event("failed", tasks[2], text="{it} broke"))
    assert capsys.readouterr().err.splitlines() == [
        "another process is decoding the images; waiting for it",
        "baseline seed 0: another process is training it",
        "mixup.alpha=0.2 seed 0: it died; it is tried again (1 of 2)",
        "mixup.alpha=0.2 seed 0: at most 32",
        "[1/4] baseline seed 0: done by another process",
        "[2/4] mixup.alpha=0.2 seed 0: done in 3 s",
        "[3/4] baseline seed 1: FAILED: {it} broke",
    ]


def stub_task(run_id: str, name: str, recipe: Recipe, out: Path) -> Task:
    nothing: Any = None
    return Task(run_id, name, "", recipe, 0, nothing, out, nothing, False)


def test_memory_is_estimated_with_the_batch(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    small, large = (
        estimate(plan_study(study.adapted({"batch_size": size}), digits, out=tmp_path), tmp_path).memory_bytes
        for size in (16, 128)
    )
    assert small < large < 8 * small


def test_copies_across_the_split_are_counted(study: Study, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", each=12)
    for name in ("cat", "dog"):
        for i in range(6):
            shutil.copy(photos / name / f"{i:02d}.jpg", photos / name / f"copy-{i}.jpg")
    small = study.adapted({"batch_size": 8})
    apart = plan_study(small.adapted({"split.duplicates": "ignore"}), photos, out=tmp_path / "o")
    together = plan_study(small, photos, out=tmp_path / "o")
    assert sum(apart.leaks.values()) > 0
    assert set(together.leaks.values()) == {0}
    assert apart.to_dict()["data"]["leaks"] == {str(seed): pairs for seed, pairs in apart.leaks.items()}


def test_runs_on_other_hardware_join_no_folder(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    """Not even runs of which the folder has none yet: an effect between them would be the precision's too."""
    plan = plan_study(study, digits, out=tmp_path, device="cpu", precision="fp32")
    write_json(tmp_path / "plan.json", plan.to_dict())
    factors = {"mixup.alpha": [0.0, 0.2, 0.4]}
    cells = replace(study, design="cells", factors=factors, listed=({"mixup.alpha": 0.4},))
    for other in (replace(study, seeds=(7, 8)), cells):
        plan_study(other, digits, out=tmp_path, device="cpu", precision="fp32")
        with pytest.raises(UserError, match=r"holds runs made otherwise \(precision: fp32 there, bf16 now"):
            plan_study(other, digits, out=tmp_path, device="cpu", precision="bf16", kernels="torch")


def test_a_folder_keeps_what_earlier_plans_knew(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    first = replace(plan_study(study, digits, out=tmp_path), leaks={0: 3, 1: 4})
    write_json(tmp_path / "plan.json", first.to_dict())
    later = replace(study, factors={"mixup.alpha": [0.0, 0.4]}, seeds=(1, 2))
    plan = replace(plan_study(later, digits, out=tmp_path), leaks={1: 4, 2: 5})
    kept = merged(plan, Store(tmp_path))
    assert kept["data"]["leaks"] == {"0": 3, "1": 4, "2": 5}
    assert kept["study"]["factors"] == {"mixup.alpha": [0.0, 0.4, 0.2]}
    assert kept["study"]["seeds"] == [0, 1, 2]


def test_a_folder_keeps_what_its_results_were_judged_by(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    """Once there are any: before, whoever changes the metric has seen nothing."""
    store = Store(tmp_path)

    def plan_for(metric: str) -> list[dict[str, str]]:
        plan = merged(plan_study(replace(study, metric=metric), digits, out=tmp_path), store)
        write_json(store.plan, plan)
        return list(plan["study"].get("earlier", []))

    assert plan_for("top1") == plan_for("macro_f1") == plan_for("top1") == []
    run = plan_study(study, digits, out=tmp_path).runs[0]
    with store.writing(run.id) as writer:
        writer.result({})
    assert plan_for("top1") == []
    once = [{"metric": "top1", "design": study.design}]
    assert plan_for("macro_f1") == plan_for("macro_f1") == once
    assert plan_for("top1") == [*once, {"metric": "macro_f1", "design": study.design}]


@pytest.mark.parametrize("says", [torch.OutOfMemoryError("full"), RuntimeError("CUDA error: out of memory")])
def test_a_device_that_is_nearly_full_is_measured_with_fewer_images(
    study: Study, digits: ImageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: RuntimeError
) -> None:
    """As a GPU is that others use; the runs halve their micro-batch alike."""
    real, asked, fits = speed.training_step, list[int](), [4]

    def step(recipe: Recipe, classes: int, count: int, hardware: Any) -> Any:
        asked.append(count)
        if count > fits[0]:
            raise says
        return real(recipe, classes, count, hardware)

    monkeypatch.setattr(speed, "training_step", step)
    plan = plan_study(study, digits, out=tmp_path)
    cost = estimate(plan, tmp_path)
    assert asked == [16, 8, 4]
    assert cost.images_per_s > 0
    assert cost.memory_bytes > 0
    fits[0] = 1
    with pytest.raises(DeviceMemoryError, match="out of memory with 2 images of 32 pixels at once"):
        estimate(plan, tmp_path)


def test_disk_and_memory_are_those_of_all_runs(study: Study, digits: ImageIndex, tmp_path: Path) -> None:
    """Of networks of two sizes, and two batches, not of whichever comes first."""

    def cost(**factors: list[Any]) -> tuple[int, int, int]:
        varied = replace(study, factors={name.replace("__", "."): levels for name, levels in factors.items()})
        found = estimate(plan_study(varied, digits, out=tmp_path), tmp_path, keep="all")
        return found.disk_bytes, found.kept_bytes, found.memory_bytes

    shallow, deep = cost(model__depth=[10]), cost(model__depth=[34])
    both, reverse = cost(model__depth=[10, 34]), cost(model__depth=[34, 10])
    assert both[:2] == reverse[:2]
    assert both[1] == shallow[1] + deep[1]  # two seeds of each
    assert deep[1] == 2 * 4 * parameters(34)
    assert both[0] > both[1] + 2 * 3 * 4 * parameters(34)  # while it trains, an old and a new checkpoint
    assert both[2] == pytest.approx(deep[2], rel=0.05)
    assert cost(batch_size=[16, 128])[2] == pytest.approx(cost(batch_size=[128])[2], rel=0.05)


def parameters(depth: int) -> int:
    return sum(parameter.numel() for parameter in ResNet("A", depth, num_classes=10).parameters())


def test_needs_data(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names no data"):
        plan_study(study, out=tmp_path)


def _heed_interrupts() -> None:
    """A shell that starts tests in the background has its children ignore SIGINT, from the first to the last."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_an_interrupted_study_continues(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "bagoftricks.cli", "study", "quickstart", "--out", str(tmp_path / "out"), "--seeds", "1",
        "--epochs", "1", "--model.depth", "10", "--split.val-fraction", "0.2", "--split.test-fraction", "0.6",
        "--jobs", "1",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # in step, whatever else runs on these cores
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment, preexec_fn=_heed_interrupts
    )
    store, deadline = Store(tmp_path / "out"), time.monotonic() + 300
    while not any(run.suffix != ".partial" for run in store.runs.glob("*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "interrupted" in error
    (said,) = (line for line in error.splitlines() if line.endswith("runs are finished; the same command continues"))
    before = read_results(tmp_path / "out").counts()
    assert 1 <= before["done"] < 4
    assert said.startswith(f"{before['done']} of 4 ")
    assert before["failed"] == before["running"] == 0
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"{4 - before['done']} run" in done.stderr
    assert read_results(tmp_path / "out").counts()["done"] == 4
