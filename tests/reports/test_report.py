"""Reports from a made-up study folder: no training, no torch."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bagoftricks.errors import RunError, UserError
from bagoftricks.files import write_json
from bagoftricks.recipe import Recipe
from bagoftricks.reports.charts import all_charts
from bagoftricks.reports.report import breakable, write_report
from bagoftricks.reports.results import Results, read_results
from bagoftricks.reports.tables import Entry, Table, all_tables, cells_table, reference_tables
from bagoftricks.store import Store
from bagoftricks.studies.study_file import load_study, study_to_dict
from tests.conftest import make_photos

WARNING = "the initial weights were trained in architecture B, not A"


def make_study(root: Path, *, seeds: int = 2, classes: int = 101, preset: str = "paper", missing: str = "B+m") -> Path:
    """Writes a study folder with made-up figures: cell i of seed s has Top-1 0.5 + 0.02 i + 0.001 s."""
    study, store = load_study(preset).adapted({"epochs": 3}, seeds), Store(root)
    runs = [(f"{cell.name}-{seed}", cell.name, seed) for seed in study.seeds for cell in study.cells]
    names = [cell.name for cell in study.cells]
    for run_id, cell, seed in runs:
        if cell == missing:
            store.record_failure(run_id, cell, "it <b>broke</b>")
            continue
        top1 = 0.5 + 0.02 * names.index(cell) + 0.001 * seed
        measures = {"loss": 2 - top1, "top1": top1, "mean_class_acc": top1 - 0.1}
        if classes > 5:
            measures["top5"] = top1 + 0.05
        with store.writing(run_id) as writer:
            for epoch in (1, 2, 3):
                row = {
                    f"{side}_{name}": value * epoch / 3
                    for side in ("train", "eval")
                    for name, value in measures.items()
                }
                writer.epoch({"epoch": epoch, "lr": 0.001, **row})
            writer.predictions(logits=np.zeros((2, 3)))
            weights = {"warning": WARNING if cell.startswith("A") else ""}
            writer.result(
                {**measures, "seed": seed, "train_images": 8, "val_images": 2, "seconds": 60.0, "weights": weights}
            )
    write_json(
        store.plan,
        {
            "schema": 1,
            "study": study_to_dict(study),
            "data": {"name": "<i>photos</i>", "images": 10, "classes": classes},
            "hardware": {"device": "cpu", "precision": "fp32", "threads": 1},
            "cells": [{"name": cell.name, "levels": dict(cell.levels)} for cell in study.cells],
            "runs": [{"id": run_id, "cell": cell, "seed": seed} for run_id, cell, seed in runs],
        },
    )
    return root


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return read_results(make_study(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def page(results: Results) -> str:
    return write_report(results.root).read_text(encoding="utf-8")


def test_counts_and_spread(results: Results) -> None:
    assert results.counts() == {"done": 34, "running": 0, "failed": 2, "left": 0}
    assert results.counts("B+m") == {"done": 0, "running": 0, "failed": 2, "left": 0}
    spread = results.spread("B", "top1")
    assert spread is not None
    assert (spread.n, spread.mean) == (2, pytest.approx(0.5205))
    assert spread.sd == pytest.approx(0.001 / 2**0.5)
    assert results.spread("B+m", "top1") is None


def test_the_papers_tables_are_in_its_layout(results: Results) -> None:
    tables = reference_tables(results)
    assert [[row[0].text for row in table.rows] for table in tables] == [
        ["A", "B", "C", "D"],
        ["A+c", "A+l", "A+m", "A+c+l", "A+c+m", "A+l+m", "A+c+l+m"],
        ["B+c", "B+l", "B+m", "B+c+l", "B+c+m", "B+l+m", "B+c+l+m"],
    ]
    first = tables[0]
    assert first.columns == ("Model", "Top-1 ours", "Top-1 published", "Top-5 ours", "Top-5 published", "Runs")
    assert [entry.text for entry in first.rows[1]] == ["B", "0.520 ± 0.001", "0.79", "0.571 ± 0.001", "0.95", "2"]
    assert [row[2].best for row in first.rows] == [False, True, False, False]  # the paper's best
    assert [row[1].best for row in first.rows] == [False, False, False, True]  # ours
    assert [entry.text for entry in tables[2].rows[2]][1:] == ["–", "0.78", "–", "0.91", "0 of 2"]


def test_published_figures_keep_their_decimals(tmp_path: Path) -> None:
    _, table = reference_tables(read_results(make_study(tmp_path, seeds=1, preset="he2019", missing="")))
    assert [row[2].text for row in table.rows[:3]] == ["0.7621", "0.7666", "0.7687"]
    assert [row[4].text for row in table.rows[3:5]] == ["0.9352", "–"]


def test_formats(results: Results) -> None:
    table = reference_tables(results)[0]
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert rows[1]["model"] == "B"
    assert (rows[1]["top1_ours_mean"], rows[1]["top1_ours_n"], rows[1]["top1_published"]) == ("0.5205", "2", "0.79")
    markdown = table.to_markdown().splitlines()
    assert markdown[2].count("|") == markdown[4].count("|") == 7
    assert "**0.79**" in table.to_markdown()
    latex = table.to_latex()
    assert latex.count("&") == 5 * 5
    assert r"\textbf{0.79}" in latex
    assert r"$\pm$" in latex


def test_latex_is_escaped() -> None:
    entry = Entry("a_b & 50% {x} \\ #1 $2 ~ ^", {"": ""})
    latex = Table("k", "t", "n", ("c",), ((entry,),)).to_latex()
    assert r"a\_b \& 50\% \{x\} \textbackslash{} \#1 \$2 \textasciitilde{} \textasciicircum{}" in latex


def test_no_top5_below_six_classes(tmp_path: Path) -> None:
    results = read_results(make_study(tmp_path, seeds=1, classes=3, preset="quickstart", missing=""))
    assert results.measures == ["top1", "mean_class_acc", "loss"]
    assert "Top-5" not in cells_table(results).columns
    assert "Top-5" not in write_report(tmp_path).read_text(encoding="utf-8")


def test_files_beside_the_page(results: Results, page: str) -> None:
    out = results.root / "report"
    assert page
    for table in all_tables(results):
        for kind in ("csv", "md", "tex"):
            assert (out / "tables" / f"{table.key}.{kind}").stat().st_size > 50
    for chart in all_charts(results):
        assert (out / "charts" / f"{chart.key}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / "charts" / f"{chart.key}.svg").read_text().startswith("<svg")
        rows = list(csv.DictReader((out / "charts" / f"{chart.key}.csv").open()))
        assert len(rows) == len(chart.rows()) > 0


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]


def test_the_page_stands_alone(page: str) -> None:
    links = Links()
    links.feed(page)
    assert links.tags.count("script") == 1
    assert "<script src" not in page
    assert "link" not in links.tags
    assert all(target.startswith("#") for target in links.targets)
    assert not re.search(r"<[^>]* on[a-z]+=", page)
    without_namespaces = re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)
    assert "://" not in without_namespaces
    assert "url(" not in re.sub(r"url\(#[^)]*\)", "", page)


def test_the_page_says_what_must_be_known(results: Results, page: str) -> None:
    assert "Exploratory" in page
    assert "34 of 36 runs are done" in page
    assert page.count(WARNING) == 1
    assert "A, A+c" in page
    for item in results.plan["study"]["assumptions"]:
        assert item["what"] in html.unescape(page)


def test_what_users_name_is_escaped(page: str) -> None:
    assert "it &lt;b&gt;broke&lt;/b&gt;" in page
    assert "<i>photos" not in page
    assert "&lt;i&gt;photos" in page


def test_works_from_a_copy_without_torch(results: Results, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(results.root, copy, ignore=shutil.ignore_patterns("report"))
    code = f"import sys, bagoftricks\nprint(bagoftricks.write_report({str(copy)!r}))\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()


def test_the_order_of_the_page(page: str) -> None:
    """The answer first, reproduction last."""
    order = ("answer", "charts", "tables", "costs", "reproduction")
    places = [page.index(f'<section id="{name}">') for name in order]
    assert places == sorted(places)


def test_names_break_where_a_reader_would() -> None:
    assert breakable("a.b=0.1+<i>") == "a.<wbr>b=<wbr>0.1+<wbr>&lt;i&gt;"


def test_entries_sort_by_their_value() -> None:
    texts = [Entry("<0.001", {"adjusted": "0.000004"}), Entry("–", {"mean": "", "n": "0"}), Entry("A", {"": "A"})]
    assert [entry.value for entry in texts] == [0.000004, None, None]
    assert Entry("nan", {"": "nan"}).value is None


def test_nothing_done_nothing_reported(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=1)
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(UserError, match="no run is done yet"):
        write_report(tmp_path)
    with pytest.raises(UserError, match=r"no plan\.json"):
        write_report(tmp_path / "elsewhere")


def test_the_data_and_the_architectures_are_shown(tmp_path: Path) -> None:
    """What the study wrote when it ran, shown from a copy of its folder alone."""
    from bagoftricks.studies.design import Study
    from bagoftricks.studies.run import run_study

    photos = make_photos(tmp_path / "photos", classes=("cat", "dog", "<i>owl</i>".replace("/", "-")))
    shutil.copy(photos / "cat" / "00.jpg", photos / "dog" / "99.jpg")
    fixed = {"epochs": 1, "batch_size": 8, "input.size": 32, "model.depth": 10, "model.tweaks": "A"}
    study = Study("tiny", Recipe().with_fields(fixed), {"model.tweaks": ["A", "D"]}, metric="macro_f1")
    out = run_study(study, photos, out=tmp_path / "out")
    shutil.rmtree(photos)
    shutil.copytree(out, tmp_path / "copy")
    shutil.rmtree(out)
    page = write_report(tmp_path / "copy").read_text(encoding="utf-8")
    assert "Copies have two labels, 1 pair" in page
    assert "data:image/jpeg;base64," in page
    assert "ResNet-10-A, ResNet-10-D side by side" in page
    assert "Macro F1 on the validation set after the last epoch" in page
    assert 'id="runs-macro_f1"' in page
    assert "<i>owl" not in page
    assert (tmp_path / "copy" / "report" / "charts" / "balance.svg").exists()
    assert (tmp_path / "copy" / "report" / "charts" / "architectures-1.svg").exists()


def test_no_samples_where_none_are_wanted(tmp_path: Path, photos: Path) -> None:
    from bagoftricks.cli import main

    small = ["--size", "32", "--model.depth", "10", "--model", "A", "--epochs", "1", "--batch-size", "8"]
    study = tmp_path / "s.toml"
    study.write_text('[factors]\n"mixup.alpha" = [0.0, 0.2]\n')
    out = tmp_path / "out"
    assert main(["study", str(study), "--data", str(photos), "--out", str(out), "--no-samples", *small]) == 0
    assert not (out / "data" / "samples.jpg").exists()
    assert "base64" not in (out / "report" / "report.html").read_text(encoding="utf-8")


def test_a_spent_test_set_is_told(tmp_path: Path) -> None:
    root = make_study(tmp_path, seeds=1)
    look = {"run": "A-0", "cell": "A", "seed": 0, "when": "2026-01-01 10:00 UTC", "images": 9, "top1": 0.75}
    write_json(root / "test.json", {"looks": [{**look, "digests": []}]})
    page = write_report(root).read_text(encoding="utf-8")
    assert "spent on A: Top-1 0.750 (2026-01-01 10:00 UTC)" in page


def test_results_judged_anew_are_told(tmp_path: Path) -> None:
    root = make_study(tmp_path / "study", seeds=1)
    plan = json.loads((root / "plan.json").read_text())
    assert not [about for about, _ in read_results(root).warnings() if about in ("Metric", "Design")]
    plan["study"]["earlier"] = [{"metric": name, "design": plan["study"]["design"]} for name in ("macro_f1", "top1")]
    write_json(root / "plan.json", plan)
    told = dict(read_results(root).warnings())
    assert "by another metric before (macro_f1; now top1)" in told["Metric"]
    assert "Design" not in told
    assert "<strong>Metric.</strong> results of this folder" in write_report(root).read_text(encoding="utf-8")


@pytest.mark.parametrize("ends", ["in its place", "failed", "succeeded after it had failed"])
def test_a_run_that_ends_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    root = make_study(tmp_path / "study", seeds=1)
    store, run_id = Store(root), "B-0"
    aside = tmp_path / "aside"
    (root / "runs" / run_id).rename(aside)

    def progress(self: Store, asked: str) -> None:
        if asked == run_id and ends == "in its place":
            aside.rename(self.runs / run_id)
            raise FileNotFoundError
        if asked == run_id and ends == "failed":
            self.record_failure(run_id, "B", "broke")

    def failure(self: Store, asked: str) -> str | None:
        if asked == run_id and ends.startswith("succeeded"):
            aside.rename(self.runs / run_id)
            raise FileNotFoundError
        return plain(self, asked)

    plain = Store.failure
    monkeypatch.setattr(Store, "progress", progress)
    monkeypatch.setattr(Store, "failure", failure)
    assert store.get(run_id) is None
    (row,) = (row for row in read_results(root).runs if row.id == run_id)
    assert row.state == ("failed" if ends == "failed" else "done")


def test_a_result_that_lacks_what_is_read_is_damaged(tmp_path: Path) -> None:
    root = make_study(tmp_path / "study", seeds=1)
    path = root / "runs" / "B-0" / "result.json"
    whole = json.loads(path.read_text())
    for name in ("top1", "seconds", "train_images", "val_images"):
        write_json(path, {key: value for key, value in whole.items() if key != name})
        with pytest.raises(RunError, match="damaged"):
            read_results(root)


def test_blocks_that_could_not_stay_paired_are_named(tmp_path: Path) -> None:
    root = make_study(tmp_path / "study", seeds=1)
    plan = json.loads((root / "plan.json").read_text())
    for cell in plan["cells"]:
        cell["recipe"] = {"batch_size": 64}
    write_json(root / "plan.json", plan)
    assert "could not stay paired" not in write_report(root).read_text(encoding="utf-8")
    run = next(run for run in plan["runs"] if run["cell"] == "B")
    path = root / "runs" / run["id"] / "result.json"
    write_json(path, {**json.loads(path.read_text()), "micro_batch": 32})
    page = write_report(root).read_text(encoding="utf-8")
    assert "<strong>Pairing.</strong> seed 0 could not stay paired" in page
    assert "32 images in B." in page
