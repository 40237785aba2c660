"""One run from start to end: data, split, model, initial weights, the loop, and the folder that keeps the result."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bagoftricks.data.batches import Batches
from bagoftricks.data.cache import open_images
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.sources import open_data
from bagoftricks.data.split import Split, split
from bagoftricks.errors import UserError
from bagoftricks.files import file_digest
from bagoftricks.models.folder import load_model, save_model
from bagoftricks.models.resnet import ResNet, build
from bagoftricks.models.weights import load_initial
from bagoftricks.recipe import Conditions, Recipe, identity
from bagoftricks.store import Store, StoredRun
from bagoftricks.training.fit import Row, fit
from bagoftricks.training.hardware import Hardware, detect, environment


@dataclass(frozen=True)
class Result:
    """What one training gave."""

    id: str
    """The run's identity."""
    measures: dict[str, float]
    """After the last epoch, on the validation set: loss, top1, top5 (from six classes on), mean_class_acc."""
    history: list[Row]
    """One row an epoch."""
    folder: Path | None = None
    """Where it is kept, if it is."""
    model: ResNet | None = field(default=None, repr=False, compare=False)
    """The trained network; None where the run was found on disk and its model not kept."""

    @property
    def top1(self) -> float:
        return self.measures["top1"]


def train(
    recipe: Recipe,
    data: str | Path | ImageIndex,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    hardware: Hardware | None = None,
    keep_model: bool = True,
    cache: Path | None = None,
    on_epoch: Callable[[Row], None] = lambda row: None,
    on_step: Callable[[int, int], None] = lambda step, total: None,
    on_weights: Callable[[str, str], None] = lambda summary, warning: None,
) -> Result:
    """Trains one recipe on one data set; a run that `out` already holds is not repeated.

    Args:
        recipe: what to do.
        data: "digits", a folder, or an index.
        seed: of the split, the initial weights, the order and the augmentation.
        out: folder to keep the run in, under `runs/<id>`; None keeps nothing.
        hardware: where to compute; by default the fastest device found.
        keep_model: whether the run's folder gets the model.
        cache: folder of decoded images; by default `out/cache`, or a temporary one.
        on_epoch: called with each epoch's measures.
        on_step: called after each step with the steps done and the total.
        on_weights: called with what became of the initial weights, and a warning or "".

    Raises:
        UserError: if recipe and data do not fit together.
        RunError: if the training fails.
    """
    index = open_data(data)
    hardware = hardware or detect()
    sides = check_fit(recipe, index, seed)
    run_id = run_identity(recipe, index, seed, hardware)
    store = Store(Path(out)) if out is not None else None
    if store and (found := store.get(run_id)):
        return from_store(found)

    hardware.prepare()
    started = time.perf_counter()
    with _cache_folder(cache, store) as cache_folder:
        images = open_images(index, recipe.input.size, cache_folder, workers=hardware.threads)

        def side(members: npt.NDArray[np.int64]) -> Batches:
            return Batches(images, index.labels, members, recipe.input, recipe.batch_size, seed, hardware.device)

        model = build(recipe.model, index.num_classes, seed)
        weights = load_initial(model, Path(recipe.init)) if recipe.init != "scratch" else None
        if weights:
            on_weights(weights.summary(), weights.warning)
        model.classes = index.classes
        model = model.to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        history: list[Row] = []

        with store.writing(run_id) if store else nullcontext() as writer:
            if writer:
                writer.recipe(recipe.to_toml())
                writer.environment({**environment(), **vars(hardware)})

            def record(row: Row) -> None:
                history.append(row)
                if writer:
                    writer.epoch(row)
                on_epoch(row)

            evaluation = fit(
                model, side(sides.train), side(sides.val), recipe, index.num_classes, hardware,
                on_epoch=record, on_step=on_step,
            )  # fmt: skip
            if writer:
                writer.predictions(logits=evaluation.logits_NK, labels=evaluation.label_N, members=sides.val)
                if keep_model:
                    save_model(model, index.classes, recipe.input, writer.folder)
                writer.result(
                    {
                        **evaluation.measures,
                        "seed": seed,
                        "data": index.describe() | {"fingerprint": index.fingerprint},
                        "train_images": len(sides.train),
                        "val_images": len(sides.val),
                        "seconds": time.perf_counter() - started,
                        "weights": weights.to_dict() if weights else None,
                    }
                )
    folder = store.runs / run_id if store else None
    return Result(run_id, evaluation.measures, history, folder, model)


def check_fit(recipe: Recipe, index: ImageIndex, seed: int) -> Split:
    """Returns the split, after checking what can only be known with recipe and data together.

    Raises:
        UserError: if a batch is larger than the training set, or the weights' file is missing.
    """
    sides = split(index, recipe.split, seed)
    if recipe.batch_size > len(sides.train):
        raise UserError(
            f"batch_size = {recipe.batch_size}: larger than the training set of {len(sides.train)} images; lower it"
        )
    if recipe.init != "scratch" and not Path(recipe.init).is_file():
        raise UserError(f"initial weights {recipe.init}: no such file; pass a .safetensors or .pth, or 'scratch'")
    return sides


def run_identity(recipe: Recipe, index: ImageIndex, seed: int, hardware: Hardware) -> str:
    """Returns the identity of a run, hashing the content of data and initial weights."""
    weights = "scratch" if recipe.init == "scratch" else weights_digest(recipe.init)
    where = (hardware.threads, hardware.precision, hardware.device)
    return identity(recipe, Conditions(seed, index.fingerprint, weights, *where))


@cache
def weights_digest(path: str) -> str:
    """Returns the hash of a weights file, read once in a process."""
    return file_digest(Path(path))


def from_store(run: StoredRun) -> Result:
    """Returns a stored run as a result, with its model where that was kept."""
    names = ("loss", "top1", "top5", "mean_class_acc")
    measures = {name: run.result[name] for name in names if name in run.result}
    model = load_model(run.folder) if (run.folder / "model.safetensors").exists() else None
    return Result(run.id, measures, run.history, run.folder, model)


@contextmanager
def _cache_folder(cache: Path | None, store: Store | None) -> Iterator[Path]:
    if cache or store:
        yield cache or store.cache  # type: ignore[union-attr]
    else:
        with tempfile.TemporaryDirectory(prefix="bagoftricks-") as name:
            yield Path(name)
