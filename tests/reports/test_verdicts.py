"""A study's verdicts: from its folder to sentences, table and plot."""

from __future__ import annotations

import html
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bagoftricks.cli import main
from bagoftricks.console import print_cells
from bagoftricks.files import write_json
from bagoftricks.reports.analysis import study_analysis, to_json
from bagoftricks.reports.interactions import corners
from bagoftricks.reports.report import write_report
from bagoftricks.reports.results import read_results
from bagoftricks.reports.verdicts import (
    best_cells_table,
    cells_sentences,
    effects_table,
    forest,
    secondary_sentence,
    secondary_table,
    sentences,
    verdict_tables,
)
from bagoftricks.store import Store
from bagoftricks.studies.design import Study
from bagoftricks.studies.study_file import study_to_dict
from tests.reports.test_report import make_study

NOISE = (0.0, 0.004, -0.003, 0.002, -0.001, 0.003)


def make(root: Path, study: Study, effect: dict[str, float], metric: str = "top1") -> Path:
    """Writes a study folder in which each level that is not a factor's first adds a fixed effect, and luck."""
    store = Store(root)
    runs = [(f"{i}-{seed}", cell, seed) for seed in study.seeds for i, cell in enumerate(study.cells)]
    for number, (run_id, cell, seed) in enumerate(runs):
        value = 0.8 + 0.01 * seed + NOISE[(number * 5 + seed) % len(NOISE)]
        value += effect.get(f"only {cell.name}", 0.0) + sum(
            effect.get(f"{n}={level}", 0.0) for n, level in cell.levels.items()
        )
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


def test_tables_of_cells_and_of_the_secondary_model(tmp_path: Path) -> None:
    study = Study("tiny", factors=FACTORS, seeds=tuple(range(6)))
    analysis = study_analysis(read_results(make(tmp_path, study, {"schedule.decay=cosine": 0.05})))
    assert analysis is not None
    assert analysis.cells is not None
    cells = [cell.name for cell in study.cells]
    best, model = best_cells_table(analysis), secondary_table(analysis)
    assert best is not None
    assert model is not None
    assert [table.key for table in verdict_tables(analysis)] == ["effects", "best-cells", "secondary"]
    assert sorted(row[0].text for row in best.rows) == sorted(cells)  # the study's names, best mean first
    may = {row[0].text for row in best.rows if row[1].text == "yes"}
    assert may == set(analysis.cells.best) == {row[0].text for row in best.rows if row[0].best}
    assert len(may) == 2  # both with cosine
    means = [float(row[2].text) for row in best.rows]
    assert means == sorted(means, reverse=True)
    (baseline,) = (row for row in best.rows if row[5].text == "baseline")
    assert (baseline[0].text, baseline[6].text, baseline[7].text) == (cells[0], "–", "–")
    assert best.to_csv().splitlines()[0] == (
        "cell,may_be_best,mean,to_the_best,hsu_interval_low,hsu_interval_high,"
        "to_baseline,dunnett_interval_low,dunnett_interval_high,p"
    )
    assert len(model.rows) == 3
    assert [row[1].value for row in model.rows] == pytest.approx([row[5].value for row in model.rows], abs=1e-6)
    assert {row[7].text for row in model.rows} == {"yes"}
    for table in verdict_tables(analysis):
        width = {len(row) for row in table.rows}
        assert width == {len(table.columns)}
        assert table.to_markdown().count("\n") == len(table.rows) + 4
    assert any(
        text.startswith("2 of 4 cells may be the best (Hsu, 95 %, n = 6 seeds): ") for text in sentences(analysis)
    )
    assert "Worse: none. No difference shown: 1." in cells_sentences(analysis)[1]
    assert "agrees with the verdict on all 3 effects." in secondary_sentence(analysis)[0]


def test_one_seed_has_no_cells_to_compare(tmp_path: Path) -> None:
    analysis = study_analysis(read_results(make(tmp_path, Study("t", factors=FACTORS), {})))
    assert analysis is not None
    assert [table.key for table in verdict_tables(analysis)] == ["effects"]
    assert cells_sentences(analysis) == secondary_sentence(analysis) == []


def test_one_best_cell_and_a_disagreement_are_said(tmp_path: Path) -> None:
    study = Study("tiny", factors=FACTORS, seeds=tuple(range(6)))
    gains = {"schedule.decay=cosine": 0.05, "label_smoothing.amount=0.1": 0.03}
    analysis = study_analysis(read_results(make(tmp_path, study, gains)))
    assert analysis is not None
    assert cells_sentences(analysis)[0] == f"The best cell is {study.cells[-1].name} (Hsu, 95 %, n = 6 seeds)."
    hurt = [replace(e, p_adjusted=1.0, verdict="inconclusive") for e in analysis.effects[:1]]
    changed = replace(analysis, effects=(*hurt, *analysis.effects[1:]))
    (text,) = secondary_sentence(changed)
    assert (
        "disagrees with the verdict on 1 of 3: schedule.decay: cosine - constant (inconclusive; by the model +" in text
    )
    table = secondary_table(changed)
    assert table is not None
    assert [row[7].text for row in table.rows] == ["no", "yes", "yes"]


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
    # every effect is beside the baseline, which need not be said of each, nor of each pair that none is seen together
    assert [effect.name for effect in analysis.effects] == [
        f"{name}: {levels[1]} - {levels[0]}" for name, levels in FACTORS.items()
    ]
    assert [missing.name for missing in analysis.not_estimable] == ["interactions"]
    assert sum("Not estimable" in text for text in sentences(analysis)) == 1
    assert not any("other factors" in text for text in sentences(analysis))
    assert analysis.secondary is not None
    assert {effect.name for effect in analysis.secondary.effects} == {effect.name for effect in analysis.effects}
    assert verdict_tables(analysis)


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


