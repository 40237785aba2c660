"""What holds on a GPU. Tests marked gpu are skipped without CUDA; the bodies of most run on a CPU too.

`python bench/gpu.py --part tests --out results` runs those marked gpu, from a checkout with torch, torchvision and
scikit-learn.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from bagoftricks.data.batches import Batches, crop_and_resize
from bagoftricks.data.cache import CachedImages, DecodedImages, Images, open_images
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.resident import ResidentImages, resident
from bagoftricks.data.sources import open_data
from bagoftricks.errors import DeviceMemoryError, RunError
from bagoftricks.models.build import build
from bagoftricks.recipe import Recipe
from bagoftricks.store import Store
from bagoftricks.training.evaluate import Meter
from bagoftricks.training.fit import Listener, fit
from bagoftricks.training.hardware import Hardware, detect, has_fast_bf16
from bagoftricks.training.train import train
from tests.conftest import ROOT, make_photos

CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]
)
needs_cuda = pytest.mark.parametrize("device", [CUDA])
everywhere = pytest.mark.parametrize("device", ["cpu", CUDA])
WELL_CONDITIONED = {
    "optimizer.name": "sgd",
    "optimizer.lr": 0.001,
    "optimizer.momentum": 0.5,
    "model.zero_init_gamma": True,
    "mixup.alpha": 0.2,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageIndex, CachedImages]:
    """120 photographs in three classes, and their cache."""
    root = tmp_path_factory.mktemp("gpu")
    index = open_data(make_photos(root / "photos", each=40))
    images = open_images(index, 32, root / "cache")
    assert isinstance(images, CachedImages)
    return index, images


@pytest.fixture(autouse=True)
def threads_as_they_were() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def fitted(
    recipe: Recipe,
    index: ImageIndex,
    images: Images,
    hardware: Hardware,
    on_step: Callable[[int, int], None] = lambda step, total: None,
    prepare: Callable[[nn.Module], None] = lambda model: None,
) -> list[dict[str, float]]:
    """Trains on three quarters of the images; returns a row for each epoch."""
    hardware.prepare()
    order = np.random.default_rng(0).permutation(len(index))
    cut = len(index) * 3 // 4

    def side(members: np.ndarray) -> Batches:
        return Batches(images, index.labels, members, recipe.input, recipe.batch_size, 0, hardware.device)

    model = build(recipe.model, index.num_classes).to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepare(model)
    rows: list[dict[str, float]] = []
    listener = Listener(on_step=on_step, on_epoch=rows.append)
    fit(model, side(order[:cut]), side(order[cut:]), recipe, index.num_classes, hardware, listener)
    return rows


@everywhere
def test_crops_of_the_resident_cache_are_the_hosts(device: str, photos: tuple[ImageIndex, CachedImages]) -> None:
    _, cache = photos
    there = resident(cache, device)
    assert isinstance(there, ResidentImages if device == "cuda" else CachedImages)
    if device == "cpu":  # nobody would, but the arithmetic is the same
        there = ResidentImages(cache, device)
    rng = np.random.default_rng(1)
    for _ in range(20):
        chosen = rng.permutation(len(cache.offset))[:32]
        heights, widths = there.sizes(chosen)
        h, w = rng.uniform(1, heights), rng.uniform(1, widths)
        boxes = np.stack([rng.uniform(0, heights - h), rng.uniform(0, widths - w), h, w], 1)
        mirror = rng.random(len(chosen)) < 0.5
        expected = crop_and_resize(cache.many(chosen), boxes, mirror, 32, "cpu")
        found = there.crop_and_resize(chosen, boxes, mirror, 32)
        assert found.device.type == device
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0.05)  # of 255


@everywhere
def test_the_hosts_crops_are_the_same_on_each_device(device: str, photos: tuple[ImageIndex, CachedImages]) -> None:
    """For a cache that does not fit beside the training."""
    index, cache = photos
    there = Batches(cache, index.labels, np.arange(64), Recipe().input, 32, 3, device)
    here = replace(there, device="cpu")
    for (x_NCHW, label_N), (expected_NCHW, expected_N) in zip(there.training(0), here.training(0), strict=True):
        assert x_NCHW.device.type == label_N.device.type == device
        torch.testing.assert_close(x_NCHW.cpu(), expected_NCHW, rtol=0, atol=2e-3)
        assert torch.equal(label_N.cpu(), expected_N)


@contextmanager
def waiting_refused() -> Iterator[None]:
    """An error at whatever makes the host wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("on_device", [True, False])
