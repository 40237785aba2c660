"""Where a teacher comes from: a folder with a saved model, or weights that timm publishes; both answer the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from bagoftricks.data.index import ImageIndex, IntArray
from bagoftricks.errors import UserError
from bagoftricks.files import expanded
from bagoftricks.models.build import build
from bagoftricks.models.config import TIMM, ModelConfig
from bagoftricks.models.folder import load_model
from bagoftricks.models.from_timm import class_names
from bagoftricks.models.hub import resolve, sha256_of
from bagoftricks.models.network import Network
from bagoftricks.models.published import find
from bagoftricks.models.saved import CONFIG, WEIGHTS, SavedModel, joined_licences, read_config
from bagoftricks.models.weights import load_initial
from bagoftricks.recipe import Recipe
from bagoftricks.store import RESULT, StoredRun, kept_model

SEED = "{seed}"
"""In a teacher's folder, what stands for the seed of the run."""
UNTOLD = "nobody can tell which images the teacher was trained on: it may know those that its student is judged by"


class TeacherSource(Protocol):
    """What is asked of a teacher before it is loaded. Each raises `UserError` where there is no such model."""

    @property
    def knows_more(self) -> bool:
        """Whether it may know classes besides the student's."""
        ...

    @property
    def run(self) -> str:
        """Name of the model's folder; "" of published weights."""
        ...

    @property
    def config(self) -> ModelConfig:
        """Which network it is."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of its logits."""
        ...

    @property
    def licence(self) -> str:
        """Of the weights that it began with; as in `SavedModel`."""
        ...

    def digest(self) -> str:
        """Returns the hash of all that determines its logits."""
        ...

    def load(self) -> Network:
        """Returns the network with its weights and the names of its classes."""
        ...

    def leak(self, index: ImageIndex, val: IntArray, seed: int) -> str:
        """Returns why it may know images of `val`; "" where it does not.

        Raises:
            UserError: if it was trained on them.
        """
        ...


def teacher_source(recipe: Recipe, seed: int) -> TeacherSource | None:
    """Returns where the teacher that a recipe names for a seed comes from; None where it names none.

    Raises:
        UserError: if it is named after no kept model.
    """
    if not recipe.teacher:
        return None
    if recipe.teacher.startswith(TIMM):
        return PublishedTeacher(recipe.teacher)
    return SavedTeacher(kept_model(expanded(recipe.teacher.replace(SEED, str(seed)))))


def on_same_data(run: StoredRun, index: ImageIndex) -> bool:
    """Whether a run was on these images, test images apart."""
    return bool(run.result.get("data", {}).get("fingerprint") == index.fingerprint)


def not_held_back(run: StoredRun, index: ImageIndex, val: IntArray) -> int:
    """Returns how many of the images were not among those that a run was validated on.

    They are told by their names: places in the data set move where images for testing join it.
    """
    names = run.names()
    if names is None and on_same_data(run, index):  # of a version that kept none
        return len(np.setdiff1d(val, run.predictions()["members"]))
    held = set(names or ())
    return sum(index.names[i] not in held for i in val.tolist())


@dataclass(frozen=True)
class SavedTeacher:
    """A folder with a saved model."""

    folder: Path
    knows_more = False

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def run(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def saved(self) -> SavedModel:
        """What its `config.json` says, read once."""
        return read_config(self.folder)

    @property
    def config(self) -> ModelConfig:
        return self.saved.config

    @property
    def classes(self) -> tuple[str, ...]:
        return self.saved.classes

    @property
    def licence(self) -> str:
        """Of its own initial weights, and of those that it was taught by."""
        return joined_licences(self.saved.licence, self.saved.teacher_licence)

    def digest(self) -> str:
        digests = []
        for name in (WEIGHTS, CONFIG):
            path = self.folder.absolute() / name
            if not path.is_file():
                raise UserError(f"distillation.teacher = {self}: no model folder, it has no {name}")
            digests.append(sha256_of(path))
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def load(self) -> Network:
        return load_model(self.folder)

    def leak(self, index: ImageIndex, val: IntArray, seed: int) -> str:
        if not (self.folder / RESULT).is_file():
            return UNTOLD
        run = StoredRun(self.folder)
        unknown = not_held_back(run, index, val)
        if not unknown:
            return ""
        if on_same_data(run, index):
            raise UserError(
                f"distillation.teacher = {self}: was trained on {unknown:,} of the {len(val):,} validation images of "
                f"seed {seed}; train one with that seed's split, and name each seed's by {SEED}"
            )
        return (
            f"the teacher was trained on other data, and {unknown:,} of the {len(val):,} validation images were not "
            "among those it was validated on: it may know them"
        )


@dataclass(frozen=True)
class PublishedTeacher:
    """Weights that timm publishes, by name."""

    name: str
    knows_more = True
    run = ""

    def __str__(self) -> str:
        return self.name

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(backbone=self.name)

    @property
    def classes(self) -> tuple[str, ...]:
        return class_names(self.name.removeprefix(TIMM))

    @property
    def licence(self) -> str:
        return find(self.name).licence

    def digest(self) -> str:
        return sha256_of(resolve(self.name))

    def load(self) -> Network:
        classes = self.classes
        model = build(self.config, len(classes))
        path = resolve(self.name)
        report = load_initial(model, path, find(self.name))
        if lacking := (*report.random, *report.replaced):
            raise UserError(f"distillation.teacher = {self}: {path} lacks {lacking[0]}")
        model.classes = classes
        return model

    def leak(self, index: ImageIndex, val: IntArray, seed: int) -> str:
        return UNTOLD
