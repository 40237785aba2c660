"""`tricks train` where it is cut off, and where memory does not suffice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bench import torture

from bagoftricks.cli import main
from bagoftricks.errors import RunError
from bagoftricks.loggers import Loggers
from bagoftricks.models.resnet import ResNet
from bagoftricks.recipe import Recipe
from bagoftricks.studies.study_file import load_study

SMALL = ["--size", "32", "--model.depth", "10", "--model", "A", "--epochs", "1", "--batch-size", "8"]


def test_memory_that_runs_out_costs_a_warning(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ResNet.forward

    def forward(self: ResNet, x_NCHW: torch.Tensor) -> torch.Tensor:
        if self.training and len(x_NCHW) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate …")
        return plain(self, x_NCHW)

    monkeypatch.setattr(ResNet, "forward", forward)
    out = tmp_path / "out"
    assert main(["train", "--data", str(photos), "--out", str(out), "--json", *SMALL]) == 0
    shown, said = capsys.readouterr()
    said = " ".join(said.split())
    assert "out of memory with 8 images of 32 pixels at once: pass --micro-batch 4, or lower input.size" in said
    assert "going on with 4" in said
    assert "going on with 2" in said
    folder = Path(json.loads(shown)["folder"])
    assert json.loads((folder / "result.json").read_text())["micro_batch"] == 2


def test_memory_that_never_suffices_is_an_error(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: ResNet, x_NCHW: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ResNet, "forward", forward)
    assert main(["train", "--data", str(photos), "--out", str(tmp_path / "out"), *SMALL]) == 1
    assert "tricks: out of memory with 2 images of 32 pixels at once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--micro-batch", "1"), "--micro-batch 1: must be at least 2"),
        (("--checkpoint-minutes", "-1"), "--checkpoint-minutes -1.0: must be at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    flags: tuple[str, ...], message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["train", "--data", str(photos), "--out", str(out), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_presets_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What all cells of a preset share is a recipe by its name; flags override it; a wrong name is one line."""
    out = tmp_path / "out"
    command = ["train", "--data", "digits", "--recipe", "quickstart", "--epochs", "1", "--device", "cpu"]
    assert main([*command, "--out", str(out), "--json"]) == 0
    (folder,) = (out / "runs").iterdir()
    wanted = load_study("quickstart").recipe.with_fields({"epochs": 1})
    assert Recipe.load(folder / "recipe.toml") == wanted
    assert main(["train", "--data", "digits", "--recipe", "quickstar"]) == 2
    assert "recipe quickstar: no such file" in capsys.readouterr().err


def test_the_command_goes_on_where_it_was_killed(photos: Path, tmp_path: Path) -> None:
    """As `make torture` does it twenty times."""
    options = torture.parser().parse_args(
        ["--data", str(photos), "--kills", "2", "--epochs", "3", "--batch", "8", "--depth", "10", "--tweaks", "A"]
    )
    command = torture.command(options, tmp_path / "out")
    whole = torture.attempt(options, tmp_path / "calm", None)
    assert not whole["killed"]
    attempts = [torture.attempt(options, tmp_path / "out", share * whole["seconds"]) for share in (0.5, 0.9)]
    assert attempts[0]["killed"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert torture.outcome(tmp_path / "out") == torture.outcome(tmp_path / "calm")
    assert not list((tmp_path / "out").rglob(".*.tmp"))
    assert json.loads(ended.stdout)["top1"] == torture.outcome(tmp_path / "calm")["measures"]["top1"]
    assert sys.executable in command


def test_a_training_that_fails_is_logged_so(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []
    monkeypatch.setattr(Loggers, "finish", lambda self, run_id, measures, status: ends.append(status))

    def breaks(*given: object, **named: object) -> None:
        raise RunError("the loss became nan")

    monkeypatch.setattr("bagoftricks.training.train.train", breaks)
    assert main(["train", "--data", str(photos), "--batch-size", "8", "--device", "cpu", "--out", str(tmp_path)]) == 1
    assert ends == ["failed"]
