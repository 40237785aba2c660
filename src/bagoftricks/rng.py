"""Named random streams: every draw comes from (seed, name, step) and from nothing else.

A draw in one stream never moves another: with mixup on, the order of images, the crops and the initial weights stay
what they are without it. That is what makes the runs of one block exactly paired.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch


def _key(seed: int, name: str, step: int) -> int:
    digest = hashlib.sha256(f"{seed}/{name}/{step}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:16], "little")


def stream(seed: int, name: str, step: int = 0) -> np.random.Generator:
    """Returns the numpy generator of a named stream, at its beginning.

    Args:
        seed: the block's seed, any integer.
        name: what is drawn, e.g. "order", "crop", "mixup".
        step: the position (an epoch or a training step), so that a resumed run needs no state.
    """
    return np.random.Generator(np.random.Philox(key=_key(seed, name, step)))


def torch_stream(seed: int, name: str, step: int = 0) -> torch.Generator:
    """Returns a CPU torch generator seeded from the named stream."""
    import torch

    return torch.Generator().manual_seed(_key(seed, name, step) % 2**63)


@contextmanager
def forked(rng: np.random.Generator, device: str = "cpu") -> Iterator[None]:
    """Within it torch's and Python's global generators are seeded from `rng`; afterwards they are as they were.

    Those of the CPU, and of the current GPU where `device` is cuda.

    For transforms of libraries, which take no generator.
    """
    import torch

    before, (whole, python) = random.getstate(), rng.integers(2**63, size=2)
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []):
            torch.manual_seed(int(whole))
            random.seed(int(python))
            yield
    finally:
        random.setstate(before)


def uniforms(seed: int, name: str, step: int, items: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float64]:
    """Returns (len(items), count) draws in [0, 1), each row belonging to its item whatever else is in the batch.

    Philox counts: an item's draws start at a counter of its own, so nothing before it needs to be drawn.
    """
    key, stride = _key(seed, name, step), -(-count // 4)  # Philox gives four 64-bit numbers a count
    rows = [np.random.Generator(np.random.Philox(key=key, counter=int(i) * stride)).random(count) for i in items]
    return np.stack(rows)
