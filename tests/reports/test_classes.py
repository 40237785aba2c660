"""What a report shows of classes: figures as scikit-learn's, charts that draw, notes that say what they are not."""

from __future__ import annotations

import base64
import csv
import io
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, precision_score, recall_score

from bagoftricks.files import write_json
from bagoftricks.reports.classcharts import accuracy_chart, confusion_chart
from bagoftricks.reports.classes import ClassParts, class_names, class_parts
from bagoftricks.reports.mistakes import Mistake
from bagoftricks.reports.results import Results, read_results
from bagoftricks.reports.tables import Table
from bagoftricks.store import Store
from bagoftricks.studies.mistakes import MOST_MISTAKES

CLASSES = ["<b>ant</b>", "bee & wasp", "cat | dog", "deer", "eel", "fox"]


def make_study(
    root: Path, *, seeds: int = 3, names: list[str] = CLASSES, images: int = 60, cells: tuple[str, ...] = ("A", "B")
) -> Results:
    """Writes a study folder whose cells know a little more each; deer are taken for eels, and foxes are absent."""
    store, rows, draw, present = Store(root), [], np.random.default_rng(0), max(1, len(names) - 1)
    for skill, cell in enumerate(cells):
        for seed in range(seeds):
            labels = draw.permutation(np.arange(images) % present)
            logits = draw.normal(0, 1, (images, len(names))).astype(np.float32)
            logits[np.arange(images), labels] += 1 + skill
            if len(names) > 4:
                logits[labels == 3, 4] += 1.5
            top1 = float((logits.argmax(axis=1) == labels).mean())
            run_id = f"{cell}-{seed}"
            rows.append({"id": run_id, "cell": cell, "seed": seed})
            with store.writing(run_id) as writer:
                writer.predictions(logits=3 * logits, labels=labels, members=draw.permutation(4 * images)[:images])
                told = {"seconds": 1.0, "train_images": 80, "val_images": 20}
                writer.result({"top1": top1, "mean_class_acc": top1, "macro_f1": top1, **told})
    plan = {
        "study": {"name": "tiny", "metric": "top1"},
        "data": {"name": "photos", "class_names": names},
        "hardware": {},
        "cells": [{"name": cell, "levels": {}} for cell in cells],
        "runs": rows,
    }
    write_json(store.plan, {"schema": 1, **plan})
    return read_results(root)


def parts_of(results: Results) -> ClassParts:
    parts = class_parts(results)
    assert parts is not None
    return parts


def table(parts: ClassParts, key: str) -> Table:
    return next(table for table in parts.tables if table.key == key)


def rows_of(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.to_csv())))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def parts(results: Results) -> ClassParts:
    return parts_of(results)


@pytest.fixture(scope="module")
def pooled(results: Results) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, guesses and seeds of the best cell's runs."""
    store = Store(results.root)
    arrays = [store.get(f"B-{seed}").predictions() for seed in range(3)]  # type: ignore[union-attr]
    labels, guesses = np.stack([a["labels"] for a in arrays]), np.stack([a["logits"].argmax(1) for a in arrays])
    return labels, guesses, np.arange(3).repeat(60).reshape(3, 60)


