"""Batches: each image its own random resized crop and flip for training, the same view each time for evaluation.

Boxes are (top, left, height, width) in pixels of the cached image, floats. Only the pixels inside are copied to the
device, as uint8; resizing, flipping and normalising happen there for the whole batch.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bagoftricks.data.cache import Images
from bagoftricks.data.index import IntArray, Pixels
from bagoftricks.data.input import MEAN, STD, InputConfig
from bagoftricks.data.resident import ResidentImages, to_device
from bagoftricks.rng import stream, uniforms

FloatArray = npt.NDArray[np.float64]
TRIES = 10
"""Crops tried for each image before the whole of it is taken, as in torchvision's RandomResizedCrop."""
WHOLE = 2
"""Longest side of an image that evaluation sees the whole of, as a multiple of the size it is seen at."""


def random_boxes(draws: FloatArray, heights: IntArray, widths: IntArray, config: InputConfig) -> FloatArray:
    """Returns (N, 4) random resized crops: area uniform, log aspect ratio uniform, place uniform (Szegedy et al. 2015).

    Args:
        draws: (N, 2 * TRIES + 2) uniforms in [0, 1): areas, ratios, then the place.
        heights: (N,) of the images, pixels.
        widths: (N,) of the images, pixels.
        config: least area and widest ratio.
    """
    area = (heights * widths)[:, None] * (config.crop_min + (1 - config.crop_min) * draws[:, :TRIES])
    ratio = config.crop_ratio ** (2 * draws[:, TRIES : 2 * TRIES] - 1)
    w, h = np.sqrt(area * ratio), np.sqrt(area / ratio)
    fits = (w <= widths[:, None]) & (h <= heights[:, None])
    first = np.arange(len(draws)), fits.argmax(1)
    w, h = w[first], h[first]
    none = np.logical_not(fits.any(axis=1))
    # no try fits: the largest centre crop whose ratio is allowed, as torchvision does
    w[none] = np.minimum(widths, heights * config.crop_ratio)[none]
    h[none] = np.minimum(heights, widths * config.crop_ratio)[none]
    place = np.where(none[:, None], 0.5, draws[:, 2 * TRIES :])
    return np.stack([place[:, 0] * (heights - h), place[:, 1] * (widths - w), h, w], 1)


def center_boxes(heights: IntArray, widths: IntArray, crop_pct: float) -> FloatArray:
    """Returns (N, 4) centre squares, their side a share of each image's short side."""
    side = np.minimum(heights, widths) * crop_pct
    return np.stack([(heights - side) / 2, (widths - side) / 2, side, side], 1)


def evaluation_boxes(images: list[Pixels], config: InputConfig) -> tuple[list[Pixels], FloatArray]:
    """Returns the images to cut from and (N, 4) boxes, as `config.crop` asks: center, pad or squash."""
    if config.crop != "center":
        images = [shrunk(image, config) for image in images]
    if config.crop == "pad":
        images = [_on_square(image) for image in images]
    return images, view_boxes(*_sizes(images), config)


def view_boxes(heights: IntArray, widths: IntArray, config: InputConfig) -> FloatArray:
    """Returns (N, 4) boxes of what evaluation sees of images of these sizes: the centre, or the whole."""
    if config.crop == "center":
        return center_boxes(heights, widths, config.crop_pct)
    return np.stack([np.zeros(len(heights)), np.zeros(len(heights)), heights, widths], 1).astype(float)


def shrunk(image: Pixels, config: InputConfig) -> Pixels:
    """Returns an image of which all is to be seen, no side above twice the size, bilinearly with antialiasing.

    From more pixels than that, bilinear resizing would take some and skip others. A square around it keeps its shape; a
    squashed one loses it later anyway.
    """
    from PIL import Image

    height, width = image.shape[:2]
    most = WHOLE * config.size
    if max(height, width) <= most:
        return image
    if config.crop == "pad":
        scale = most / max(height, width)
        new = (max(1, round(width * scale)), max(1, round(height * scale)))
    else:
        new = (min(width, most), min(height, most))
    return np.asarray(Image.fromarray(image).resize(new, Image.Resampling.BILINEAR))


