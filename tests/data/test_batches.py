"""Crops against explicit ones; pairing; what an epoch contains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as TF
from PIL import Image

from bagoftricks.data.batches import (
    TRIES,
    Batches,
    center_boxes,
    crop_and_resize,
    evaluation_boxes,
    normalise,
    random_boxes,
)
from bagoftricks.data.cache import CachedImages, DecodedImages, cached_side, estimate_bytes, open_images
from bagoftricks.data.folder import read_folder
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.input import MEAN, STD, InputConfig
from bagoftricks.data.soundness import sound
from bagoftricks.errors import RunError


def draws(n: int) -> np.ndarray:
    return np.random.default_rng(0).random((n, 2 * TRIES + 2))


def test_random_boxes_lie_inside_and_keep_their_bounds() -> None:
    heights, widths = np.random.default_rng(1).integers(20, 300, (2, 5000))
    boxes = random_boxes(draws(5000), heights, widths, InputConfig(crop_min=0.35))
    top, left, h, w = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= heights + 1e-9).all()
    assert (left + w <= widths + 1e-9).all()
    assert (w / h).max() < 4 / 3 + 1e-9
    assert (h / w).max() < 4 / 3 + 1e-9
    usual = np.maximum(heights, widths) / np.minimum(heights, widths) < 2
    share = (h * w / (heights * widths))[usual]
    assert share.min() > 0.35 - 1e-9
    assert share.max() > 0.95


def test_random_boxes_agree_with_torchvision_in_distribution() -> None:
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.zeros(3, 100, 150)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [0.35, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)], dtype=float
    )
    ours = random_boxes(draws(4000), np.full(4000, 100), np.full(4000, 150), InputConfig(crop_min=0.35))
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 2
    assert np.abs(ours.std(0) - theirs.std(0)).max() < 2


def test_the_whole_image_at_its_size_is_itself() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    x_NCHW = crop_and_resize([image], np.array([[0.0, 0, 40, 40]]), np.array([False]), 40, "cpu")
    torch.testing.assert_close(x_NCHW[0], torch.from_numpy(image).permute(2, 0, 1).float(), rtol=0, atol=1e-2)


def test_mirror() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    box = np.array([[3.0, 7.5, 20.25, 31.0]] * 2)
    plain, mirrored = crop_and_resize([image, image], box, np.array([False, True]), 24, "cpu")
    torch.testing.assert_close(mirrored, plain.flip(-1), rtol=0, atol=1e-2)


@pytest.mark.parametrize("box", [(4, 6, 24, 30), (0, 0, 12, 9), (30, 20, 10, 40)])
def test_crops_agree_with_a_plain_bilinear_resize(box: tuple[int, int, int, int]) -> None:
    """In a batch beside a larger crop, so that padding is there, and would show."""
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    top, left, h, w = box
    x_NCHW = crop_and_resize(
        [image, image], np.array([box, (0, 0, 40, 60)], dtype=float), np.array([False, False]), 16, "cpu"
    )
    plain = torch.from_numpy(image).permute(2, 0, 1)[None, :, top : top + h, left : left + w].float()
    expected = F.interpolate(plain, (16, 16), mode="bilinear", align_corners=False)
    # inside, pixel by pixel; at the border ours may look at the neighbours that the crop leaves out
    torch.testing.assert_close(x_NCHW[0, :, 1:-1, 1:-1], expected[0, :, 1:-1, 1:-1], rtol=0, atol=0.1)
    assert (x_NCHW[0] - expected[0]).abs().mean() < 6


def test_center_boxes_are_torchvisions(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 90).astype(np.uint8)
    image = np.stack([np.tile(ramp, (60, 1))] * 3, 2)
    box = center_boxes(np.array([60]), np.array([90]), 0.8)
    assert box[0] == pytest.approx([6, 21, 48, 48])
    ours = crop_and_resize([image], box, np.array([False]), 32, "cpu")[0]
    resized = TF.resize(torch.from_numpy(image).permute(2, 0, 1).float(), [40], antialias=True)
    torch.testing.assert_close(ours, TF.center_crop(resized, [32]), rtol=0, atol=4)


def test_normalise_is_imagenets() -> None:
    x_NCHW = torch.rand(2, 3, 4, 5) * 255
    expected = TF.normalize(x_NCHW / 255, list(MEAN), list(STD))
    torch.testing.assert_close(normalise(x_NCHW), expected)
    assert normalise(x_NCHW).is_contiguous(memory_format=torch.channels_last)


def batches(index: ImageIndex, members: np.ndarray, size: int = 8, seed: int = 0) -> Batches:
    return Batches(DecodedImages(index, 48), index.labels, members, InputConfig(size=32), size, seed)


def test_an_epoch_shows_each_image_once_in_another_order(digits: ImageIndex) -> None:
    members = np.arange(0, 200, 3)
    side = batches(digits, members)
    assert side.steps_per_epoch == len(members) // 8
    labels = [torch.cat([y for _, y in side.training(epoch)]) for epoch in (0, 0, 1)]
    assert len(labels[0]) == 64
    assert torch.equal(labels[0], labels[1])
    assert not torch.equal(labels[0], labels[2])
    first, second = (torch.cat([x for x, _ in side.training(epoch)]) for epoch in (0, 0))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.cat([x for x, _ in side.training(1)]))


def test_the_batch_size_does_not_move_an_images_crop(digits: ImageIndex) -> None:
    members = np.arange(64)
    small = torch.cat([x for x, _ in batches(digits, members, size=8).training(0)])
    large = torch.cat([x for x, _ in batches(digits, members, size=32).training(0)])
    torch.testing.assert_close(small, large, rtol=0, atol=1e-4)


def test_about_half_of_the_images_are_mirrored_each_by_itself(
    digits: ImageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored: list[bool] = []

    def spy(images: Any, boxes: Any, mirror: np.ndarray, size: int, device: str) -> torch.Tensor:
        mirrored.extend(mirror.tolist())
        return torch.zeros(len(mirror), 3, size, size)

    monkeypatch.setattr("bagoftricks.data.batches.crop_and_resize", spy)
    side = batches(digits, np.arange(200))
    for epoch in range(5):
        list(side.training(epoch))
    flags = np.array(mirrored).reshape(5, 25, 8)
    assert abs(flags.mean() - 0.5) < 4 * 0.5 / np.sqrt(flags.size)
    assert len({tuple(row) for row in flags.reshape(-1, 8).tolist()}) > 50  # not whole batches at a time
    assert len({tuple(epoch.ravel()) for epoch in flags}) == 5
    mirrored.clear()
    list(replace(side, config=replace(side.config, flip=False)).training(0))
    list(side.evaluation())
    assert mirrored == [False] * 400


def test_evaluation_shows_every_image_in_order(digits: ImageIndex) -> None:
    members = np.arange(5, 200, 7)
    labels = torch.cat([y for _, y in batches(digits, members).evaluation()])
    assert labels.tolist() == digits.labels[members].tolist()


def test_cache_holds_what_decoding_gives(photos: Path, tmp_path: Path) -> None:
    index = read_folder(photos)
    seen: list[int] = []
    cached = open_images(index, 32, tmp_path / "cache", workers=2, progress=seen.append)
    assert isinstance(cached, CachedImages)
    assert seen == list(range(1, 31))
    chosen = np.array([3, 29, 0])
    direct = DecodedImages(index, cached_side(32), workers=2).many(chosen)
    for a, b in zip(cached.many(chosen), direct, strict=True):
        assert np.array_equal(a, b)
    again = open_images(index, 32, tmp_path / "cache", progress=seen.append)
    assert len(seen) == 30  # nothing is decoded twice
    assert np.array_equal(again.many(chosen)[1], direct[1])


def test_cache_names_the_broken_image_and_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    for name in ("03", "07"):
        (photos / "dog" / f"{name}.jpg").write_bytes(b"rubbish")
    with pytest.raises(RunError, match=r"dog/03\.jpg: cannot be decoded.*and 1 more: .*dog/07\.jpg$"):
        open_images(read_folder(photos), 32, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_too_large_is_not_built(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bagoftricks.data.cache.LIMIT_BYTES", 1000)
    images = open_images(read_folder(photos), 32, tmp_path / "cache")
    assert isinstance(images, DecodedImages)
    assert not (tmp_path / "cache").exists()


def test_extreme_shapes(tmp_path: Path) -> None:
    for name, shape in (("a", (3, 400)), ("b", (400, 3)), ("c", (1, 1))):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(np.full((*shape, 3), 99, np.uint8)).save(tmp_path / name / f"{i}.png")
    index = read_folder(tmp_path)
    side = Batches(DecodedImages(index, 48), index.labels, np.arange(6), InputConfig(size=32), 6, 0)
    for x_NCHW, _ in (*side.training(0), *side.evaluation()):
        grey = x_NCHW * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)
        torch.testing.assert_close(grey, torch.full_like(grey, 99 / 255), rtol=0, atol=1e-3)


def test_evaluation_by_pad_and_squash_sees_the_whole_image() -> None:
    """A wide image whose ends alone carry the evidence: the centre crop cuts it off."""
    wide = np.full((40, 120, 3), 100, dtype=np.uint8)
    wide[:, :10], wide[:, -10:] = (255, 0, 0), (0, 0, 255)
    views = {}
    for crop in ("center", "pad", "squash"):
        images, boxes = evaluation_boxes([wide], InputConfig(size=60, crop=crop))  # type: ignore[arg-type]
        views[crop] = crop_and_resize(images, boxes, np.array([False]), 60, "cpu")[0]
    red = {crop: bool((view[0] > 200).logical_and(view[1] < 50).any()) for crop, view in views.items()}
    assert red == {"center": False, "pad": True, "squash": True}
    band = views["pad"][:, [0, -1], :].mean(dim=(1, 2))  # above and below lies the mean colour
    assert band.tolist() == pytest.approx([value * 255 for value in MEAN], abs=0.6)
    assert views["pad"][0, 30, :4].min() > 240  # 120 pixels on 60: ten become five
    assert views["squash"][0, 0, :4].min() > 240


@pytest.mark.parametrize("crop", ["pad", "squash"])
def test_an_elongated_image_takes_little_memory_and_is_smoothed(crop: str) -> None:
    """Every other column is white: two taps of a bilinear resize would see stripes, where there is grey."""
    strip = np.zeros((48, 384, 3), dtype=np.uint8)
    strip[:, ::2] = 255
    config = InputConfig(size=32, crop=crop)  # type: ignore[arg-type]
    images, boxes = evaluation_boxes([strip, strip.swapaxes(0, 1)], config)
    assert max(side for image in images for side in image.shape[:2]) <= 2 * 32
    x_NCHW = crop_and_resize(images, boxes, np.zeros(2, dtype=bool), 32, "cpu")
    middle = x_NCHW[0, 0, 15:17, 2:-2]
    assert middle.min() > 100
    assert middle.max() < 155


def test_the_caches_size_is_told_from_the_images(tmp_path: Path) -> None:
    for name, shape in (("a", (30, 40)), ("b", (300, 400))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.full((*shape, 3), 99 + i, np.uint8)).save(tmp_path / "photos" / name / f"{i}.png")
    index, _ = sound(read_folder(tmp_path / "photos"))
    images = open_images(index, 64, tmp_path / "cache")
    assert isinstance(images, CachedImages)
    assert estimate_bytes(index, 64) == pytest.approx(len(images.bytes), rel=0.01)
    assert len(images.bytes) == 2 * 3 * (30 * 40 + 96 * 128)
