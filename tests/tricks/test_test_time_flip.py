from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bagoftricks.data.batches import Batches
from bagoftricks.data.cache import DecodedImages
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.split import split
from bagoftricks.errors import UserError
from bagoftricks.models.folder import load_model
from bagoftricks.recipe import Recipe
from bagoftricks.serving.classifier import load_model as load_classifier
from bagoftricks.training.evaluate import evaluate
from bagoftricks.training.final import measure_test
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.train import train
from bagoftricks.tricks.test_time_flip import TestTimeFlip
from tests.tricks.teachers import write_teacher

CPU = Hardware("cpu", "fp32", 1)
ON = {"test_time_flip.on": True}


def test_the_view_against_an_explicit_loop() -> None:
    x = torch.rand(2, 3, 4, 5)
    (view,) = TestTimeFlip(True).views(x)
    for n, c, i, j in np.ndindex(2, 3, 4, 5):
        assert view[n, c, i, j] == x[n, c, i, 4 - j]


def test_logits_are_the_means_of_both(digits: ImageIndex, recipe: Recipe, tmp_path: Path) -> None:
    chosen = recipe.with_fields({**ON, "epochs": 1})
    done = train(chosen, digits, out=tmp_path, hardware=CPU)
    assert done.folder is not None
    model, members = load_model(done.folder), split(digits, chosen.split, 0).val
    val = Batches(DecodedImages(digits, 48), digits.labels, members, chosen.input, 64, 0)
    both = []
    with torch.inference_mode():
        for x, _ in val.evaluation():
            both.append((model(x) + model(x.flip(3))) / 2)
    expected = torch.cat(both).numpy()
    np.testing.assert_allclose(np.load(done.folder / "predictions.npz")["logits"], expected, rtol=1e-3, atol=1e-4)
    plain = evaluate(model, val, 10, CPU)
    assert np.abs(plain.logits_NK - expected).max() > 1e-2


def test_a_kept_model_predicts_as_it_was_measured(digits: ImageIndex, recipe: Recipe, tmp_path: Path) -> None:
    done = train(recipe.with_fields({**ON, "epochs": 1}), digits, out=tmp_path, hardware=CPU)
    assert done.folder is not None
    assert json.loads((done.folder / "config.json").read_text())["tta"] == "flip"
    classifier = load_classifier(done.folder, device="cpu", precision="fp32")
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(classifier.logits(x), classifier.logits(x, tta="flip"))
    assert not torch.equal(classifier.logits(x), classifier.logits(x, tta="none"))


def test_the_locked_test_is_measured_so_too(digits: ImageIndex, recipe: Recipe, tmp_path: Path) -> None:
    looks = []
    for name, fields in (("flip", ON), ("plain", {})):
        chosen = recipe.with_fields({**fields, "epochs": 1, "split.test_fraction": 0.2})
        done = train(chosen, digits, out=tmp_path / name, hardware=CPU)
        assert done.folder is not None
        looks.append(measure_test(done.folder, digits, hardware=CPU).looks[0])
    assert looks[0]["loss"] != looks[1]["loss"]


def test_neutral_is_off() -> None:
    assert not TestTimeFlip().active


@pytest.mark.parametrize("value", ["mirror", 3])
def test_a_config_that_asks_for_another_view_is_refused(value: object, tmp_path: Path) -> None:
    config = write_teacher(tmp_path) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tta": value}))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(tmp_path)
