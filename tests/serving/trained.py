"""A model to predict with: trained for a second on photographs of three colours, and kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bagoftricks.models.folder import load_model, save_model
from bagoftricks.recipe import Recipe
from bagoftricks.store import StoredRun
from bagoftricks.training.hardware import Hardware
from bagoftricks.training.train import train
from tests.conftest import make_photos

CPU = Hardware("cpu", "fp32", 1)
MACHINE = ("--device", "cpu", "--precision", "fp32")


class Trained(NamedTuple):
    """A run and what it was trained on."""

    root: Path
    """The folder of trainings."""
    folder: Path
    photos: Path
    recipe: Recipe

    @property
    def calibrated(self) -> Path:
        """A folder with the model alone, its temperature 1: probabilities are the softmax of the run's logits."""
        place = self.root.with_name("calibrated")
        return place if place.is_dir() else self.copy(place, temperature=1.0)

    def names(self) -> list[str]:
        """Names of the validation images, in the order of the logits."""
        names = StoredRun(self.folder).names()
        assert names is not None
        return names

    def logits(self) -> np.ndarray:
        """What the run itself said of its validation images."""
        return StoredRun(self.folder).predictions()["logits"]

    def copy(self, folder: Path, classes: tuple[str, ...] | None = None, temperature: float | None = None) -> Path:
        """Returns a folder with the model alone, under other class names or with a temperature."""
        model = load_model(self.folder)
        save_model(model, classes or model.classes, self.recipe.input, folder, temperature=temperature)
        return folder


def train_small(recipe: Recipe, top: Path) -> Trained:
    """Trains on thirty photographs, 24 of them for training."""
    photos = make_photos(top / "photos")
    small = recipe.with_fields({"epochs": 2, "batch_size": 8, "split.duplicates": "ignore"})
    result = train(small, photos, out=top / "trained", hardware=CPU)
    assert result.folder is not None
    return Trained(top / "trained", result.folder, photos, small)


def lay_out(photos: Path, target: Path, names: list[str], classes: dict[str, str] | None = None) -> Path:
    """Copies images into class folders of a new root, under other class names where given."""
    for name in names:
        label, file = name.split("/")
        folder = target / (classes or {}).get(label, label)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / name, folder / file)
    return target