def test_before_all_runs_are_done_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study("tiny", factors=FACTORS, seeds=tuple(range(6)))
    make(tmp_path, study, {"schedule.decay=cosine": 0.05})
    note = "interim: 1 of 24 runs are still to come, and verdicts may change"
    analysis = study_analysis(read_results(tmp_path))
    assert analysis is not None
    assert not any("interim" in text for text in analysis.notes)
    shutil.rmtree(tmp_path / "runs" / "0-0")
    analysis = study_analysis(read_results(tmp_path))
    assert analysis is not None
    assert analysis.notes[0].startswith(note)
    assert main(["report", str(tmp_path)]) == 0
    assert note in " ".join(capsys.readouterr().out.split())
    assert note[1:] in (tmp_path / "report" / "report.html").read_text()


def test_runs_of_an_earlier_version_are_judged_by_what_all_have(tmp_path: Path) -> None:
    study = Study("tiny", factors=FACTORS, seeds=(0, 1), metric="macro_f1")
    make(tmp_path, study, {}, metric="macro_f1")
    assert read_results(tmp_path).metric == "macro_f1"
    path = tmp_path / "runs" / "0-0" / "result.json"
    measures = json.loads(path.read_text())
    del measures["macro_f1"]
    path.write_text(json.dumps(measures))
    assert read_results(tmp_path).metric == "top1"


def test_nothing_varied_gives_nothing(tmp_path: Path) -> None:
    assert study_analysis(read_results(make(tmp_path, Study("t"), {}))) is None


def test_interactions_have_words_of_their_own(tmp_path: Path) -> None:
    """Two that do more together than apart may each hurt: nothing there helps."""
    study = Study("tiny", factors=FACTORS, seeds=tuple(range(6)))
    cell = study.cells[-1].name
    results = read_results(make(tmp_path, study, {f"only {cell}": 0.05}))
    analysis = study_analysis(results)
    assert analysis is not None
    (row,) = (row for row in effects_table(analysis).rows if " x " in row[0].text)
    assert (row[1].text, row[1].best) == ("more together", False)
    assert {row["verdict"] for row in forest(analysis).rows()} >= {"more together"}  # type: ignore[union-attr]
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert 'class="tag more-together"' in page
    found = to_json(results)
    assert [effect["verdict"] for effect in found["analysis"]["effects"]] == [e.verdict for e in analysis.effects]
    json.dumps(found, allow_nan=False)


def test_charts_average_over_the_same_cells_as_verdicts(tmp_path: Path) -> None:
    """Without a cell that seldom finished, and however the plan spells its levels."""
    factors = {**FACTORS, "mixup.alpha": [0.0, 0.2]}
    study = Study("tiny", factors=factors, seeds=tuple(range(6)))
    make(tmp_path, study, {})
    plan = json.loads((tmp_path / "plan.json").read_text())
    seldom = study.cells[-1].name
    for run in plan["runs"]:
        if run["cell"] == seldom and run["seed"] > 1:
            shutil.rmtree(tmp_path / "runs" / run["id"])
    for cell in plan["cells"]:
        cell["levels"] = {name: 0 if level == 0.0 else level for name, level in cell["levels"].items()}
    write_json(tmp_path / "plan.json", plan)
    results = read_results(tmp_path)
    analysis = results.analysis
    assert analysis is not None
    for effect in analysis.effects:
        groups = corners(results, effect)
        cells = [cell for group in groups for cell in group.values()]
        assert len(groups) == effect.combinations
        assert effect.n == 6
        assert seldom not in cells
        if effect.kind == "main":
            assert len(groups) == 3
            (level, reference), (factor,) = effect.levels[0], effect.factors
            for group in groups:
                assert results.levels[group[(level,)]][factor] == level
                assert results.levels[group[(reference,)]][factor] == reference
    assert write_report(tmp_path).is_file()


def test_runs_without_their_epochs_have_a_report(tmp_path: Path) -> None:
    make(tmp_path, Study("tiny", factors=FACTORS, seeds=(0, 1)), {})
    for path in tmp_path.glob("runs/*/metrics.jsonl"):
        path.unlink()
    assert write_report(tmp_path).is_file()
