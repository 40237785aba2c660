"""`tricks predict`: every format, what is refused, and what bad images cost."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bagoftricks.cli import main
from bagoftricks.recipe import Recipe
from bagoftricks.training.calibration import softmax
from tests.serving.trained import MACHINE, Trained, train_small

Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small(recipe, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def predict(trained: Trained, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Runs the command, at temperature 1 unless a model is named, and returns its status, output and errors."""

    def run(*arguments: object, model: Path = trained.calibrated) -> tuple[int, str, str]:
        status = main(["predict", str(model), *MACHINE, *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def mixed(trained: Trained, tmp_path: Path) -> Path:
    """A folder with two images and two files that are none."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i in range(2):
        shutil.copy(trained.photos / "dog" / f"0{i}.jpg", folder / f"{i}-dog.jpg")
    (folder / "3-cut.jpg").write_bytes((folder / "0-dog.jpg").read_bytes()[:200])
    (folder / "4-page.jpg").write_text("<html>")
    return folder


def test_the_table_has_every_image(trained: Trained, predict: Predict) -> None:
    status, out, err = predict(trained.photos)
    lines = out.splitlines()
    assert status == 0
    assert lines[0].split() == ["image", "class", "probability"]
    assert len(lines) == 31
    for line, path in zip(lines[1:], sorted(trained.photos.rglob("*.jpg")), strict=True):
        name, label, prob = line.split()
        assert name == str(path)
        assert label in ("cat", "dog", "owl")
        assert 1 / 3 <= float(prob) <= 1
    assert len({line.index(line.split()[1], len(line.split()[0])) for line in lines}) == 1  # aligned
    assert err == ""


def test_predictions_are_those_of_the_run(trained: Trained, predict: Predict) -> None:
    paths = [trained.photos / name for name in trained.names()]
    status, out, _ = predict(*paths, "--format", "csv", "--top-k", 3)
    assert status == 0
    rows, p_NK = rows_of(out), softmax(trained.logits())
    assert list(rows[0]) == ["filename", "index", "label", "prob", "rank"]
    assert len(rows) == 18
    for path, p_K, three in zip(paths, p_NK, np.array(rows).reshape(6, 3), strict=True):
        assert [int(row["rank"]) for row in three] == [1, 2, 3]
        assert {row["filename"] for row in three} == {str(path)}
        assert [int(row["index"]) for row in three] == np.argsort(-p_K).tolist()
        assert [float(row["prob"]) for row in three] == pytest.approx(sorted(p_K, reverse=True), abs=1e-4)
        assert all(row["label"] == ("cat", "dog", "owl")[int(row["index"])] for row in three)


def test_csv_has_a_row_an_image(trained: Trained, predict: Predict, mixed: Path) -> None:
    status, out, err = predict(mixed, "--format", "csv")
    assert status == 0
    assert out.splitlines()[0] == "filename,index,label,prob"
    assert [Path(row["filename"]).name for row in rows_of(out)] == ["0-dog.jpg", "1-dog.jpg"]
    said = " ".join(err.split())
    assert "2 of 4 images could not be read:" in said
    assert f"{mixed}/3-cut.jpg: truncated" in said
    assert f"{mixed}/4-page.jpg: a web page or XML, not an image" in said


def test_json_lines_tell_of_bad_images(predict: Predict, mixed: Path) -> None:
    status, out, _ = predict(mixed, "--format", "jsonl", "--top-k", 2, "--batch-size", 1)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [Path(row["filename"]).name for row in rows] == ["0-dog.jpg", "1-dog.jpg", "3-cut.jpg", "4-page.jpg"]
    assert [set(row) for row in rows[:2]] == [{"filename", "predictions", "abstained"}] * 2
    assert [set(row) for row in rows[2:]] == [{"filename", "error"}] * 2
    assert rows[2]["error"] == "truncated"
    assert [set(one) for one in rows[0]["predictions"]] == [{"label", "index", "prob"}] * 2


def test_the_document_has_everything(trained: Trained, predict: Predict, mixed: Path, tmp_path: Path) -> None:
    status, out, _ = predict(mixed, "--json")
    document = json.loads(out)
    assert status == 0
    assert (document["images"], document["bad"], document["calibrated"]) == (4, 2, True)
    assert document["model"] == str(trained.calibrated)
    assert [("error" in row) for row in document["predictions"]] == [False, False, True, True]
    status, out, _ = predict(mixed, "--json", "--out", tmp_path / "found.csv")
    document = json.loads(out)
    assert "predictions" not in document
    assert len(rows_of(Path(document["out"]).read_text())) == 2


def test_a_file_appears_whole_and_in_the_format_of_its_name(predict: Predict, mixed: Path, tmp_path: Path) -> None:
    for name in ("found.csv", "found.jsonl", "found.txt"):
        place = tmp_path / "new" / name
        status, out, err = predict(mixed, "--out", place)
        assert (status, out) == (0, "")
        assert "Written:" in err
        kind = {".csv": "csv", ".jsonl": "jsonl"}.get(place.suffix, "table")
        assert place.read_text() == predict(mixed, "--format", kind)[1]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["found.csv", "found.jsonl", "found.txt"]
    for name in ("found.xyz", "found", "found.json"):
        status, _, err = predict(mixed, "--out", tmp_path / "new" / name)
        assert status == 2
        assert "its name says no format; name it *.csv, *.jsonl, *.txt, or pass --format" in err
    assert predict(mixed, "--out", tmp_path / "new" / "found.csv", "--format", "jsonl")[0] == 0
    assert (tmp_path / "new" / "found.csv").read_text().startswith("{")


def test_where_no_image_can_be_read_it_fails_and_writes_nothing(predict: Predict, mixed: Path, tmp_path: Path) -> None:
    place = tmp_path / "found.csv"
    place.write_text("what was there")
    status, out, err = predict(mixed / "3-cut.jpg", mixed / "4-page.jpg", "--out", place)
    assert (status, out) == (1, "")
    assert "none of 2 images could be read; the first: " in err
    assert "3-cut.jpg: cannot be decoded (truncated)" in err
    assert place.read_text() == "what was there"
    status, out, err = predict(mixed / "4-page.jpg", "--json")
    assert (status, out) == (1, "")
    assert "none of 1 images" in err


def test_paths_come_from_standard_input(
    trained: Trained, predict: Predict, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def feed(text: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    feed(f"{mixed}/1-dog.jpg\n{mixed}/gone.jpg\n{trained.photos}/owl\n".encode())
    status, out, err = predict("-", mixed / "0-dog.jpg", "--format", "csv")
    names = [Path(row["filename"]).name for row in rows_of(out)]
    assert status == 0
    assert names == ["1-dog.jpg", *(f"0{i}.jpg" for i in range(10)), "0-dog.jpg"]
    assert "gone.jpg: No such file or directory" in " ".join(err.split())
    odd = mixed / "two\nlines.jpg"
    shutil.copy(mixed / "0-dog.jpg", odd)
    feed(f"{odd}\0{mixed}/1-dog.jpg\0".encode())
    status, out, _ = predict("-", "-0", "--format", "jsonl")
    assert [json.loads(line)["filename"] for line in out.splitlines()] == [str(odd), f"{mixed}/1-dog.jpg"]
    feed(b"")
    assert predict("-")[0] == 2


def test_names_are_harmless(trained: Trained, predict: Predict, tmp_path: Path) -> None:
    """A formula stays text in a spreadsheet; a terminal gets no control characters."""
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("=cmd|x.jpg", "esc\x1b[31m.jpg"):
        shutil.copy(trained.photos / "cat" / "00.jpg", folder / name)
    (folder / "bad\u202e.jpg").write_text("no image")
    model = trained.copy(tmp_path / "model", ("=1+1", "d\x1b[0mog", "owl"))
    for kind in ("table", "csv", "jsonl"):
        _, out, err = predict(folder, "--format", kind, "--top-k", 3, model=model)
        assert not {"\x1b", "\u202e"} & set(out + err)
        assert "\\x1b" in out or "\\u001b" in out
        assert "bad\\u202e.jpg" in err
    _, out, _ = predict(folder, "--format", "csv", "--top-k", 3, model=model)
    assert {"'=1+1", "d\\x1b[0mog", "owl"} == {row["label"] for row in rows_of(out)}
    (trained.photos.parent / "=9.jpg").write_bytes((trained.photos / "cat" / "00.jpg").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained.photos.parent)
        _, out, _ = predict("=9.jpg", "--format", "csv")
    assert rows_of(out)[0]["filename"] == "'=9.jpg"


def test_it_abstains(trained: Trained, predict: Predict, tmp_path: Path) -> None:
    paths = [trained.photos / name for name in trained.names()]
    best = softmax(trained.logits()).max(axis=1)
    threshold = float(np.sort(best)[2:4].mean())
    plain = trained.copy(tmp_path / "plain")
    assert not json.loads(predict(paths[0], "--json", model=plain)[1])["calibrated"]
    _, out, err = predict(*paths, "--abstain-below", threshold, "--format", "jsonl", model=plain)
    doubted = [json.loads(line)["abstained"] for line in out.splitlines()]
    assert doubted == (best < threshold).tolist()
    assert sum(doubted) == 3
    assert "This model has no temperature" in err
    _, out, _ = predict(*paths, "--abstain-below", threshold, "--format", "csv", "--top-k", 3)
    rows = rows_of(out)
    assert len(rows) == 3 + 3 * 3
    abstained = [row for row in rows if row["label"] == ""]
    assert [row["filename"] for row in abstained] == [str(p) for p, no in zip(paths, doubted, strict=True) if no]
    assert all(row["index"] == "" and float(row["prob"]) < threshold for row in abstained)
    _, out, err = predict(*paths, "--abstain-below", threshold)
    assert out.count("?") == 3
    assert "temperature" not in err


def test_flip_changes_probabilities_of_what_is_not_symmetric(trained: Trained, predict: Predict) -> None:
    def probs(*flags: str) -> list[float]:
        _, out, _ = predict(trained.photos, "--format", "csv", *flags)
        return [float(row["prob"]) for row in rows_of(out)]

    assert probs("--tta", "none") == probs()
    assert probs("--tta", "flip") != probs()


def test_a_bar_on_a_terminal_leaves_the_output_alone(
    trained: Trained, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is drawn on standard error, rich sends what is printed there too."""
    _, plain, _ = predict(trained.photos, "--format", "csv")
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, out, err = predict(trained.photos, "--format", "csv")
    assert out == plain
    assert "predicting" in err
    assert "jpg" not in err


def test_progress_is_plain_lines_elsewhere(trained: Trained, predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bagoftricks.progress.SECONDS_BETWEEN_LINES", 0.0)
    _, out, err = predict(trained.photos, "--format", "csv", "--batch-size", 30)
    assert len(rows_of(out)) == 30
    assert "predicting: 30 of 30 images, " in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{photos}", "--format", "xml"], "unknown --format 'xml': choose from: csv, jsonl, table"),
        (["{photos}", "--format", "json"], "did you mean 'jsonl'?"),
        (["{photos}/cow"], "photos/cow: no such file or folder"),
        (["{photos}", "{photos}/*.gif"], "matches nothing"),
        (["{empty}"], "empty: no images in it"),
        (["{photos}", "--top-k", "0"], "--top-k 0: must be at least 1"),
        (["{photos}", "--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["{photos}", "--tta", "ten-crop"], "unknown --tta 'ten-crop'"),
        (["{photos}", "--abstain-below", "80"], "--abstain-below 80: must be a probability, from 0 to 1"),
        (["{photos}", "--json", "--format", "csv"], "pass --out with a file"),
        (["{photos}", "-0"], "--null is about paths on standard input"),
        (["{photos}", "--out", "{photos}/cat/00.jpg"], "is an image's name"),
        (["{photos}", "--out", "{photos}"], "is a folder"),
        (["{photos}", "--out", "{photos}/cat/00.jpg/x.csv"], "is a file"),
        (["{photos}", "--device", "abacus"], "device 'abacus' is not here"),
        ([], "the following arguments are required: PATH"),
    ],
)
def test_wrong_requests(trained: Trained, predict: Predict, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    before = (trained.photos / "cat" / "00.jpg").read_bytes()
    places = {"photos": trained.photos, "empty": tmp_path / "empty"}
    status, out, err = predict(*(one.format(**places) for one in arguments))
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert (trained.photos / "cat" / "00.jpg").read_bytes() == before


def test_a_folder_without_a_model_is_a_wrong_request(trained: Trained, predict: Predict) -> None:
    status, _, err = predict(trained.photos, model=trained.photos)
    assert status == 2
    assert "config.json is missing" in err


def test_a_long_list_of_bad_images_is_cut(predict: Predict, mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bagoftricks.commands.predict.MOST_LISTED", 1)
    _, _, err = predict(mixed)
    assert "3-cut.jpg" in err
    assert "4-page.jpg" not in err
    assert "and 1 more; --format jsonl has them all" in err


def test_wide_and_long_names_stay_whole(trained: Trained, predict: Predict, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(folder / "鳥.png")
    model = trained.copy(tmp_path / "model", ("猫", "犬", "鳥"))
    status, out, _ = predict(folder, model=model)
    assert status == 0
    assert f"{folder}/鳥.png  " in out


def test_the_seconds_and_counts_are_numbers(predict: Predict, mixed: Path) -> None:
    document: dict[str, Any] = json.loads(predict(mixed, "--json")[1])
    assert document["seconds"] > 0
