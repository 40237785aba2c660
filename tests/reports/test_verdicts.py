"""A study's verdicts: from its folder to sentences, table and plot."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest

from bagoftricks.console import print_cells
from bagoftricks.files import write_json
from bagoftricks.reports.report import write_report
from bagoftricks.reports.results import read_results
from bagoftricks.reports.verdicts import effects_table, forest, sentences, study_analysis
from bagoftricks.store import Store
from bagoftricks.studies.design import Study, study_to_dict
from tests.reports.test_report import make_study

NOISE = (0.0, 0.004, -0.003, 0.002, -0.001, 0.003)


def make(root: Path, study: Study, effect: dict[str, float], metric: str = "top1") -> Path:
    """Writes a study folder in which each level that is not a factor's first adds a fixed effect, and luck."""
    store = Store(root)
    runs = [(f"{i}-{seed}", cell, seed) for seed in study.seeds for i, cell in enumerate(study.cells)]
    for number, (run_id, cell, seed) in enumerate(runs):
        value = 0.8 + 0.01 * seed + NOISE[(number * 5 + seed) % len(NOISE)]
        value += sum(effect.get(f"{name}={level}", 0.0) for name, level in cell.levels.items())
        with store.writing(run_id) as writer:
            writer.epoch(
                {"epoch": 1, "lr": 0.1, "train_top1": value, "eval_top1": value, "train_loss": 1, "eval_loss": 1}
            )
            measures = {"loss": 1.0, "top1": 0.5, metric: value}
            writer.result(
                {**measures, "seed": seed, "train_images": 80, "val_images": 20, "seconds": 1.0, "weights": None}
            )
    plan = {
        "schema": 1,
        "study": study_to_dict(study),
        "data": {"name": "photos", "images": 10, "classes": 3},
        "hardware": {"device": "cpu", "precision": "fp32", "threads": 1},
        "cells": [{"name": cell.name, "levels": dict(cell.levels)} for cell in study.cells],
        "runs": [{"id": run_id, "cell": cell.name, "seed": seed} for run_id, cell, seed in runs],
    }
    write_json(store.plan, plan)
    return root


FACTORS = {"schedule.decay": ["constant", "cosine"], "label_smoothing.amount": [0.0, 0.1]}


def test_a_full_factorial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study("tiny", factors=FACTORS, seeds=tuple(range(6)))
    results = read_results(make(tmp_path, study, {"schedule.decay=cosine": 0.05}))
    analysis = study_analysis(results)
    assert analysis is not None
    verdicts = {effect.name: effect.verdict for effect in analysis.effects}
    assert verdicts["schedule.decay: cosine - constant"] == "helps"
    assert len(verdicts) == 3
    assert analysis.effects[0].settings.test_train_ratio == pytest.approx(0.25)
    table = effects_table(analysis)
    assert table.rows[0][1].text == "helps"
    assert abs(float(table.rows[0][2].text) - 5) < 1
    assert "band of 0.5 points" in forest(analysis).note  # type: ignore[union-attr]
    print_cells(results)
    printed = capsys.readouterr().out
    assert sentences(analysis)[0] in printed.replace("\n", " ")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "What helped" in page
    assert sentences(analysis)[0] in html.unescape(page)
    assert page.index("What helped") < page.index("<h2>Tables")
    assert (
        (tmp_path / "report" / "tables" / "effects.csv")
        .read_text()
        .startswith("effect,verdict,points,95_%_interval_low")
    )
    assert (tmp_path / "report" / "charts" / "forest.svg").exists()


def test_the_metric_of_the_study_decides(tmp_path: Path) -> None:
    study = Study("tiny", factors=FACTORS, seeds=tuple(range(6)), metric="macro_f1")
    root = make(tmp_path, study, {"label_smoothing.amount=0.1": -0.06}, metric="macro_f1")
    analysis = study_analysis(read_results(root))
    assert analysis is not None
    assert {e.name: e.verdict for e in analysis.effects}["label_smoothing.amount: 0.1 - 0.0"] == "hurts"
    assert analysis.settings.metric == "macro_f1"


def test_a_ladder_gives_successive_differences(tmp_path: Path) -> None:
    study = Study("tiny", factors=FACTORS, seeds=tuple(range(6)), design="ladder")
    analysis = study_analysis(read_results(make(tmp_path, study, {"schedule.decay=cosine": 0.05})))
    assert analysis is not None
    assert [effect.kind for effect in analysis.effects] == ["successive", "successive"]
    assert analysis.effects[0].verdict == "helps"


def test_one_at_a_time_declares_its_simple_effects(tmp_path: Path) -> None:
    study = Study("tiny", factors=FACTORS, seeds=tuple(range(6)), design="one-at-a-time")
    analysis = study_analysis(read_results(make(tmp_path, study, {"schedule.decay=cosine": 0.05})))
    assert analysis is not None
    assert all(effect.declared for effect in analysis.effects)
    assert "helps" in {effect.verdict for effect in analysis.effects}


def test_below_five_seeds_there_is_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three = study_analysis(read_results(make(tmp_path / "3", Study("t", factors=FACTORS, seeds=(0, 1, 2)), {})))
    assert three is not None
    assert {effect.verdict for effect in three.effects} == {None}
    assert forest(three) is not None
    one = read_results(make(tmp_path / "1", Study("t", factors=FACTORS), {}))
    print_cells(one)
    assert "Verdicts are withheld: one seed" in capsys.readouterr().out
    analysis = study_analysis(one)
    assert analysis is not None
    assert forest(analysis) is None
    json.dumps(analysis.to_dict(), allow_nan=False)


def test_failed_runs_are_counted(tmp_path: Path) -> None:
    analysis = study_analysis(read_results(make_study(tmp_path, seeds=6)))
    assert analysis is not None
    assert analysis.runs.failed == 6
    assert any("B+m" not in text and "mixup" in text.lower() for text in sentences(analysis))


def test_nothing_varied_gives_nothing(tmp_path: Path) -> None:
    assert study_analysis(read_results(make(tmp_path, Study("t"), {}))) is None
