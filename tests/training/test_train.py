from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bagoftricks import ResNet, Result, UserError, load_model, train
from bagoftricks.cli import main
from bagoftricks.data.index import ImageIndex, subset
from bagoftricks.data.split import split
from bagoftricks.recipe import Recipe
from bagoftricks.reports.report import write_report
from bagoftricks.store import Store
from bagoftricks.studies.design import Study
from bagoftricks.studies.plan import plan_study
from bagoftricks.studies.run import run_study
from bagoftricks.training.fit import Listener
from bagoftricks.training.hardware import Hardware, cores, detect, thread_limit

CPU = Hardware("cpu", "fp32", 1)


def test_a_run_folder_holds_what_the_design_says(photos: Path, tmp_path: Path, recipe: Recipe) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in photos.rglob("*"))
    result = train(recipe.with_fields({"batch_size": 8}), photos, out=tmp_path / "out", hardware=CPU)
    assert result.folder is not None
    assert {p.name for p in result.folder.iterdir()} == {
        "recipe.toml",
        "environment.json",
        "metrics.jsonl",
        "predictions.npz",
        "result.json",
        "model.safetensors",
        "config.json",
        "README.md",
    }
    assert Recipe.load(result.folder / "recipe.toml").batch_size == 8
    assert json.loads((result.folder / "environment.json").read_text())["threads"] == 1
    assert "top5" not in result.measures  # three classes
    assert not any("top5" in name for row in result.history for name in row)
    stored = json.loads((result.folder / "result.json").read_text())
    assert (stored["train_images"], stored["val_images"]) == (24, 6)
    with np.load(result.folder / "predictions.npz") as predictions:
        assert predictions["logits"].shape == (6, 3)
        assert (predictions["logits"].argmax(1) == predictions["labels"]).mean() == pytest.approx(result.top1)
    assert sorted((p, p.stat().st_mtime_ns) for p in photos.rglob("*")) == before


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_a_class_whose_name_is_no_utf_8_is_trained_kept_and_told(
    photos: Path, tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an archive made elsewhere leaves folders; in the study's folder and its report too."""
    name = os.fsdecode(b"caf\xe9")
    (photos / "cat").rename(photos / name)
    study = Study("odd", recipe.with_fields({"batch_size": 8, "epochs": 1}))
    out = run_study(study, photos, out=tmp_path / "study", device="cpu", keep="all")
    assert write_report(out).is_file()
    (run,) = Store(out).models()
    assert load_model(run.folder).classes == (name, "dog", "owl")
    assert main(["predict", str(run.folder), str(photos / "dog"), "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out.encode())
    assert main(["evaluate", str(run.folder), "--data", str(photos), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.encode()


def test_weights_that_have_seen_the_answers_are_refused(digits: ImageIndex, tmp_path: Path, recipe: Recipe) -> None:
    base = recipe.with_fields({"epochs": 1})
    first = train(base, digits, seed=0, out=tmp_path, hardware=CPU)
    assert first.folder is not None
    further = base.with_fields({"init": str(first.folder / "model.safetensors")})
    assert train(further, digits, seed=0, hardware=CPU).history
    with pytest.raises(
        UserError, match=r"was trained on \d+ of the 40 validation images of seed 1, which would flatter"
    ):
        train(further, digits, seed=1, hardware=CPU)
    with pytest.raises(UserError, match="validation images of seed 1"):  # before the study's first run
        plan_study(Study("further", further, seeds=(0, 1)), digits, device="cpu")


def test_weights_that_may_have_seen_the_answers_are_told(
    digits: ImageIndex, tmp_path: Path, recipe: Recipe, photos: Path
) -> None:
    """Of a run on the data set before some images came to it; not of one on other images altogether."""
    base = recipe.with_fields({"epochs": 1, "batch_size": 8})
    fewer = subset(digits, [i for i in range(len(digits)) if i % 20 < 18])
    first = train(base, fewer, out=tmp_path, hardware=CPU)
    assert first.folder is not None
    further = base.with_fields({"init": str(first.folder / "model.safetensors")})
    told: list[str] = []
    listener = Listener(on_weights=lambda summary, warning: told.append(warning))
    kept = train(further, digits, out=tmp_path / "more", hardware=CPU, listener=listener)
    train(further, photos, hardware=CPU, listener=listener)
    assert "the initial weights are of a run on other data" in told[0]
    assert "of the 40 validation images were not among those it was validated on" in told[0]
    assert told[1] == ""
    assert kept.folder is not None
    stored = json.loads((kept.folder / "result.json").read_text())
    assert stored["weights"]["leak"] in told[0]
    assert stored["split"] == split(digits, further.split, 0).digest
    assert "may flatter it: the initial weights are of a run on other data" in (kept.folder / "README.md").read_text()


def test_test_images_of_a_run_that_locked_none_away_count(digits: ImageIndex, tmp_path: Path, recipe: Recipe) -> None:
    base = recipe.with_fields({"epochs": 1})
    first = train(base, digits, out=tmp_path, hardware=CPU)
    assert first.folder is not None
    init = str(first.folder / "model.safetensors")
    with pytest.raises(UserError, match="validation and test images of seed 0, which would flatter"):
        train(base.with_fields({"init": init, "split.test_fraction": 0.2}), digits, hardware=CPU)


def test_more_logits_than_a_run_may_keep_are_refused_before_training(
    digits: ImageIndex, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bagoftricks.training.checks.MOST_ARRAYS", 40 * (4 * 10 + 512) - 1)
    with pytest.raises(UserError, match="40 validation images of 10 classes: their logits are more than"):
        train(recipe, digits, hardware=CPU)


def test_asking_twice_costs_nothing(digits: ImageIndex, tmp_path: Path, recipe: Recipe) -> None:
    first = train(recipe, digits, out=tmp_path, hardware=CPU)
    steps: list[int] = []
    second = train(
        recipe, digits, out=tmp_path, hardware=CPU, listener=Listener(on_step=lambda step, total: steps.append(step))
    )
    assert steps == []
    assert (second.id, second.measures, second.history) == (first.id, first.measures, first.history)
    assert second.model is not None
    loaded = load_model(first.folder or "", precision="fp32")
    assert loaded.classes == tuple("0123456789")
    assert first.model is not None
    assert torch.equal(loaded.network.fc.weight, first.model.fc.weight)


def test_nothing_is_kept_without_a_folder(
    digits: ImageIndex, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = train(recipe.with_fields({"epochs": 1}), digits, hardware=CPU)
    assert isinstance(result, Result)
    assert result.folder is None
    assert list(tmp_path.iterdir()) == []


def test_initial_weights_are_used_and_accounted_for(digits: ImageIndex, tmp_path: Path, recipe: Recipe) -> None:
    source = ResNet("CD", 10, num_classes=7, seed=5)
    save_file(source.state_dict(), tmp_path / "w.safetensors", {"architecture": "ResNet-10-CD"})
    said: list[tuple[str, str]] = []
    result = train(
        recipe.with_fields({"init": str(tmp_path / "w.safetensors"), "epochs": 1, "optimizer.lr": 1e-9}),
        digits, out=tmp_path, hardware=CPU, listener=Listener(on_weights=lambda *words: said.append(words)),
    )  # fmt: skip
    assert result.folder is not None
    stored = json.loads((result.folder / "result.json").read_text())["weights"]
    assert stored["random"] == ["conv1.weight"]
    assert stored["replaced"] == ["fc.weight", "fc.bias"]
    assert "architecture CD, not A" in stored["warning"]
    assert said[0][1] == stored["warning"]
    assert result.model is not None
    assert not result.model.training
    torch.testing.assert_close(result.model.layer4[0].conv2.weight, source.layer4[0].conv2.weight, rtol=0, atol=1e-5)


def test_refuses_before_anything_is_written(photos: Path, tmp_path: Path, recipe: Recipe) -> None:
    for changes, message in (
        ({"batch_size": 25}, "batch_size = 25: larger than the training set of 24 images"),
        ({"init": "none.safetensors"}, "initial weights none.safetensors: no such file"),
        ({"init": "imagenet"}, "pass --init with a file"),
    ):
        with pytest.raises(UserError, match=message):
            train(recipe.with_fields(changes), photos, out=tmp_path / "out", hardware=CPU)
    assert not (tmp_path / "out").exists()


def test_detect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert detect("cpu", "fp32", 3) == Hardware("cpu", "fp32", 3)
    assert detect("cpu").threads == cores()
    assert thread_limit(10_000) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert thread_limit(1) == detect("cpu").threads == 1
    for arguments, message in (
        (("tpu",), "device 'tpu' is not here: choose from auto"),
        (("cpu", "int8"), "precision 'int8'"),
    ):
        with pytest.raises(UserError, match=message):
            detect(*arguments)


@pytest.mark.parametrize(
    ("size", "change"),
    [(32, {"fixres.share": 0.8}), (64, {"fixres.share": 0.95}), (32, {"progressive_resizing.start": 0.5})],
)
def test_a_trick_that_would_change_no_size_is_refused(
    digits: ImageIndex, recipe: Recipe, size: int, change: dict[str, float]
) -> None:
    """Sizes are multiples of 16 or 32: at small ones a study would compare a recipe with itself."""
    with pytest.raises(UserError, match=f"changes no images of {size} pixels"):
        train(recipe.with_fields({"input.size": size, **change}), digits, hardware=CPU)
