from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagoftricks.cli import main
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.names import shown
from bagoftricks.files import write_json
from bagoftricks.recipe import Recipe
from bagoftricks.store import Store, pack_names
from bagoftricks.studies.design import Study
from bagoftricks.studies.run import run_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, digits: ImageIndex, recipe: Recipe) -> Path:
    """A truly trained study on two hundred digits: two cells, two seeds, forty images held out."""
    factors = {"schedule.decay": ("constant", "cosine")}
    labels = {"schedule.decay": {"cosine": "c"}}
    small = Study("made", recipe.with_fields({"epochs": 1}), factors, seeds=(0, 1), labels=labels)
    return run_study(small, digits, out=tmp_path_factory.mktemp("compare") / "study", device="cpu")


def run_of(study: Path, cell: str, seed: int) -> Path:
    plan = json.loads((study / "plan.json").read_text())
    (run_id,) = [run["id"] for run in plan["runs"] if (run["cell"], run["seed"]) == (cell, seed)]
    return study / "runs" / str(run_id)


def made(
    root: Path, run_id: str, logits: Any, *, seed: int = 0, members: Any = None, names: list[str] | None = None,
    fingerprint: str = "f",
) -> Path:  # fmt: skip
    """Writes a run with these logits on images of class 0, 1, 2, 0, …"""
    logits = np.asarray(logits, dtype=np.float32)
    count = len(logits)
    extra = {} if names is None else {"names": pack_names(names)}
    with Store(root).writing(run_id) as writer:
        places = np.arange(count) if members is None else np.asarray(members)
        writer.predictions(logits=logits, labels=np.arange(count) % logits.shape[1], members=places, **extra)
        writer.result({"seed": seed, "data": {"name": "made", "fingerprint": fingerprint}})
    return root / "runs" / run_id


