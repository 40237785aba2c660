"""One run from start to end: data, split, model, initial weights, the loop, and the folder that keeps the result."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bagoftricks.data.batches import Batches
from bagoftricks.data.cache import open_images
from bagoftricks.data.index import ImageIndex, IntArray
from bagoftricks.data.resident import resident
from bagoftricks.data.soundness import ALLOWED, sound
from bagoftricks.data.sources import open_data
from bagoftricks.data.split import split
from bagoftricks.errors import DeviceMemoryError, RunError, UserError
from bagoftricks.files import check_output
from bagoftricks.models.build import build
from bagoftricks.models.folder import load_model
from bagoftricks.models.network import Network
from bagoftricks.models.weights import WeightsReport, load_initial
from bagoftricks.recipe import Conditions, Recipe, identity
from bagoftricks.store import RunWriter, Store, StoredRun, pack_names
from bagoftricks.training.adapt import Adaptation
from bagoftricks.training.checkpoint import MINUTES, Checkpoints
from bagoftricks.training.checks import check_fit, check_held_back
from bagoftricks.training.device_memory import device_memory, fewer
from bagoftricks.training.fit import Listener, Row, fit
from bagoftricks.training.hardware import Hardware, cores, detect, environment
from bagoftricks.training.initial import (
    SCRATCH,
    adaptation_of,
    adapted_file,
    initial_file,
    initial_identity,
    needs_adapting,
    weights_digest,
)
from bagoftricks.training.keeping import write_model
from bagoftricks.training.teacher import TeacherReport, check_teacher, hire, teacher_digest, teacher_network


@dataclass(frozen=True)
class Result:
    """What one training gave."""

    id: str
    """The run's identity."""
    measures: dict[str, float]
    """After the last epoch, on the validation set: loss, top1, top5 (from six classes on), mean_class_acc,
    macro_f1."""
    history: list[Row]
    """One row an epoch."""
    folder: Path | None = None
    """Where it is kept, if it is."""
    model: Network | None = field(default=None, repr=False, compare=False)
    """The trained network, on the CPU in eval mode; None where the run was found on disk and its model not kept."""

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
    listener: Listener | None = None,
    micro_batch: int | None = None,
    checkpoint_minutes: float = MINUTES,
    allow_corrupt: float = ALLOWED,
) -> Result:
    """Trains one recipe on one data set; a run that `out` already holds is not repeated.

    A run that was killed continues from its last checkpoint in `out`, to the same result bit for bit: there is one
    after each epoch, and one every few minutes.

    Args:
        recipe: what to do.
        data: "digits", a folder, or an index.
        seed: of the split, the initial weights, the order and the augmentation.
        out: folder to keep the run in, under `runs/<id>`; None keeps nothing.
        hardware: where to compute; by default the fastest device found.
        keep_model: whether the run's folder gets the model.
        listener: told of its progress.
        micro_batch: images that go through the network at once where the device has no memory for a whole batch, from 2
            up (of an odd batch, one part has one more); their gradients are added up. Batch-norm sees this many, so
            that results differ; the run's identity, which says what was asked for, does not.
        checkpoint_minutes: between two checkpoints within an epoch; 0 writes none at all.
        allow_corrupt: largest share of images that may be left out because they cannot be used, from 0 to 1.

    Raises:
        UserError: if recipe and data do not fit together.
        DeviceMemoryError: if the device has too little memory.
        StorageError: if the disk is full, or `out` cannot be written to any longer.
        RunError: if the training fails otherwise.
    """
    hardware, listener = hardware or detect(), listener or Listener()
    if micro_batch is not None and micro_batch < 2:
        raise UserError(f"micro_batch {micro_batch}: must be at least 2: batch-norm has no variance over one image")
    index, _ = sound(open_data(data), workers=cores(), allow=allow_corrupt)
    check_fit(recipe, index, seed)
    if out is None:
        with tempfile.TemporaryDirectory(prefix="bagoftricks-") as name:
            run = Training(recipe, index, seed, hardware, listener, micro_batch)
            run.execute(Path(name))
            return Result(run_identity(recipe, index, seed, hardware), run.measures, run.history, None, run.model)

    check_output(Path(out), index.folders)
    run_id, store = run_identity(recipe, index, seed, hardware), Store(Path(out))
    if found := store.get(run_id):
        store.clear(run_id)
        return from_store(found)
    with store.claim(run_id):
        if found := store.get(run_id):  # another process has just finished it
            return from_store(found)
        run = Training(recipe, index, seed, hardware, listener, micro_batch)
        with store.writing(run_id) as writer:
            checkpoints = Checkpoints(writer.checkpoint, run.conditions, checkpoint_minutes)
            try:
                run.execute(store.cache, writer, checkpoints)
            finally:
                checkpoints.stop()
            if keep_model:
                write_model(run.model, StoredRun(writer.folder))
    return Result(run_id, run.measures, run.history, store.runs / run_id, run.model)


