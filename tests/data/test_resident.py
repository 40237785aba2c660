"""What a GPU computes from the resident cache is what the host computes; held to that on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bagoftricks.data.batches import Batches, crop_and_resize
from bagoftricks.data.cache import CachedImages, DecodedImages, open_images
from bagoftricks.data.input import InputConfig
from bagoftricks.data.resident import ResidentImages, resident
from bagoftricks.data.sources import open_data

SIZES = [(40, 60), (60, 40), (33, 33), (90, 31), (48, 48), (37, 53)]


@pytest.fixture
def cache(tmp_path: Path) -> CachedImages:
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate(SIZES):
        folder = tmp_path / "photos" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    images = open_images(open_data(tmp_path / "photos"), 32, tmp_path / "cache")
    assert isinstance(images, CachedImages)
    return images


def test_agrees_with_the_host_on_random_boxes(cache: CachedImages) -> None:
    rng, here = np.random.default_rng(1), ResidentImages(cache, "cpu")
    for _ in range(50):
        chosen = rng.permutation(len(SIZES))
        heights, widths = here.sizes(chosen)
        h, w = rng.uniform(1, heights), rng.uniform(1, widths)
        boxes = np.stack([rng.uniform(0, heights - h), rng.uniform(0, widths - w), h, w], 1)
        mirror = rng.random(len(chosen)) < 0.5
        expected = crop_and_resize(cache.many(chosen), boxes, mirror, 24, "cpu")
        found = here.crop_and_resize(chosen, boxes, mirror, 24)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)  # of 255, in float32


def test_it_is_copied_in_slices(cache: CachedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bagoftricks.data.resident.SLICE", 1000)
    assert len(cache.bytes) % 1000
    assert np.array_equal(ResidentImages(cache, "cpu").bytes.numpy(), cache.bytes)


def test_agrees_where_boxes_end_on_pixels(cache: CachedImages) -> None:
    here, chosen = ResidentImages(cache, "cpu"), np.arange(len(SIZES))
    heights, widths = here.sizes(chosen)
    zero = np.zeros(len(SIZES))
    whole = np.stack([zero, zero, heights, widths], 1).astype(float)
    one = np.stack([heights - 1, widths - 1, zero + 1, zero + 1], 1).astype(float)
    for boxes in (whole, one):
        for mirror in (zero > 0, zero == 0):
            expected = crop_and_resize(cache.many(chosen), boxes, mirror, 32, "cpu")
            torch.testing.assert_close(here.crop_and_resize(chosen, boxes, mirror, 32), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("crop", ["center", "squash", "pad"])
def test_batches_are_the_same(cache: CachedImages, crop: str) -> None:
    config = InputConfig(size=32, crop=crop)  # type: ignore[arg-type]
    labels, members = np.array([0, 1, 0, 1, 0, 1]), np.arange(6)
    host = Batches(cache, labels, members, config, 4, seed=3)
    here = replace(host, images=ResidentImages(cache, "cpu"))
    for one, other in (
        (host.training(0), here.training(0)),
        (host.training(1), here.training(1)),
        (host.evaluation(), here.evaluation()),
    ):
        for (x_NCHW, label_N), (found_NCHW, found_N) in zip(one, other, strict=True):
            torch.testing.assert_close(found_NCHW, x_NCHW, rtol=0, atol=1e-3)
            assert found_NCHW.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(found_N, label_N)


def test_only_a_gpu_takes_the_cache(cache: CachedImages) -> None:
    assert resident(cache, "cpu") is cache
    decoded = DecodedImages(None, 48)  # type: ignore[arg-type]
    assert resident(decoded, "cuda") is decoded
