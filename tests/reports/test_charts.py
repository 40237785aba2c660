"""Charts from a made-up study folder: what they show, say and give."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bagoftricks.reports.charts import Chart, all_charts, curves, curves_frame, dots, panels
from bagoftricks.reports.results import Results, read_results
from tests.reports.test_report import make_study


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return read_results(make_study(tmp_path_factory.mktemp("study")))


def test_curves_of_every_cell(results: Results) -> None:
    frame = curves_frame(results, "top1")
    assert len(frame) == 17 * 3 * 2  # a row for all seeds of a cell
    row = frame[(frame.cell == "B") & (frame.epoch == 3) & (frame.side == "validation")].iloc[0]
    assert (row["mean"], row["min"], row["max"]) == pytest.approx((0.5205, 0.52, 0.521))
    assert set(frame["side"]) == {"training", "validation"}
    keys = [chart.key for chart in all_charts(results)]
    assert keys == ["runs-top1", "curves-top1", "curves-top5", "curves-loss"]
    svg = next(chart for chart in all_charts(results) if chart.key == "curves-top1").svg()
    for cell in results.cells:
        assert (f">{cell}<" in svg) == (cell != "B+m")


def test_a_chart_tells_what_it_shows_and_gives_its_data(results: Results) -> None:
    chart = dots(results, "top1", "Top-1")
    assert "34 runs; means of 17 cells" in chart.described
    assert "best: B+c+l+m" in chart.described
    assert 'role="img" aria-label="Every run: Top-1.' in chart.svg()
    rows = list(csv.DictReader(io.StringIO(chart.to_csv())))
    assert rows[0] == {"cell": "A", "seed": "0", "value": "0.5"}
    assert len(rows) == 34


def test_a_cell_cannot_break_out_of_a_drawing(results: Results) -> None:
    run = replace(results.done[0], cell='"><script>alert(1)</script>')
    plan = {**results.plan, "cells": [{"name": run.cell, "levels": {}}]}
    svg = dots(Results(results.root, plan, (run,)), "top1", "Top-1").svg()
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg


def test_ids_of_drawings_do_not_meet() -> None:
    """Two gradients of one name in a page would be the first one's, twice."""
    import altair as alt
    import pandas as pd

    frame = pd.DataFrame({"x": [0, 1], "z": [0.0, 1.0]})
    drawing = alt.Chart(frame).mark_rect().encode(x="x:O", color="z:Q")
    one, two = (Chart(key, "t", "n", drawing).svg() for key in ("one", "two"))
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r"url\(#([^)]+)\)", one)) <= ids[0]


def test_of_many_cells_the_first_and_the_best_are_drawn(results: Results) -> None:
    names = [f"cell {i:02d}" for i in range(30)]
    first = results.done[0]
    runs = tuple(replace(first, cell=name, result={**first.result, "top1": i / 30}) for i, name in enumerate(names))
    many = Results(results.root, {**results.plan, "cells": [{"name": n, "levels": {}} for n in names]}, runs)
    assert panels(many) == [names[0], *names[-11:]]
    chart = curves(many, "top1", "Top-1")
    assert "12 of 30 cells, the first and the best" in chart.note
    assert {row["cell"] for row in chart.rows()} == set(panels(many))


def test_many_runs_are_drawn(tmp_path: Path) -> None:
    """Altair refuses more than 5,000 rows unless told otherwise."""
    results = read_results(make_study(tmp_path, seeds=1, preset="quickstart", missing=""))
    many = Results(results.root, results.plan, tuple(results.runs * 1300))
    for chart in all_charts(many):
        assert chart.svg().startswith("<svg")
