"""The cache of decoded images as it lies on a GPU: crops are cut and resized there, and nothing is copied at a step.

Boxes are (top, left, height, width) in pixels of the cached image, floats. Shapes: N images, S x S pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bagoftricks.data.cache import CachedImages, Images
from bagoftricks.data.index import IntArray, Pixels
from bagoftricks.errors import RunError

LARGEST_SHARE = 0.4
"""Of the GPU's free memory, or its whole, that a cache may take."""
SLICE = 2**27
"""Bytes that are copied to the device at once."""


def to_device(tensor: Tensor, device: str) -> Tensor:
    """Returns a copy on the device; from pinned memory to a GPU, so that nobody waits for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor.to(device)


class ResidentImages:
    """A cache copied to a device."""

    def __init__(self, host: CachedImages, device: str) -> None:
        self.host, self.device = host, device
        self.bytes = torch.empty(len(host.bytes), dtype=torch.uint8, device=device)
        for start in range(0, len(host.bytes), SLICE):  # so that little of it lies in the host's memory at once
            part = np.array(host.bytes[start : start + SLICE])
            self.bytes[start : start + len(part)].copy_(torch.from_numpy(part))

    def many(self, indices: IntArray) -> list[Pixels]:
        """Returns the images as they lie on the host."""
        return self.host.many(indices)

    def sizes(self, indices: IntArray) -> tuple[IntArray, IntArray]:
        """Returns heights and widths in pixels, each (N,)."""
        return self.host.height[indices], self.host.width[indices]

    def crop_and_resize(
        self, indices: IntArray, boxes: npt.NDArray[np.float64], mirror: npt.NDArray[np.bool_], size: int
    ) -> Tensor:
        """Returns x_NCHW as `batches.crop_and_resize` does, in channels-last memory, computed on the device."""
        layout = [self.host.offset[indices], self.host.height[indices], self.host.width[indices]]
        places = to_device(torch.from_numpy(np.stack([part.astype(np.int64) for part in layout])), self.device)
        box_N4 = to_device(torch.from_numpy(boxes.astype(np.float32)), self.device)
        flip_N = to_device(torch.from_numpy(mirror), self.device)
        (offset_N, height_N, width_N), (top, left, height, width) = places, box_N4.T
        y0, y1, dy = _taps(top, height, height_N, size, None)
        x0, x1, dx = _taps(left, width, width_N, size, flip_N)

        def pixels(row_NS: Tensor, column_NS: Tensor) -> Tensor:
            at_NSS = row_NS[:, :, None] * width_N[:, None, None] + column_NS[:, None, :]
            at_NSS3 = (offset_N[:, None, None] + 3 * at_NSS)[..., None] + torch.arange(3, device=self.device)
            return self.bytes[at_NSS3].float()

        dx_N1S1, dy_NS11 = dx[:, None, :, None], dy[:, :, None, None]
        upper = torch.lerp(pixels(y0, x0), pixels(y0, x1), dx_N1S1)
        lower = torch.lerp(pixels(y1, x0), pixels(y1, x1), dx_N1S1)
        return torch.lerp(upper, lower, dy_NS11).permute(0, 3, 1, 2)


def _taps(
    start_N: Tensor, extent_N: Tensor, pixels_N: Tensor, size: int, mirror_N: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns, for each output pixel of one direction, the two (N, S) pixels to blend, and the weight of the second.

    Centres of output pixels are spread evenly over the box; beyond its outermost pixels these are repeated. Of
    `pixels_N` in the image none is passed, whatever float32 makes of a box's end.
    """
    steps = (torch.arange(size, device=start_N.device) + 0.5) / size
    steps_NS = steps.expand(len(start_N), size)
    if mirror_N is not None:
        steps_NS = torch.where(mirror_N[:, None], 1 - steps_NS, steps_NS)
    first_N1 = start_N.floor()[:, None]
    last_N1 = torch.minimum((start_N + extent_N).ceil(), pixels_N.to(start_N.dtype))[:, None] - 1
    at_NS = (start_N[:, None] + steps_NS * extent_N[:, None] - 0.5).clamp(first_N1, last_N1)
    low_NS = at_NS.floor()
    return low_NS.long(), torch.minimum(low_NS + 1, last_N1).long(), at_NS - low_NS


def resident(images: Images, device: str, *, deterministic: bool = False) -> Images:
    """Returns the images on the GPU where they fit beside the training; otherwise as they are.

    The two ways to cut crops differ in the last bits. `deterministic` decides by the GPU's whole memory, which does not
    depend on what else is running.

    Raises:
        RunError: if that is not there, and the bits must be the same.
    """
    if device != "cuda" or not isinstance(images, CachedImages):
        return images
    torch.cuda.empty_cache()  # what an earlier attempt in this process has given up
    free, whole = torch.cuda.mem_get_info()
    if images.bytes.nbytes > LARGEST_SHARE * (whole if deterministic else free):
        return images
    try:
        return ResidentImages(images, device)
    except torch.OutOfMemoryError as error:  # another process was sooner
        if deterministic:
            size = f"{images.bytes.nbytes / 2**30:.1f} GiB of decoded images"
            raise RunError(
                f"the GPU has no memory left for {size}, which --deterministic wants there: fewer --jobs, or a smaller "
                "input.size"
            ) from error
        torch.cuda.empty_cache()
        return images
