"""Where the device's memory runs out: what torch says of it, as an error that tells what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bagoftricks.errors import DeviceMemoryError
from bagoftricks.recipe import Recipe

NO_MEMORY = (
    "can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "MPS backend out of memory",
)  # fmt: skip
"""What torch says where memory runs out, beside its own error."""


@contextmanager
def device_memory(recipe: Recipe, advice: str, images: int | None = None) -> Iterator[None]:
    """Turns what torch says where memory runs out into an error of ours, with what to do about it.

    `images` is how many went through the network at once, the whole batch by default.
    """
    try:
        yield
    except RuntimeError as error:  # which torch.OutOfMemoryError is; the CPU's allocator has no error of its own
        if not isinstance(error, torch.OutOfMemoryError) and not any(said in str(error) for said in NO_MEMORY):
            raise
        raise DeviceMemoryError(
            f"out of memory with {images or recipe.batch_size} images of {recipe.input.size} pixels at once: {advice}"
        ) from error


def fewer(images: int) -> str:
    """Returns the advice to let fewer than so many images through the network at once."""
    return f"pass --micro-batch {max(2, images // 2)}, or lower input.size"