def test_no_step_waits_for_the_device(
    device: str, optimizer: str, on_device: bool, recipe: Recipe, photos: tuple[ImageIndex, CachedImages]
) -> None:
    """From the second step, when all is set up, to the last but one: the last one looks at the losses."""
    index, cache = photos
    images = ResidentImages(cache, device) if on_device else cache
    changes = {"epochs": 1, "mixup.alpha": 0.2, "optimizer.name": optimizer, "input.flip": True}
    refused, guarded = waiting_refused(), []

    def on_step(step: int, total: int) -> None:
        if step == 1:
            refused.__enter__()
        elif step == total - 1:
            refused.__exit__(None, None, None)
        guarded.append(1 < step < total)

    try:
        fitted(recipe.with_fields(changes), index, images, detect(device, threads=1), on_step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum(guarded) == 3  # of five


@everywhere
def test_bf16_and_channels_last_are_at_work(
    device: str, recipe: Recipe, photos: tuple[ImageIndex, CachedImages]
) -> None:
    index, cache = photos
    seen: set[tuple[Any, ...]] = set()
    kept: list[nn.Module] = []

    def look(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        flat = min(output.shape[1:]) == 1 or output.shape[2:].numel() == 1  # any layout is channels last
        seen.add((output.device.type, output.dtype, flat or output.is_contiguous(memory_format=torch.channels_last)))

    def prepare(model: nn.Module) -> None:
        kept.append(model)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(look)

    small = recipe.with_fields({"epochs": 1, "input.size": 64})
    fitted(small, index, cache, Hardware(device, "bf16", 1), prepare=prepare)
    assert seen == {(device, torch.bfloat16, True)}
    assert {p.dtype for p in kept[0].parameters()} == {torch.float32}
    if device == "cuda":
        assert has_fast_bf16("cuda") == (detect("cuda").precision == "bf16")


def losses_of(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> list[float]:
    """The loss of each training step."""
    losses: list[float] = []
    add = Meter.add

    def spy(self: Meter, loss: torch.Tensor, logits: torch.Tensor, label: torch.Tensor) -> None:
        losses.append(float(loss.detach()))
        add(self, loss, logits, label)

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "add", spy)
        fitted(*arguments)
    return losses


@everywhere
def test_fp32_follows_the_cpus_loss_curve(
    device: str, recipe: Recipe, photos: tuple[ImageIndex, CachedImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From crops cut there; so neither TF32 nor another layout nor another order is at work."""
    index, cache = photos
    gentle = recipe.with_fields({"epochs": 2, **WELL_CONDITIONED})
    expected = losses_of(monkeypatch, gentle, index, cache, Hardware("cpu", "fp32", 1))
    there = losses_of(monkeypatch, gentle, index, ResidentImages(cache, device), Hardware(device, "fp32", 1))
    assert len(expected) == 2 * (5 + 2)
    assert there == pytest.approx(expected, rel=2e-4)
    assert len({round(loss, 3) for loss in expected}) > 7


@everywhere
def test_a_loss_that_is_not_finite_is_found(
    device: str, recipe: Recipe, photos: tuple[ImageIndex, CachedImages]
) -> None:
    """On a GPU at the epoch's end, as looking makes the host wait; the step that is named is the first one."""
    index, cache = photos
    steps: list[int] = []

    def prepare(model: nn.Module) -> None:
        model.register_forward_hook(lambda module, inputs, logits: logits / 0 if len(steps) == 2 else None)

    with pytest.raises(RunError, match=r"the loss became nan in epoch 1, step 3 of 5: lower optimizer.lr"):
        fitted(recipe, index, cache, Hardware(device, "fp32", 1), lambda step, total: steps.append(step), prepare)
    assert steps == ([1, 2, 3, 4] if device == "cuda" else [1, 2])


TWICE = """
import sys
from pathlib import Path
from tests.gpu.test_cuda import train_exactly
train_exactly(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
"""


def train_exactly(out: Path, device: str, precision: str) -> None:
    """Trains as `tricks train --deterministic` does, on the folder beside `out`."""
    network = {"input.size": 64, "model.tweaks": "BCDEF", "model.depth": 50}
    fields = {"epochs": 2, "batch_size": 32, "mixup.alpha": 0.2, **network}
    hardware = detect(device, precision, 1, deterministic=True)
    train(Recipe().with_fields(fields), out.parent / "photos", out=out, hardware=hardware)


@pytest.mark.parametrize(
    ("device", "precision"),
    [pytest.param("cuda", precision, marks=CUDA.marks) for precision in ("fp32", "bf16")],
)
def test_the_same_bits_twice(device: str, precision: str, tmp_path: Path) -> None:
    """With --deterministic, in two processes: mixup, AdamW, ResNet-50-BCDEF, the cache on the device. On a CPU:
    tests/test_repeatable.py."""
    make_photos(tmp_path / "photos", each=15)
    found = []
    for out in (tmp_path / "one", tmp_path / "two"):
        command = [sys.executable, "-c", TWICE, str(out), device, precision]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, check=True)
        (run,) = Store(out).models()
        assert run.environment["deterministic"] is True
        weights = {name: tensor.tobytes() for name, tensor in load_file(run.folder / "model.safetensors").items()}
        losses = [row["train_loss"] for row in run.history]
        found.append((run.id, weights, run.predictions()["logits"].tobytes(), losses))
    assert found[0] == found[1]


@needs_cuda
def test_a_batch_too_large_is_named(device: str, digits: ImageIndex, recipe: Recipe) -> None:
    """As on a small GPU: torch may take half a gigabyte."""
    _, total = torch.cuda.mem_get_info()
    large = recipe.with_fields({"epochs": 1, "batch_size": 128, "input.size": 224, "model.depth": 50})
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**29 / total)
    try:
        with pytest.raises(DeviceMemoryError, match="out of memory with 128 images"):
            train(large, digits, hardware=Hardware(device, "fp32", 1))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@needs_cuda
def test_a_whole_training_leaves_the_model_on_the_host(
    device: str, photos: tuple[ImageIndex, CachedImages], recipe: Recipe, tmp_path: Path
) -> None:
    result = train(recipe, photos[0], out=tmp_path, hardware=detect(device))
    assert result.model is not None
    assert {p.device.type for p in result.model.parameters()} == {"cpu"}
    assert result.folder is not None
    run = Store(tmp_path).get(result.id)
    assert run is not None
    assert run.environment["device"] == "cuda"
    assert run.environment["gpu"] == torch.cuda.get_device_name()
    assert np.isfinite(run.predictions()["logits"]).all()
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


def test_decoded_images_stay_where_they_are(digits: ImageIndex) -> None:
    images = DecodedImages(digits, 48)
    assert resident(images, "cuda") is images