class Training:
    """One recipe on one split: builds what `fit` needs, and hands what comes of it to a run's writer."""

    def __init__(
        self,
        recipe: Recipe,
        index: ImageIndex,
        seed: int,
        hardware: Hardware,
        listener: Listener,
        micro_batch: int | None,
    ) -> None:
        self.recipe, self.index, self.seed, self.hardware, self.listener = recipe, index, seed, hardware, listener
        self.micro_batch = min(micro_batch or recipe.batch_size, recipe.batch_size)
        self.sides = split(index, recipe.split, seed)
        self.conditions = {"micro_batch": self.micro_batch, "split": self.sides.digest}
        """What must be equal for a checkpoint to be continued, beside what the run's identity says."""
        self.history: list[Row] = []
        self.measures: dict[str, float] = {}
        self.model = build(recipe.model, index.num_classes, seed)
        self.model.classes = index.classes
        self.weights: WeightsReport | None = None
        self.leak = ""
        """Why the initial weights may know images that are to tell how good this run is."""
        self.adaptation: Adaptation | None = None
        self.teacher: TeacherReport | None = None

    def execute(self, cache: Path, writer: RunWriter | None = None, checkpoints: Checkpoints | None = None) -> None:
        """Trains, with decoded images in `cache`; afterwards the model is on the CPU, in eval mode."""
        recipe, index, hardware = self.recipe, self.index, self.hardware
        started = time.perf_counter()
        if writer:
            writer.recipe(recipe.to_toml())
            networks = (recipe.model, teacher_network(recipe, self.seed))
            timm = {"timm": version("timm")} if any(one and not one.is_resnet for one in networks) else {}
            writer.environment({**environment(), **timm, **vars(hardware)})

        def record(row: Row) -> None:
            self.history.append(row)
            if writer:
                writer.epoch(row)
            self.listener.on_epoch(row)

        train, val = self.prepare(cache)
        sides = self.sides
        self.teacher = check_teacher(recipe, index, sides.val, self.seed)
        if self.teacher:
            self.listener.on_teacher(self.teacher.summary(), self.teacher.warning)
        listener = replace(self.listener, on_epoch=record)
        with device_memory(recipe, fewer(self.micro_batch), self.micro_batch):
            teacher = hire(recipe, index.classes, train, hardware, self.micro_batch, listener.on_alive)
            evaluation = fit(
                self.model,
                train,
                val,
                recipe,
                index.num_classes,
                hardware,
                listener,
                micro_batch=self.micro_batch,
                checkpoints=checkpoints,
                teacher=teacher,
            )
        self.model.eval().cpu()
        self.measures = evaluation.measures
        if writer:
            names = pack_names([index.names[i] for i in sides.val])
            writer.predictions(logits=evaluation.logits_NK, labels=evaluation.label_N, members=sides.val, names=names)
            writer.result(
                {
                    **evaluation.measures,
                    "seed": self.seed,
                    "data": index.describe() | {"fingerprint": index.fingerprint},
                    "train_images": len(sides.train),
                    "val_images": len(sides.val),
                    "test_images": len(sides.test),
                    "split": sides.digest,
                    "micro_batch": self.micro_batch,
                    "seconds": time.perf_counter() - started + (checkpoints.spent_s if checkpoints else 0.0),
                    "weights": self._weights(),
                    **({"teacher": vars(self.teacher)} if self.teacher else {}),
                }
            )

    def prepare(self, cache: Path) -> tuple[Batches, Batches]:
        """Returns the training and the validation side as batches, with decoded images in `cache`.

        Afterwards the model has its initial weights, and is on the device.
        """
        recipe, index, hardware = self.recipe, self.index, self.hardware
        hardware.prepare()
        images = open_images(index, recipe.input.size, cache, workers=hardware.threads, progress=self.listener.on_image)
        images = resident(images, hardware.device, deterministic=hardware.deterministic)

        def side(members: IntArray) -> Batches:
            return Batches(images, index.labels, members, recipe.input, recipe.batch_size, self.seed, hardware.device)

        train, val = side(self.sides.train), side(self.sides.val)
        self._load_initial(train, val, cache)
        self.model = self.model.to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return train, val

    def _load_initial(self, train: Batches, val: Batches, cache: Path) -> None:
        """Copies the initial weights into the model, made to fit its architecture where that is asked for."""
        recipe, listener = self.recipe, self.listener
        if recipe.init == SCRATCH:
            return
        file = initial_file(recipe)
        path, item = file.path, file.item
        if needs_adapting(recipe):
            try:
                with device_memory(recipe, "carry the weights over elsewhere, by `tricks adapt`, and pass the file"):
                    path = adapted_file(
                        recipe, self.index, train, val, self.hardware, cache, listener.on_adapt,
                        lambda: listener.on_adapt(0, 0),
                    )  # fmt: skip
                    item = None  # it is a file of our own, which says what it comes from
            except DeviceMemoryError as error:  # which no smaller micro-batch helps
                raise RunError(f"adapting the initial weights: {error}") from error
        self.weights, self.adaptation = load_initial(self.model, path, item), adaptation_of(path)
        summary = self.weights.summary() + (f"; {self.adaptation.summary()}" if self.adaptation else "")
        self.leak = check_held_back(recipe, self.index, self.seed)
        listener.on_weights(summary, "; ".join(filter(None, (self.weights.warning, self.leak))))

    def _weights(self) -> dict[str, Any] | None:
        """What became of the initial weights, and their file's hash, so that a reader can tell the same file."""
        if self.weights is None:
            return None
        adapted = {"adapted": vars(self.adaptation)} if self.adaptation else {}
        leak = {"leak": self.leak} if self.leak else {}
        return {**self.weights.to_dict(), **adapted, **leak, "sha256": weights_digest(self.recipe.init)}


def run_identity(recipe: Recipe, index: ImageIndex, seed: int, hardware: Hardware) -> str:
    """Returns the identity of a run, hashing the content of data and initial weights."""
    exact = hardware.deterministic and hardware.device != "cpu"
    where = (hardware.threads, hardware.precision, hardware.device, exact, hardware.kernels)
    weights, teacher = initial_identity(recipe), teacher_digest(recipe, seed)
    return identity(recipe, Conditions(seed, index.fingerprint, weights, teacher, *where))


def from_store(run: StoredRun) -> Result:
    """Returns a stored run as a result, with its model where that was kept."""
    names = ("loss", "top1", "top5", "mean_class_acc", "macro_f1")
    measures = {name: run.result[name] for name in names if name in run.result}
    model = load_model(run.folder) if (run.folder / "model.safetensors").exists() else None
    return Result(run.id, measures, run.history, run.folder, model)