def test_figures_of_classes_are_scikit_learns(
    parts: ClassParts, pooled: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    labels, guesses, _ = pooled
    mean, *rows = rows_of(table(parts, "classes"))
    assert {row["class"] for row in rows} == set(CLASSES) - {"fox"}  # no image, no figures
    for row in rows:
        k = CLASSES.index(row["class"])
        truth, guessed = labels.ravel() == k, guesses.ravel() == k
        assert float(row["precision_mean"]) == pytest.approx(precision_score(truth, guessed), abs=1e-4)
        assert float(row["recall_mean"]) == pytest.approx(recall_score(truth, guessed), abs=1e-4)
        assert float(row["f1_mean"]) == pytest.approx(f1_score(truth, guessed), abs=1e-4)
        assert int(row["support"]) == truth.sum() == 36
        by_seed = [recall_score(labels[s] == k, guesses[s] == k) for s in range(3)]
        assert float(row["recall_sd"]) == pytest.approx(np.std(by_seed, ddof=1), abs=1e-4)
        others = np.bincount(guesses[labels == k], minlength=6)
        others[k] = 0
        if row["most_often_taken_for"]:
            assert others[CLASSES.index(row["most_often_taken_for"])] == others.max()
            assert float(row["most_often_taken_for_share"]) == pytest.approx(others.max() / 36, abs=1e-4)
        else:
            assert others.sum() == 0
    recalls = [float(row["recall_mean"]) for row in rows]
    assert recalls == sorted(recalls)
    seen = [recall_score(labels[s], guesses[s], labels=range(5), average="macro") for s in range(3)]
    assert mean["class"] == "mean of classes"
    assert float(mean["recall_mean"]) == pytest.approx(np.mean(seen), abs=1e-4)
    assert float(mean["recall_sd"]) == pytest.approx(np.std(seen, ddof=1), abs=1e-4)
    assert int(mean["support"]) == 180


def test_pairs_and_calibration(parts: ClassParts, pooled: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, guesses, _ = pooled
    first = rows_of(table(parts, "confused-pairs"))[0]
    assert (first["pair_first"], first["pair_second"]) == ("deer", "eel")
    there, back = ((labels == 3) & (guesses == 4)).sum(), ((labels == 4) & (guesses == 3)).sum()
    assert [int(first[c]) for c in ("mistakes", "first_for_second", "second_for_first")] == [there + back, there, back]
    figures = {row["measure"]: row for row in rows_of(table(parts, "calibration"))}
    assert float(figures["Temperature"]["after_temperature_scaling_mean"]) > 1.5  # the logits were tripled
    for name, row in figures.items():
        if name.startswith(("Calibration error", "Negative", "Brier")):
            assert float(row["after_temperature_scaling_mean"]) < float(row["as_trained_mean"])
    assert "too sure of itself" in table(parts, "calibration").note


def test_tables_and_charts_can_be_written(parts: ClassParts) -> None:
    assert [t.key for t in parts.tables] == ["classes", "confused-pairs", "calibration"]
    assert [c.key for c in parts.charts] == ["confusion", "reliability", "class-accuracy"]
    for one in parts.tables:
        widths = {len(row) for row in csv.reader(io.StringIO(one.to_csv()))}
        assert len(widths) == 1, one.key  # every row has the parts of the heading
        assert one.to_markdown()
        assert one.to_latex()
    for chart in parts.charts:
        svg = chart.svg()
        assert svg.startswith("<svg")
        assert "<b>" not in svg
        with Image.open(io.BytesIO(chart.png())) as image:
            assert min(image.size) > 100
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20
    assert "&lt;b&gt;ant" in parts.charts[0].svg()


def test_notes_say_what_it_is_and_what_not(results: Results, parts: ClassParts) -> None:
    assert parts.cell == "B"
    text = " ".join(parts.notes)
    assert "of B, the cell with the best mean Top-1 over 3 seeds" in text
    assert "180 predictions, of its 3 runs" in text
    assert "slightly flattering" in text
    alone = replace(results, runs=tuple(run for run in results.runs if run.cell == "B"))
    assert "flattering" not in " ".join(parts_of(alone).notes)  # nothing was chosen
    uneven = replace(results, runs=tuple(run for run in results.runs if run.id != "A-2"))
    assert "over 2 seeds that every cell has" in " ".join(parts_of(uneven).notes)
    assert "180 predictions" in " ".join(parts_of(uneven).notes)


def test_mistakes_are_shown_as_kept(tmp_path: Path) -> None:
    results = make_study(tmp_path, seeds=1)
    assert parts_of(results).mistakes == ()
    one: dict[str, Any] = {"name": "deer/1.jpg", "true": "deer", "guessed": "eel", "probability": 0.9, "wrong": 1}
    one |= {"of": 2, "jpeg": base64.b64encode(b"picture").decode()}
    kept = {"cell": "B", "runs": 1, "images": 60, "wrong": 30, "mistakes": [one] * MOST_MISTAKES}
    write_json(Store(tmp_path).mistakes, kept)
    parts = parts_of(results)
    assert parts.mistakes[0] == Mistake("data:image/jpeg;base64,cGljdHVyZQ==", "deer/1.jpg", "deer", "eel", 0.9, 1, 2)
    assert len(parts.mistakes) == MOST_MISTAKES
    assert parts.notes[-1] == "The images are the 24 surest of 30 mistakes on 60 images."
    write_json(Store(tmp_path).mistakes, {**kept, "cell": "A", "runs": 2})
    assert parts_of(results).notes[-1].endswith("They are of A, the best cell when they were written.")


def test_without_predictions_there_is_nothing(tmp_path: Path) -> None:
    results = make_study(tmp_path, seeds=1)
    assert class_parts(replace(results, runs=())) is None
    for run in ("A-0", "B-0"):
        (tmp_path / "runs" / run / "predictions.npz").unlink()
    assert class_parts(results) is None
    with (tmp_path / "runs" / "B-0" / "predictions.npz").open("wb") as file:
        np.savez(file, logits=np.zeros((2, 3)))
    assert class_parts(results) is None


def test_names_of_classes_where_an_earlier_version_kept_none(tmp_path: Path) -> None:
    results = make_study(tmp_path, seeds=1)
    assert class_names(results, 6) == CLASSES
    bare = replace(results, plan={**results.plan, "data": {"name": "photos"}})
    assert class_names(bare, 6) == [f"class {k}" for k in range(6)]
    write_json(Store(tmp_path).data_check, {"counts": {"a": 1, "b": 2}})
    assert class_names(bare, 2) == ["a", "b"]
    assert class_names(bare, 6)[5] == "class 5"
    assert class_parts(bare) is not None


def test_a_few_images_and_no_mistakes_are_enough(tmp_path: Path) -> None:
    results = make_study(tmp_path, seeds=1, names=["a", "b"], images=3, cells=("A",))
    with (tmp_path / "runs" / "A-0" / "predictions.npz").open("wb") as file:
        np.savez(file, logits=9 * np.eye(2)[[0, 1, 1]], labels=np.array([0, 1, 1]), members=np.arange(3))
    parts = parts_of(results)
    assert [t.key for t in parts.tables] == ["classes"]
    assert [c.key for c in parts.charts] == ["confusion", "class-accuracy"]
    for chart in parts.charts:
        chart.svg()
    assert "of A, the cell with the best mean Top-1 on one seed" in parts.notes[0]
    assert "of its run," in parts.notes[1]


@pytest.mark.parametrize(("classes", "shown"), [(101, 101), (150, 150), (400, 60)])
def test_a_large_confusion_matrix_stays_readable(classes: int, shown: int) -> None:
    draw = np.random.default_rng(0)
    counts = np.diag(draw.integers(5, 20, classes))
    counts[draw.integers(0, classes, 300), draw.integers(0, classes, 300)] += 1
    names = [f"class number {k}" for k in range(classes)]
    chart = confusion_chart(counts, names)
    spec: dict[str, Any] = chart.chart.to_dict()  # type: ignore[attr-defined]
    axis = spec["layer"][0]["encoding"]["y"]["axis"]
    assert axis["labelFontSize"] >= 8
    assert axis["labelOverlap"] is False
    assert spec["height"] == spec["width"] >= 9 * shown
    assert len(spec["layer"][0]["encoding"]["y"]["scale"]["domain"]) == shown
    assert ("60 classes with most confusions, of 400" in chart.note) == (classes == 400)
    if classes == 400:
        mistakes = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
        kept = {int(name.split()[-1]) for name in spec["layer"][0]["encoding"]["y"]["scale"]["domain"]}
        rest = set(range(classes)) - kept
        assert min(mistakes[k] for k in kept) >= max(mistakes[k] for k in rest)
    recall = np.full((1, classes), 0.5)
    note = accuracy_chart(counts, recall, names).note
    assert ("208 of 400 classes" in note) == (classes == 400)


def test_a_study_of_many_runs_is_read_quickly(tmp_path: Path) -> None:
    names = [f"class {k}" for k in range(101)]
    results = make_study(tmp_path, seeds=25, names=names, images=1700, cells=("A",))
    parts_of(make_study(tmp_path / "small", seeds=1))  # imports apart
    started = time.perf_counter()
    parts = parts_of(results)
    assert time.perf_counter() - started < 30  # 3 s on an idle core
    assert "34,000 predictions, of 20 of its 25 runs" in parts.notes[1]


def test_no_torch(results: Results) -> None:
    code = (
        "import sys, pathlib\nfrom bagoftricks.reports.classes import class_parts\n"
        "from bagoftricks.reports.results import read_results\n"
        f"assert class_parts(read_results(pathlib.Path({str(results.root)!r})))\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
