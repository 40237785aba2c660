"""`tricks export`: what it prints, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest

from bagoftricks.cli import main
from bagoftricks.recipe import Recipe
from bagoftricks.serving import export_check
from tests.serving.trained import Trained, train_small


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small(recipe, tmp_path_factory.mktemp("run"))


def test_a_folder_of_trainings(run: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shop.onnx"
    assert main(["export", str(run.root), "--data", str(run.photos), "--out", str(out)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == "shop.onnx: onnx, fp32"
    for words in ("File (MB)", "Top-1, of 6 validation images of photos", "Batch of 1 (ms)", "Batch of 32 (ms)"):
        assert any(words in line for line in lines), words
    assert "On 6 validation images of photos, logits differ by at most" in said.out
    assert "100.0% of guesses are equal" in said.out
    assert lines[-2:] == [f"Written: {out}", f"Written: {out}.json"]
    assert said.err.splitlines() == [
        "writing shop.onnx",
        "checking it against the model, on 6 validation images of photos",
    ]
    assert onnxruntime.InferenceSession(out).get_inputs()[0].name == "images"


def test_json(run: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One document, whatever the libraries have to say; int8 has most of them at work."""
    command = [
        "export",
        str(run.folder),
        "--dtype",
        "int8",
        "--data",
        str(run.photos),
        "--out",
        str(tmp_path),
        "--json",
    ]
    assert main(command) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["file"] == str(tmp_path / "model-int8.onnx")
    assert Path(found["about"]).is_file()
    assert found["bytes"] == Path(found["file"]).stat().st_size < 0.3 * found["model_bytes"]
    assert found["check"]["images"] == 6
    assert found["check"]["top1_model"] == json.loads((run.folder / "result.json").read_text())["top1"]
    assert [each["batch"] for each in found["latency"]] == [1, 32]
    assert found["warnings"] == []


def test_without_data_no_accuracy(run: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run.folder), "--format", "torch-export", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "Top-1" not in said.out
    assert "On 64 images of noise" in said.out
    assert "no accuracy could be measured; --data" in said.err


def test_a_file_that_differs_fails(
    run: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(export_check.TOLERANCE, "fp16", 1e-7)  # which half precision cannot meet
    command = ["export", str(run.folder), "--dtype", "fp16", "--format", "torch-export", "--out", str(tmp_path)]
    assert main(command) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith(f"tricks: export {tmp_path}/model-fp16.pt2: logits differ by up to")
    assert list(tmp_path.iterdir()) == []


def test_a_warning(
    run: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(export_check.AGREEMENT, "int8", 1.1)
    command = [
        "export",
        str(run.folder),
        "--dtype",
        "int8",
        "--data",
        str(run.photos),
        "--out",
        str(tmp_path),
        "--json",
    ]
    assert main(command) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["warnings"][0].startswith("only ")
    assert "Warning: only " in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dtype", "int8"], "tricks: --dtype int8: needs images to calibrate with; pass --data"),
        (["--dtype", "int8", "--format", "torch-export"], "tricks: --dtype int8: is for --format onnx"),
        (["--format", "onxx"], "tricks: unknown --format 'onxx': did you mean 'onnx'?"),
        (["--data", "nowhere"], "tricks: data folder nowhere: no such folder"),
        (["--out", "model.pt2"], "tricks: --out model.pt2: a file of --format onnx is named *.onnx"),
        (["--opset", "12"], "tricks: unknown flag '--opset'"),
    ],
)
def test_wrong_requests(arguments: list[str], words: str, run: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run.folder), *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith(words)


def test_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path)]) == 2
    assert "config.json is missing" in capsys.readouterr().err
