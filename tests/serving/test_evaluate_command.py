"""`tricks evaluate`: the run's own figures again, and classes matched by name."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import classification_report

from bagoftricks.cli import main
from bagoftricks.data.folder import read_folder
from bagoftricks.intervals import wilson
from bagoftricks.recipe import Recipe
from bagoftricks.serving.classifier import load_model
from bagoftricks.serving.evaluation import evaluate_folder, open_labelled, training_sides
from bagoftricks.training.calibration import expected_calibration_error, softmax
from bagoftricks.training.train import train
from tests.conftest import make_photos
from tests.serving.trained import CPU, MACHINE, Trained, lay_out, train_small

Evaluate = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small(recipe, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def alone(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model without the record of its run."""
    return trained.copy(tmp_path_factory.mktemp("model") / "alone", temperature=2.0)


@pytest.fixture
def evaluate(trained: Trained, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Runs the command and returns its status, output and errors."""

    def run(data: object, *arguments: object, model: Path = trained.folder) -> tuple[int, str, str]:
        status = main(["evaluate", str(model), "--data", str(data), *MACHINE, *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, " ".join(err.split())

    return run


def document(result: tuple[int, str, str]) -> dict[str, Any]:
    status, out, err = result
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_validation_side_gives_the_figures_of_the_run(trained: Trained, evaluate: Evaluate) -> None:
    found = document(evaluate(trained.photos, "--side", "val", "--json"))
    kept = json.loads((trained.folder / "result.json").read_text())
    assert found["images"] == kept["val_images"] == 6
    for name in ("loss", "top1", "mean_class_acc", "macro_f1"):
        assert found[name] == pytest.approx(kept[name], abs=1e-4)
    assert "top5" not in found
    assert found["top1_interval"] == list(wilson(round(6 * kept["top1"]), 6))
    assert found["of_own_training"] == {"val": 6}
    whole = document(evaluate(trained.photos, "--json"))
    assert whole["images"] == 30
    assert whole["of_own_training"] == {"train": 24, "val": 6}
    train_side = document(evaluate(trained.photos, "--side", "train", "--json"))
    assert train_side["images"] == 24
    mixed = (24 * train_side["loss"] + 6 * found["loss"]) / 30
    assert whole["loss"] == pytest.approx(mixed, abs=1e-4)


def test_own_training_images_are_warned_of(trained: Trained, evaluate: Evaluate, alone: Path) -> None:
    assert "the model was trained on 24 of these 30 images" in evaluate(trained.photos)[2]
    assert "was trained on" not in evaluate(trained.photos, "--side", "val")[2]
    assert "was trained on" not in evaluate(trained.photos, model=alone)[2]  # nobody can tell
    assert document(evaluate(trained.photos, "--json", model=alone))["of_own_training"] is None


def test_other_images_are_no_training_images(trained: Trained, tmp_path: Path) -> None:
    copy = shutil.copytree(trained.photos, tmp_path / "elsewhere")
    assert training_sides(trained.folder, copy, open_labelled(copy)) is not None
    shutil.copy(copy / "cat" / "01.jpg", copy / "cat" / "00.jpg")
    assert training_sides(trained.folder, copy, open_labelled(copy)) is None
    (copy / "cat" / "00.jpg").unlink()
    assert training_sides(trained.folder, copy, open_labelled(copy)) is None
    record = json.loads((trained.folder / "result.json").read_text())
    broken = shutil.copytree(trained.folder, tmp_path / "runs" / "broken")
    for damage in ({**record, "data": None}, {**record, "seed": "0"}, []):
        (broken / "result.json").write_text(json.dumps(damage))
        assert training_sides(broken, trained.photos, open_labelled(trained.photos)) is None


def test_classes_are_matched_by_name(trained: Trained, evaluate: Evaluate, alone: Path, tmp_path: Path) -> None:
    """Classes before, between and behind those of the model must not shift its own."""
    names = [name for name in trained.names() if not name.startswith("owl/")]
    data = lay_out(trained.photos, tmp_path / "data", names)
    for extra in ("aardvark", "cow", "zebra"):
        (data / extra).mkdir()
        shutil.copy(trained.photos / "owl" / "00.jpg", data / extra / "one.jpg")
    status, out, err = evaluate(data, "--json", model=alone)
    found = document((status, out, err))
    logits_NK, truth = trained.logits(), [name.split("/")[0] for name in trained.names()]
    right = [
        ("cat", "dog", "owl")[int(row.argmax())] == label
        for row, label in zip(logits_NK, truth, strict=True)
        if label != "owl"
    ]
    assert found["images"] == len(right) == 4
    assert found["top1"] == pytest.approx(np.mean(right))
    assert found["unknown_classes"] == {"aardvark": 1, "cow": 1, "zebra": 1}
    assert found["lacking_classes"] == ["owl"]
    assert {row["class"] for row in found["per_class"]} == {"cat", "dog"}
    assert "Unknown to the model, 3 images left out: 'aardvark', 'cow', 'zebra'" in err
    assert "Classes of the model without a folder here: 'owl'" in err
    status, out, err = evaluate(data, "--strict", model=alone)
    assert (status, out) == (2, "")
    assert "only in the data: 'aardvark', 'cow', 'zebra'; only in the model: 'owl'" in err


def test_the_order_of_the_models_classes_does_not_matter(trained: Trained, evaluate: Evaluate, tmp_path: Path) -> None:
    """Classes renamed in a cycle, folders and model alike: other places, the same figures."""
    renamed = {"cat": "x", "dog": "a", "owl": "m"}
    data = lay_out(trained.photos, tmp_path / "data", trained.names(), renamed)
    model = trained.copy(tmp_path / "model", tuple(renamed.values()))
    found = document(evaluate(data, "--strict", "--json", model=model))
    assert found["top1"] == pytest.approx(json.loads((trained.folder / "result.json").read_text())["top1"])
    plain = document(evaluate(trained.photos, "--side", "val", "--json"))
    by_name = {row["class"]: row["recall"] for row in found["per_class"]}
    assert {renamed[row["class"]]: row["recall"] for row in plain["per_class"]} == by_name
    wrong = {"cat": "dog", "dog": "owl", "owl": "cat"}
    moved = lay_out(trained.photos, tmp_path / "moved", trained.names(), wrong)
    assert document(evaluate(moved, "--json"))["loss"] > plain["loss"] + 0.1


def test_names_in_another_unicode_form_are_the_same(trained: Trained, evaluate: Evaluate, tmp_path: Path) -> None:
    model = trained.copy(tmp_path / "model", ("café", "dog", "owl"))
    apart = unicodedata.normalize("NFD", "café")
    assert apart != "café"
    data = lay_out(trained.photos, tmp_path / "data", trained.names(), {"cat": apart})
    assert document(evaluate(data, "--strict", "--json", model=model))["images"] == 6
    both = trained.copy(tmp_path / "both", ("café", apart, "owl"))
    found = document(evaluate(data, "--json", model=both))
    assert found["lacking_classes"] == ["café"]


def test_every_measure(trained: Trained, alone: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    found = document(evaluate(trained.photos, "--json", model=alone))
    on_all = evaluate_folder(load_model(alone, device="cpu", precision="fp32"), trained.photos)
    guess_N = on_all.logits_NK.argmax(axis=1)
    names = ["cat", "dog", "owl"]
    report = classification_report(on_all.label_N, guess_N, target_names=names, output_dict=True, zero_division=0)
    for row in found["per_class"]:
        theirs = report[row["class"]]
        for ours, name in (
            ("precision", "precision"),
            ("recall", "recall"),
            ("f1", "f1-score"),
            ("support", "support"),
        ):
            assert row[ours] == pytest.approx(theirs[name])
    assert [row["support"] for row in found["per_class"]] == [10, 10, 10]
    assert found["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"], abs=1e-6)
    assert found["mean_class_acc"] == pytest.approx(report["macro avg"]["recall"], abs=1e-6)
    assert sum(pair["first_for_second"] + pair["second_for_first"] for pair in found["confused"]) == round(
        30 * (1 - found["top1"])
    )
    fit = found["calibration"]
    assert fit["temperature"] == 2
    for side, temperature in (("before", 1.0), ("after", 2.0)):
        p_NK = softmax(on_all.logits_NK, temperature)
        assert fit[f"ece_{side}"] == pytest.approx(expected_calibration_error(p_NK, on_all.label_N))
        assert fit[f"nll_{side}"] == pytest.approx(-np.log(p_NK[np.arange(30), on_all.label_N]).mean())
    assert fit["nll_before"] == pytest.approx(found["loss"], abs=1e-5)
    plain = trained.copy(tmp_path / "plain")
    uncalibrated = document(evaluate(trained.photos, "--json", model=plain))["calibration"]
    assert (uncalibrated["temperature"], uncalibrated["ece_after"], uncalibrated["nll_after"]) == (None, None, None)


def test_the_text_says_the_same(trained: Trained, alone: Path, evaluate: Evaluate) -> None:
    found = document(evaluate(trained.photos, "--json", model=alone))
    status, out, _ = evaluate(trained.photos, model=alone)
    assert status == 0
    assert f"Top-1 {found['top1']:.3f}" in out
    low, high = found["top1_interval"]
    assert f"95 % interval: {low:.3f} to {high:.3f}" in out
    assert f"Calibration error: {found['calibration']['ece_before']:.3f} as trained" in out
    assert "with its temperature of 2.00" in out
    for name in ("cat", "dog", "owl"):
        assert f"│ {name} " in out


def test_top5_from_six_classes_on(recipe: Recipe, evaluate: Evaluate, tmp_path: Path) -> None:
    names = tuple("abcdef")
    data = make_photos(tmp_path / "six", names, each=4)
    run = train(recipe.with_fields({"epochs": 1, "batch_size": 8}), data, out=tmp_path / "out", hardware=CPU)
    assert run.folder is not None
    found = document(evaluate(data, "--side", "val", "--json", model=run.folder))
    assert found["top5"] == pytest.approx(run.measures["top5"])


def test_a_folders_own_sides(trained: Trained, alone: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    names = sorted(path.relative_to(trained.photos).as_posix() for path in trained.photos.rglob("*.jpg"))
    data = tmp_path / "data"
    for side, some in (("train", names[::3]), ("validation", names[1::3]), ("test", names[2::3])):
        lay_out(trained.photos, data / side, some)
    counts = {side: document(evaluate(data, "--side", side, "--json", model=alone))["images"]
              for side in ("all", "train", "val", "test")}  # fmt: skip
    assert counts == {"all": 30, "train": 10, "val": 10, "test": 10}
    shutil.rmtree(data / "train")
    shutil.rmtree(data / "validation")
    assert document(evaluate(data, "--json", model=alone))["images"] == 10  # a test set alone
    status, _, err = evaluate(data, "--side", "val", model=alone)
    assert (status, "has no images on that side" in err) == (2, True)


def test_a_locked_test_set_is_warned_of(recipe: Recipe, evaluate: Evaluate, trained: Trained, tmp_path: Path) -> None:
    fields = {"split.test_fraction": 0.2, "epochs": 1}
    run = train(trained.recipe.with_fields(fields), trained.photos, out=tmp_path / "out", hardware=CPU)
    assert run.folder is not None
    status, out, err = evaluate(trained.photos, "--side", "test", "--json", model=run.folder)
    assert document((status, out, err))["of_own_training"] == {"test": 6}
    assert "6 images are of the locked test set" in err


def test_what_could_not_be_trained_on_can_be_evaluated(
    trained: Trained, alone: Path, evaluate: Evaluate, tmp_path: Path
) -> None:
    """One class, one image; class folders that are empty."""
    data = lay_out(trained.photos, tmp_path / "data", ["dog/00.jpg"])
    (data / "cat").mkdir()
    found = document(evaluate(data, "--json", model=alone))
    assert (found["images"], found["lacking_classes"]) == (1, ["cat", "owl"])
    assert found["top1"] in (0, 1)


def test_bad_images_are_left_out_and_named(trained: Trained, alone: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    data = lay_out(trained.photos, tmp_path / "data", trained.names())
    (data / "cat" / "0-page.jpg").write_text("<html>")
    status, out, err = evaluate(data, "--json", "--batch-size", 4, model=alone)
    found = document((status, out, err))
    assert found["images"] == 6
    assert found["loss"] == pytest.approx(json.loads((trained.folder / "result.json").read_text())["loss"], abs=1e-4)
    assert found["bad_images"] == [{"filename": "cat/0-page.jpg", "error": "a web page or XML, not an image"}]
    assert "cat/0-page.jpg: a web page" in err
    for path in data.rglob("*.jpg"):
        path.write_text("<html>")
    status, out, err = evaluate(data, model=alone)
    assert (status, out) == (1, "")
    assert "none of 7 images could be read" in err


def test_flip_is_measured(trained: Trained, alone: Path, evaluate: Evaluate) -> None:
    plain, flipped = (
        document(evaluate(trained.photos, "--json", "--tta", tta, model=alone)) for tta in ("none", "flip")
    )
    assert plain["tta"] == "none"
    assert flipped["tta"] == "flip"
    assert flipped["loss"] != plain["loss"]
    assert flipped["loss"] == pytest.approx(plain["loss"], abs=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{photos}", "--side", "left"], "unknown --side 'left'"),
        (["{photos}", "--side", "val"], "has no folders train, val and test, and is not what the model was trained on"),
        (["{photos}/none"], "none: no such folder"),
        (["{photos}/cat"], "no images in class folders; they belong in cat/<class>/*"),
        (["{others}"], "none of its classes ('cow', 'pig') is one of the model's ('cat', 'dog', 'owl')"),
        (["{photos}", "--tta", "x"], "unknown --tta 'x'"),
        (["{photos}", "--batch-size", "0"], "--batch-size 0: must be at least 1"),
    ],
)
def test_wrong_requests(
    trained: Trained, alone: Path, evaluate: Evaluate, tmp_path: Path, arguments: list[str], message: str
) -> None:
    others = make_photos(tmp_path / "others", ("cow", "pig"), each=1)
    filled = [one.format(photos=trained.photos, others=others) for one in arguments]
    status, out, err = evaluate(*filled, model=alone)
    assert (status, out) == (2, "")
    assert message in err


def test_folders_are_read_as_training_reads_them(trained: Trained) -> None:
    ours, theirs = open_labelled(trained.photos), read_folder(trained.photos)
    assert ours.names == theirs.names
    assert ours.classes == theirs.classes
    assert ours.labels.tolist() == theirs.labels.tolist()


def test_a_manifest_and_digits(trained: Trained, alone: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    data = lay_out(trained.photos, tmp_path / "data", trained.names())
    rows = [f"{name},{name.split('/')[0]}" for name in trained.names()]
    (data / "list.csv").write_text("\n".join(["path,label", *rows]))
    assert document(evaluate(data / "list.csv", "--json", model=alone))["images"] == 6
    assert "none of its classes ('0', '1', " in evaluate("digits", model=alone)[2]


def test_a_manifest_that_is_only_measured_need_not_be_fit_for_training(
    trained: Trained, alone: Path, evaluate: Evaluate, tmp_path: Path
) -> None:
    """A test set alone; one class, one image of another, groups that lie within a class, a class nobody knows."""
    data = lay_out(trained.photos, tmp_path / "data", trained.names())
    names = trained.names()
    first = names[0].split("/")[0]
    other = next(name for name in names if not name.startswith(f"{first}/"))
    for header, rows in (
        ("path,label,split", [f"{name},{name.split('/')[0]},test" for name in names]),
        ("path,label", [f"{name},{first}" for name in names if name.startswith(f"{first}/")]),
        ("path,label,group", [f"{name},{name.split('/')[0]},{name.split('/')[0]}" for name in names]),
        ("path,label", [f"{name},{first}" for name in names if name.startswith(f"{first}/")] + [f"{other},walrus"]),
    ):
        (data / "list.csv").write_text("\n".join([header, *rows]))
        found = document(evaluate(data / "list.csv", "--json", model=alone))
        assert found["images"] == sum("walrus" not in row for row in rows)
    assert evaluate("", model=alone)[0] == 2