def _on_square(image: Pixels) -> Pixels:
    """Returns the image in the middle of a square of ImageNet's mean colour."""
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = np.rint(np.array(MEAN) * 255).astype(np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def crop_and_resize(
    images: list[Pixels], boxes: FloatArray, mirror: npt.NDArray[np.bool_], size: int, device: str
) -> Tensor:
    """Returns x_NCHW: each image's box, resized bilinearly to size x size, mirrored where asked, float in [0, 255]."""
    top, left = np.floor(boxes[:, 0]).astype(int), np.floor(boxes[:, 1]).astype(int)
    bottom, right = np.ceil(boxes[:, 0] + boxes[:, 2]).astype(int), np.ceil(boxes[:, 1] + boxes[:, 3]).astype(int)
    # one row and column more than the largest crop, repeated from its edge: interpolation reads half a pixel beyond
    height, width = int((bottom - top).max()) + 1, int((right - left).max()) + 1
    crops = np.zeros((len(images), height, width, 3), dtype=np.uint8)
    for crop, image, t, l, b, r in zip(crops, images, top, left, bottom, right, strict=True):
        part = image[t:b, l:r]
        h, w = part.shape[:2]
        crop[:h, :w] = part
        crop[h, :w] = part[-1]
        crop[: h + 1, w] = crop[: h + 1, w - 1]
    x_NCHW = to_device(torch.from_numpy(crops), device).permute(0, 3, 1, 2).float()

    # output in [-1, 1] maps to the box, in [-1, 1] of the padded crop
    scale = np.stack([boxes[:, 3] / width, boxes[:, 2] / height], 1)
    shift = np.stack([2 * (boxes[:, 1] - left) / width, 2 * (boxes[:, 0] - top) / height], 1) + scale - 1
    theta = np.zeros((len(images), 2, 3), dtype=np.float32)
    theta[:, 0, 0], theta[:, 1, 1] = np.where(mirror, -scale[:, 0], scale[:, 0]), scale[:, 1]
    theta[:, :, 2] = shift
    grid = F.affine_grid(to_device(torch.from_numpy(theta), device), [len(images), 3, size, size], align_corners=False)
    return F.grid_sample(x_NCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)


def normalise(x_NCHW: Tensor) -> Tensor:
    """Returns images in [0, 255] as the network wants them: ImageNet's mean 0 and deviation 1, channels last."""
    mean, std = (to_device(torch.tensor(part), x_NCHW.device.type).view(1, 3, 1, 1) * 255 for part in (MEAN, STD))
    return ((x_NCHW - mean) / std).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Batches:
    """The images of one side of a split, as batches on a device."""

    images: Images
    labels: IntArray
    """(n,) labels of the whole data set."""
    members: IntArray
    """Indices of this side's images."""
    config: InputConfig
    batch_size: int
    seed: int
    device: str = "cpu"

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the images left over are other ones in each epoch."""
        return len(self.members) // self.batch_size

    def counts(self, num_classes: int) -> IntArray:
        """Returns (K,) this side's images of each class."""
        return np.bincount(self.labels[self.members], minlength=num_classes)

    def order(self, epoch: int) -> IntArray:
        """Returns this side's images, shuffled for an epoch."""
        return stream(self.seed, "order", epoch).permutation(self.members)

    def training(
        self,
        epoch: int,
        first: int = 0,
        order: IntArray | None = None,
        change: Callable[[Tensor, int], Tensor] | None = None,
        size: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (x_NCHW, label_N) of one epoch from step `first` on, cropped and flipped at random, in whole batches.

        `order` has the images in the order to show them, `self.order(epoch)` by default; one that is there several
        times is cropped anew each time. `change` gets x_NCHW as uint8 and the step, and returns the images to train on.
        `size` is their side in pixels, `config.size` by default.
        """
        order = self.order(epoch) if order is None else order
        # a first showing draws what it draws in any order; later ones draw as images that do not exist
        showings = order + len(self.labels) * _repeats(order)
        for start in range(first * self.batch_size, len(order) // self.batch_size * self.batch_size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            draws = uniforms(self.seed, "crop", epoch, showings[start : start + self.batch_size], 2 * TRIES + 3)
            mirror = (draws[:, -1] < 0.5) & self.config.flip
            if isinstance(self.images, ResidentImages):
                boxes = random_boxes(draws[:, :-1], *self.images.sizes(chosen), self.config)
                x_NCHW = self.images.crop_and_resize(chosen, boxes, mirror, self.config.size)
            else:
                images = self.images.many(chosen)
                boxes = random_boxes(draws[:, :-1], *_sizes(images), self.config)
                x_NCHW = crop_and_resize(images, boxes, mirror, self.config.size, self.device)
            if size and size != self.config.size:  # from the full size, and filtered, lest fine detail turn to noise
                x_NCHW = F.interpolate(x_NCHW, (size, size), mode="bilinear", antialias=True)
            if change:
                x_NCHW = change(x_NCHW.round().to(torch.uint8), start // self.batch_size).float()
            yield normalise(x_NCHW), self._labels(chosen)

    def evaluation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (x_NCHW, label_N) of every image once, in order, as `config.crop` says."""
        for start in range(0, len(self.members), self.batch_size):
            chosen = self.members[start : start + self.batch_size]
            as_they_are = np.zeros(len(chosen), dtype=bool)
            if isinstance(self.images, ResidentImages) and self.config.crop == "center":
                boxes = view_boxes(*self.images.sizes(chosen), self.config)
                x_NCHW = self.images.crop_and_resize(chosen, boxes, as_they_are, self.config.size)
            else:
                images, boxes = evaluation_boxes(self.images.many(chosen), self.config)
                x_NCHW = crop_and_resize(images, boxes, as_they_are, self.config.size, self.device)
            yield normalise(x_NCHW), self._labels(chosen)

    def _labels(self, chosen: IntArray) -> Tensor:
        return to_device(torch.from_numpy(self.labels[chosen]), self.device)


def _repeats(order: IntArray) -> IntArray:
    """Returns for each place how often its number stands before it: [7, 3, 7, 7] gives [0, 0, 1, 2]."""
    places = order.argsort(kind="stable")
    sorted_ = order[places]
    starts = np.r_[True, sorted_[1:] != sorted_[:-1]]
    count = np.arange(len(order))
    repeats = np.empty(len(order), dtype=np.int64)
    repeats[places] = count - np.maximum.accumulate(np.where(starts, count, 0))
    return repeats


def _sizes(images: list[Pixels]) -> tuple[IntArray, IntArray]:
    shapes = np.array([image.shape[:2] for image in images], dtype=np.int64)
    return shapes[:, 0], shapes[:, 1]
