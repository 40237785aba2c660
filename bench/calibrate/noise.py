"""What runs vary by. Shapes: S studies, n blocks, C cells; mean 0 in every cell, standard deviation 1 unless said."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Shape = tuple[int, int, int]
Noise = Callable[[np.random.Generator, Shape], FloatArray]
"""From a generator and (S, n, C)."""

CELL_SD = float(np.sqrt(0.5))
"""Points: the difference of two runs then has standard deviation 1."""
BLOCK_SD = 2.5
"""Points: what all cells of a block share; pairing takes it out."""


def generator(name: str, seed: int = 0) -> np.random.Generator:
    """Returns the generator of one scenario, the same whatever runs before it."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def gaussian(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """What the t test assumes."""
    return rng.standard_normal(shape)


def exponential(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Skewness 2."""
    return rng.standard_exponential(shape) - 1


def log_normal(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Skewness 6.2, kurtosis 114."""
    return np.asarray((np.exp(rng.standard_normal(shape)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e))


def student(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Three degrees of freedom: no fourth moment."""
    return np.asarray(rng.standard_t(3, shape) / np.sqrt(3))


def unequal(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """The last cell varies eight times as much as the first; mean square 1."""
    sd = np.geomspace(1, 8, shape[-1])
    return np.asarray(rng.standard_normal(shape) * (sd / np.sqrt(np.mean(sd**2))))


def large_blocks(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Blocks differ by 20 times what cells do."""
    return rng.standard_normal(shape) + 20 * rng.standard_normal((*shape[:2], 1))


def varying_effects(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Half the cells shift together, by twice the noise, another way in each block."""
    shifted = np.arange(shape[-1]) >= shape[-1] // 2
    return rng.standard_normal(shape) + 2 * rng.standard_normal((*shape[:2], 1)) * shifted


NOISES: dict[str, Noise] = {
    "Gaussian": gaussian,
    "skewed: exponential": exponential,
    "skewed: log-normal": log_normal,
    "heavy-tailed: t, 3 df": student,
    "unequal variances": unequal,
    "large block effects": large_blocks,
    "effects vary by block": varying_effects,
}
"""In all cells alike, or symmetric: what the guarantees are for."""


def skewed_alone(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """The last half of the cells exponential, the others without noise of their own."""
    return np.asarray(exponential(rng, shape) * (np.arange(shape[-1]) >= shape[-1] // 2))


def skewed_beside_gaussian(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """The last half of the cells exponential, the others Gaussian, all of standard deviation 1."""
    return np.where(np.arange(shape[-1]) >= shape[-1] // 2, exponential(rng, shape), gaussian(rng, shape))


ONE_SIDED: dict[str, Noise] = {
    "exponential against none": skewed_alone,
    "exponential against Gaussian": skewed_beside_gaussian,
}
"""Skew in one level of the first factor and not in the other: outside the guarantees."""


def simulate(noise: Noise, rng: np.random.Generator, means: FloatArray, studies: int, blocks: int) -> FloatArray:
    """Returns (S, n, C) results in points: cell means, what blocks share, and the noise."""
    values = CELL_SD * noise(rng, (studies, blocks, len(means)))
    return np.asarray(values + means + BLOCK_SD * rng.standard_normal((studies, blocks, 1)))