def compared(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["compare", *map(str, arguments), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["compare", *map(str, arguments)]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    return error


def test_two_cells_of_a_study(capsys: pytest.CaptureFixture[str], study: Path, digits: ImageIndex) -> None:
    found = compared(capsys, study, "--cells", "baseline", "c", "--seed", 1)
    runs = [run_of(study, cell, 1) for cell in ("baseline", "c")]
    assert [found[side]["run"] for side in ("first", "second")] == [path.name for path in runs]
    assert found["first"]["name"] == "baseline seed 1"
    results = [json.loads((path / "result.json").read_text()) for path in runs]
    for each in found["differences"]:
        # of equal logits, which bf16 gives, torch takes any class: an image or two of forty may count otherwise
        assert each["first"] == pytest.approx(results[0][each["metric"]], abs=0.06)
        assert each["second"] == pytest.approx(results[1][each["metric"]], abs=0.06)
        assert each["low"] <= each["difference"] <= each["high"]
    table = found["mcnemar"]
    assert sum(table[name] for name in ("both", "only_first", "only_second", "neither")) == found["images"] == 40
    arrays = [dict(np.load(path / "predictions.npz")) for path in runs]
    guesses = [each["logits"].argmax(axis=1) for each in arrays]
    assert len(found["differ"]) == (guesses[0] != guesses[1]).sum()
    gaps = [abs(image["first_p_true"] - image["second_p_true"]) for image in found["differ"]]
    assert gaps == sorted(gaps, reverse=True)
    first = found["differ"][0]
    place = arrays[0]["members"].tolist().index(first["member"])
    assert (first["true"], first["first_guess"]) == (str(arrays[0]["labels"][place]), str(guesses[0][place]))
    assert first["image"] == digits.names[first["member"]]
    assert "not two recipes" in found["caveat"]


def test_runs_and_cells_say_the_same(capsys: pytest.CaptureFixture[str], study: Path) -> None:
    by_cells = compared(capsys, study, "--cells", "baseline", "c")  # the first seed that both have
    by_runs = compared(capsys, run_of(study, "baseline", 0), run_of(study, "c", 0))
    assert by_runs["differences"] == by_cells["differences"]
    assert by_runs["first"]["name"] == by_cells["first"]["name"] == "baseline seed 0"


def test_what_is_printed_and_written(capsys: pytest.CaptureFixture[str], study: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "differ.csv"
    assert main(["compare", str(study), "--cells", "baseline", "c", "--show", "3", "--csv", str(target)]) == 0
    out, error = capsys.readouterr()
    text = " ".join(out.split())
    rows = list(csv.DictReader(target.open(encoding="utf-8", newline="")))
    assert f"Images on which they differ: 3 of {len(rows)}" in text
    assert f"wrote {target}: {len(rows)} images" in error
    assert "First: baseline seed 0. Second: c seed 0. On 40 validation images." in text
    assert "Macro F1" in text
    assert "this compares two trained models on one validation set, not two recipes" in text
    assert sum(row["image"] in text for row in rows[:3]) == 3
    assert {"image", "true", "first_guess", "second_guess", "first_p_true"} <= set(rows[0])
    assert main(["compare", str(study), "--cells", "baseline", "c", "--show", "0"]) == 0
    out = capsys.readouterr().out
    assert "Images on which they differ" not in out
    assert "not two recipes" in out


def test_names_of_an_earlier_version_are_numbers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made(tmp_path / "a", "one", np.eye(3), members=[7, 8, 123])
    made(tmp_path / "b", "two", np.eye(3)[[0, 1, 0]], members=[7, 8, 123])
    found = compared(capsys, tmp_path / "a", tmp_path / "b")  # each holds one run
    assert [image["image"] for image in found["differ"]] == ["image 123"]
    assert (found["differ"][0]["true"], found["differ"][0]["second_guess"]) == ("class 2", "class 0")
    assert "top5" not in {each["metric"] for each in found["differences"]}


def test_images_are_matched_whatever_their_order(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg"]
    first = made(tmp_path, "one", np.eye(3), members=[1, 2, 3], names=names)
    with Store(tmp_path).writing("two") as writer:
        order = np.array([2, 0, 1])
        arrays = {
            "logits": np.eye(3)[[0, 0, 2]][order],
            "labels": np.arange(3)[order],
            "members": (1 + np.arange(3))[order],
        }
        writer.predictions(**arrays)
        writer.result({"seed": 0, "data": {"name": "made", "fingerprint": "f"}})
    found = compared(capsys, first, tmp_path / "runs" / "two")
    assert [(image["image"], image["second_guess"]) for image in found["differ"]] == [("b.jpg", "class 0")]


def test_names_are_escaped(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Escape sequences, bidirectional marks, line breaks and bytes that are no UTF-8."""
    evil = ["\x1b[2Jcat.jpg", "a\u202eb\n.jpg", b"\xff[bold].jpg".decode(errors="surrogateescape")]
    made(tmp_path / "a", "one", np.eye(3), names=evil)
    made(tmp_path / "b", "two", np.eye(3)[[1, 2, 0]], names=evil)
    write_json(
        tmp_path / "a" / "runs" / "one" / "config.json", {"id2label": {"0": "\x07bell", "1": "[red]x", "2": "z"}}
    )
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--csv", str(tmp_path / "out.csv")]) == 0
    for text in (capsys.readouterr().out, (tmp_path / "out.csv").read_text(encoding="utf-8")):
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
        for spelled in (r"\x1b[2Jcat.jpg", r"a\u202eb\n.jpg", r"\udcff[bold].jpg", r"\x07bell", "[red]x"):
            assert spelled in text
    found = compared(capsys, tmp_path / "a", tmp_path / "b")
    assert {image["image"] for image in found["differ"]} == set(evil)
    assert shown("é 猫.jpg") == "é 猫.jpg"


def test_few_deciding_images_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made(tmp_path / "a", "one", np.eye(3))
    made(tmp_path / "b", "two", np.eye(3)[[0, 1, 0]])
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "fewer than 10 images decide Top-1" in capsys.readouterr().out


def test_class_names_of_a_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first, second = made(tmp_path, "one", np.eye(3)), made(tmp_path, "two", np.eye(3)[[0, 1, 0]])
    runs = [{"id": "one", "cell": "a", "seed": 0}, {"id": "two", "cell": "b", "seed": 0}]
    plan = {"schema": 1, "study": {}, "data": {"class_names": ["cat", "dog", "owl"]}, "hardware": {}, "cells": []}
    write_json(tmp_path / "plan.json", {**plan, "runs": runs})
    found = compared(capsys, first, second)
    assert (found["differ"][0]["true"], found["second"]["name"]) == ("owl", "b seed 0")


def test_validation_sets_must_be_the_same(capsys: pytest.CaptureFixture[str], study: Path, tmp_path: Path) -> None:
    error = fails(capsys, run_of(study, "baseline", 0), run_of(study, "c", 1))
    assert "their seeds differ (0 and 1), and with them the validation sets" in error
    plain = made(tmp_path / "a", "one", np.eye(3))
    assert "trained on different data (" in fails(capsys, run_of(study, "c", 1), plain)
    moved = made(tmp_path / "b", "two", np.eye(3), members=[0, 1, 5])
    assert "the validation sets differ: 3 and 3 images, of which 2 are the same" in fails(capsys, plain, moved)
    more = made(tmp_path / "c", "three", np.eye(4)[:3], members=[0, 1, 2])
    assert "3 and 4 classes" in fails(capsys, plain, more)
    same = made(tmp_path / "d", "four", np.eye(3), seed=5)  # a split that was given is the same for every seed
    assert main(["compare", str(plain), str(same)]) == 0


def test_bad_requests(capsys: pytest.CaptureFixture[str], study: Path, tmp_path: Path) -> None:
    one = run_of(study, "c", 0)
    assert "did you mean 'baseline'" in fails(capsys, study, "--cells", "baselin", "c")
    assert "the same cell twice" in fails(capsys, study, "--cells", "c", "c")
    assert "no finished pair of seed 7; they have of 0, 1" in fails(
        capsys, study, "--cells", "baseline", "c", "--seed", 7
    )
    assert "--cells: takes one study folder" in fails(capsys, study, study, "--cells", "baseline", "c")
    assert "--seed: says nothing without --cells" in fails(capsys, one, one, "--seed", 0)
    assert "the same run twice" in fails(capsys, one, one)
    assert "1 folder: name two runs" in fails(capsys, study)
    assert "holds 4 runs; name one" in fails(capsys, study, one)
    assert "holds no finished run" in fails(capsys, tmp_path / "nowhere", one)
    assert "--show -1: must be at least 0" in fails(capsys, study, "--cells", "baseline", "c", "--show", -1)
    assert "no plan.json in it" in fails(capsys, tmp_path, "--cells", "baseline", "c")


def test_a_pair_that_is_not_finished(capsys: pytest.CaptureFixture[str], study: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(study, part, ignore=shutil.ignore_patterns("cache"))
    for seed in (0, 1):
        shutil.rmtree(run_of(part, "c", seed))
    assert "baseline and c have no finished pair of any seed" in fails(capsys, part, "--cells", "baseline", "c")


def test_a_damaged_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first, second = made(tmp_path / "a", "one", np.eye(3)), made(tmp_path / "b", "two", np.eye(3))
    (second / "predictions.npz").write_bytes(b"nothing")
    assert main(["compare", str(first), str(second)]) == 1
    assert "predictions.npz: cannot be read" in capsys.readouterr().err
