"""The answer, interactions and cost, from a made-up study whose effects are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bagoftricks.reports.analysis import study_analysis
from bagoftricks.reports.answer import SIGNS, answer, headline, told
from bagoftricks.reports.cost import cost_table, gain_chart, gains, speed, training_time
from bagoftricks.reports.interactions import corners, interaction_chart, interaction_rows, interactions_drawn
from bagoftricks.reports.results import Results, read_results
from bagoftricks.reports.verdicts import forest
from bagoftricks.studies.design import Study
from bagoftricks.studies.effects import Analysis
from tests.reports.test_verdicts import FACTORS, make

SPEED = {"constant": 100.0, "cosine": 80.0}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Six seeds of a 2 x 2 factorial in which cosine decay helps, and takes a quarter more time."""
    root = tmp_path_factory.mktemp("study")
    study = Study("tiny", factors=FACTORS, seeds=tuple(range(6)))
    read = read_results(make(root, study, {"schedule.decay=cosine": 0.05}))
    decay = {cell["name"]: cell["levels"]["schedule.decay"] for cell in read.plan["cells"]}
    runs = [replace(run, history=({**run.history[0], "images_per_s": SPEED[decay[run.cell]]},)) for run in read.runs]
    return Results(read.root, read.plan, tuple(runs))


@pytest.fixture(scope="module")
def analysis(results: Results) -> Analysis:
    found = study_analysis(results)
    assert found is not None
    return found


def test_a_finding_for_each_factor_first(analysis: Analysis) -> None:
    found = answer(analysis)
    assert len(found.first) == len(FACTORS)
    assert found.first[0].verdict == "helps"
    assert all("95 % interval" in finding.text for finding in found.first)
    assert [title.partition(":")[0] for title, _ in found.folded] == ["Interactions"]
    assert found.margin == "0.5 percentage points"
    assert len(set(SIGNS.values())) == len(SIGNS)  # no two verdicts differ by colour alone


def test_simple_effects_stand_in_where_there_is_no_main_one(tmp_path: Path) -> None:
    study = Study("tiny", factors=FACTORS, seeds=tuple(range(6)), design="one-at-a-time")
    found = study_analysis(read_results(make(tmp_path, study, {})))
    assert found is not None
    assert {effect.kind for effect in headline(found.effects)} == {"simple"}
    assert len(headline(found.effects)) == 2


def test_the_forest_plot_in_words(analysis: Analysis) -> None:
    chart = forest(analysis)
    assert chart is not None
    words = told(analysis, chart)
    assert words.startswith("schedule.decay: cosine - constant: +")
    assert "helps" in words


def test_an_interaction_plot_shows_what_was_tested(results: Results, analysis: Analysis) -> None:
    """The difference of differences between the plot's means is the estimate."""
    (effect,) = interactions_drawn(analysis)
    rows = interaction_rows(results, effect)
    assert len(rows) == 4 * 6

    def mean(first: str, second: str) -> float:
        points = [row["points"] for row in rows if (row["first"], row["second"]) == (first, second)]
        return sum(points) / len(points)

    (a, a0), (b, b0) = effect.levels
    assert (mean(a, b) - mean(a0, b)) - (mean(a, b0) - mean(a0, b0)) == pytest.approx(effect.estimate)
    chart = interaction_chart(results, analysis)
    assert chart is not None
    assert "schedule decay cosine × label smoothing 0.1" in chart.described
    assert f"{effect.estimate:+.2f} points" in chart.described
    assert "percentage points" in chart.svg()


def test_what_lacks_a_cell_is_not_compared(results: Results, analysis: Analysis) -> None:
    lost = next(cell["name"] for cell in results.plan["cells"] if cell["levels"]["schedule.decay"] == "cosine")
    partial = Results(results.root, results.plan, tuple(run for run in results.runs if run.cell != lost))
    assert len(corners(results, headline(analysis.effects)[0])) == 2
    (interaction,) = interactions_drawn(analysis)
    assert len(interaction_rows(results, interaction)) == 4 * interaction.n
    assert partial.analysis is not None
    assert interactions_drawn(partial.analysis) == []
    assert [len(corners(partial, effect)) for effect in partial.analysis.effects] == [1, 1]
    assert not any(lost in group.values() for e in partial.analysis.effects for group in corners(partial, e))


def test_gain_against_cost(results: Results, analysis: Analysis) -> None:
    decay, smoothing = gains(results, analysis)
    assert decay.time == pytest.approx(100 / 80)
    assert decay.points == pytest.approx(headline(analysis.effects)[0].estimate)
    assert smoothing.time == pytest.approx(1)
    assert speed(results.done[0]) == 100
    assert training_time(results.done[0]) == pytest.approx(0.01)
    chart = gain_chart(results, analysis)
    assert chart is not None
    assert "at 1.25 times the time" in chart.described
    assert len(chart.rows()) == 2


def test_runs_that_did_not_record_their_speed(results: Results, analysis: Analysis) -> None:
    silent = Results(results.root, results.plan, tuple(replace(run, history=()) for run in results.runs))
    assert gain_chart(silent, analysis) is None
    row = cost_table(silent).rows[0]
    assert [entry.text for entry in row] == ["baseline", "1.0 ± 0.0", "–", "0", "0.00", "6"]
    assert cost_table(results).rows[0][2].text == "100.0 ± 0.0"


def test_a_ladder_has_a_cost_for_each_step(tmp_path: Path) -> None:
    study = Study("tiny", factors=FACTORS, seeds=tuple(range(5)), design="ladder")
    root = make(tmp_path, study, {})
    for line in root.glob("runs/*/metrics.jsonl"):
        line.write_text(json.dumps({**json.loads(line.read_text()), "images_per_s": 50.0}) + "\n")
    results = read_results(root)
    analysis = study_analysis(results)
    assert analysis is not None
    assert [gain.name for gain in gains(results, analysis)] == [
        f"{before} → {after}" for before, after in zip(results.cells, results.cells[1:], strict=False)
    ]
    assert interaction_chart(results, analysis) is None
