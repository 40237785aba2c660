"""A study folder of the first landed version stays readable, and continues: see fixtures/earliest/README.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bagoftricks.cli import main
from bagoftricks.data.digits import read_digits
from bagoftricks.data.index import ImageIndex, subset
from bagoftricks.errors import UserError
from bagoftricks.recipe import Recipe
from bagoftricks.reports.report import write_report
from bagoftricks.reports.results import read_results
from bagoftricks.store import Store
from bagoftricks.studies.design import Study
from bagoftricks.studies.plan import plan_study
from bagoftricks.studies.run import execute_plan
from bagoftricks.study_folder import read_plan
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.train import train

KEPT = Path(__file__).parent / "fixtures" / "earliest"
WHERE = {"device": "cpu", "precision": "fp32"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT, tmp_path / "study"))


@pytest.fixture(scope="module")
def ten_each() -> ImageIndex:
    whole = read_digits()
    return subset(whole, np.concatenate([np.flatnonzero(whole.labels == k)[:10] for k in range(10)]).tolist())


def as_then(recipe: Recipe) -> Study:
    """The study of the folder; copies were not kept together then, and on one side by default now."""
    small = {"batch_size": 16, "split.duplicates": "ignore", "model.depth": 18}
    return Study("earliest", recipe.with_fields(small), {"mixup.alpha": [0.0, 0.2]}, seeds=(0, 1))


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted((folder / "runs").rglob("*")) if path.is_file()}


def test_it_is_as_it_was_written() -> None:
    plan = json.loads((KEPT / "plan.json").read_text(encoding="utf-8"))
    assert "class_names" in plan["data"]
    assert "leaks" not in plan["data"]
    assert "split.duplicates" not in plan["study"]["recipe"]
    assert set(plan["hardware"]) == {"device", "precision", "threads"}


def test_status_and_report_read_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in told["runs"]] == ["done"] * 4
    assert main(["status", str(folder)]) == 0
    assert "mixup.alpha=0.2" in capsys.readouterr().out
    before = stamps(folder)
    assert main(["report", str(folder)]) == 0
    capsys.readouterr()
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "mixup.alpha=0.2" in page
    assert stamps(folder) == before
    table = folder / "report" / "tables" / "runs.csv"
    assert main(["analyse", str(table), "--factors", "cell", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"]["done"] == 4


def test_results_and_runs_are_read(folder: Path) -> None:
    results = read_results(folder)
    assert results.counts() == {"done": 4, "running": 0, "failed": 0, "left": 0}
    assert results.measures == ["top1", "top5", "mean_class_acc", "loss"]
    for row in results.done:
        run = Store(folder).get(row.id)
        assert run is not None
        assert run.names() is None
        arrays = run.predictions()
        assert arrays["logits"].shape == (20, 10)
        assert (arrays["logits"].argmax(1) == arrays["labels"]).mean() == pytest.approx(row.result["top1"])
        assert [epoch["epoch"] for epoch in row.history] == [1, 2]
        assert Recipe.load(run.folder / "recipe.toml").with_fields({"split.duplicates": "ignore"}).epochs == 2


def test_it_continues_and_repeats_nothing(folder: Path, recipe: Recipe, ten_each: ImageIndex) -> None:
    known, before = {run["id"] for run in read_plan(folder)["runs"]}, stamps(folder)
    same = plan_study(as_then(recipe), ten_each, out=folder, **WHERE)
    assert {run.id for run in same.runs} == known
    assert same.missing(folder) == []
    grown = plan_study(as_then(recipe).adapted({}, seeds=3), ten_each, out=folder, **WHERE)
    events: list[tuple[str, str]] = []
    execute_plan(grown, folder, on_event=lambda event: events.append((event.kind, event.task.name)))
    assert {name for _, name in events} == {"baseline seed 2", "mixup.alpha=0.2 seed 2"}
    assert {path: time_ns for path, time_ns in stamps(folder).items() if path in before} == before
    results = read_results(folder)
    assert results.counts()["done"] == 6
    assert write_report(folder, results=results).is_file()


def test_what_would_mix_two_meanings_is_refused(folder: Path, recipe: Recipe, ten_each: ImageIndex) -> None:
    now = as_then(recipe).adapted({"split.duplicates": "together"})
    with pytest.raises(UserError, match=r"with other settings \(split.duplicates: ignore there, together now\)"):
        plan_study(now, ten_each, out=folder, **WHERE)


def test_the_same_identity_still_means_the_same_training(recipe: Recipe, ten_each: ImageIndex, tmp_path: Path) -> None:
    """To the rounding of another processor, as the golden curve; evaluation is computed otherwise since."""
    study, seed = as_then(recipe), 1
    result = train(study.recipe, ten_each, seed=seed, out=tmp_path, hardware=Hardware("cpu", "fp32", 1))
    kept = Store(KEPT).get(result.id)
    assert kept is not None
    for then, now in zip(kept.history, result.history, strict=True):
        assert now["train_loss"] == pytest.approx(then["train_loss"], rel=0.02)
        assert now["eval_loss"] == pytest.approx(then["eval_loss"], rel=0.05)
    members = kept.predictions()["members"]
    made = Store(tmp_path).get(result.id)
    assert made is not None
    assert made.predictions()["members"].tolist() == members.tolist()
