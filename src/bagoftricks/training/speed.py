"""How fast this machine trains: measured on random pixels in a minute or two, so that a study's cost can be told.

Shapes: N images, C channels, H x W pixels.
"""

from __future__ import annotations

import io
import multiprocessing as mp
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bagoftricks.data.batches import Batches
from bagoftricks.data.cache import CachedImages, cached_side
from bagoftricks.data.input import InputConfig
from bagoftricks.data.resident import resident
from bagoftricks.errors import RunError
from bagoftricks.models.build import build, cost
from bagoftricks.models.inference import for_inference
from bagoftricks.optim import OptimizerConfig
from bagoftricks.recipe import Recipe
from bagoftricks.training.hardware import Hardware, cores

NUM_CLASSES = 100
"""Of the network that is timed; it makes no difference to speak of."""
MATMUL_SIDES = {"cpu": 2048, "cuda": 8192, "mps": 4096}
PHOTO_HW = (375, 500)
"""Of the JPEG that is decoded: what a photograph of the usual data sets has."""
PAIR_SHARE = 0.25
"""Share of the time that goes to comparing one run at a time with several."""


@dataclass(frozen=True)
class Rates:
    """What one image size gives, in images per second of one run at a time."""

    size: int
    train: float
    evaluate: float
    batches: float
    """Cropping, resizing and normalising cached images alone, in training."""
    matmul_share: float
    """Arithmetic of training over what matrix multiplication reaches here, in [0, 1]."""
    steps: int
    """Training steps that were timed."""

    @property
    def batch_share(self) -> float:
        """Time of making batches over time of training on them."""
        return self.train / self.batches


@dataclass(frozen=True)
class Sharing:
    """One run on all cores against several at a time, one core each; images per second in all."""

    size: int
    alone: float
    together: float
    jobs: int


@dataclass(frozen=True)
class Speed:
    """What this machine does."""

    hardware: Hardware
    cores: int
    matmul_gflops: float
    """In the precision of training: 1e9 multiplications and additions a second."""
    decode: float
    """JPEG photographs of 375 x 500 pixels decoded per second, on every core."""
    rates: tuple[Rates, ...]
    sharing: Sharing | None
    """None on a GPU, and where there is but one core."""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        rates = [vars(r) | {"batch_share": r.batch_share} for r in self.rates]
        sharing = vars(self.sharing) if self.sharing else None
        return vars(self) | {"hardware": vars(self.hardware), "rates": rates, "sharing": sharing}


def training_step(recipe: Recipe, num_classes: int, count: int, hardware: Hardware) -> Callable[[], float]:
    """Returns a function that takes one step on `count` blank images and returns its seconds."""
    model = build(recipe.model, num_classes).to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = recipe.optimizer.build(model.parameters())
    size = recipe.input.size
    x_NCHW = torch.zeros(count, 3, size, size, device=hardware.device).to(memory_format=torch.channels_last)
    label_N = torch.zeros(count, dtype=torch.int64, device=hardware.device)

    def step() -> float:
        started = time.perf_counter()
        with hardware.autocast():
            logits_NK = model(x_NCHW)
        loss = F.cross_entropy(logits_NK.float(), label_N)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()  # waits for a GPU
        return time.perf_counter() - started

    return step


def median_seconds(step: Callable[[], float], *, most: int, seconds: float) -> tuple[float, int]:
    """Returns the median of up to `most` steps and their number: fewer where `seconds` are over."""
    times = [step()]
    while len(times) < most and sum(times) < seconds:
        times.append(step())
    return statistics.median(times), len(times)


def measure_speed(
    sizes: tuple[int, ...],
    hardware: Hardware,
    *,
    batch_size: int = 64,
    seconds: float = 90.0,
    progress: Callable[[str], None] = lambda what: None,
) -> Speed:
    """Measures this machine on ResNet-50: training, evaluation, batches, decoding, and runs side by side.

    Args:
        sizes: image sizes in pixels.
        hardware: where; its threads are those of a single run.
        batch_size: images of a training step.
        seconds: what it may take; a single step of each size is measured at least, however long that is.
        progress: told what is measured next.
    """
    hardware.prepare()
    progress("matrix multiplication")
    gflops = _matmul_gflops(hardware)
    progress("decoding")
    decode = _decode_rate()
    sharing_s = PAIR_SHARE * seconds if hardware.device == "cpu" and cores() > 1 else 0.0
    rates = []
    for size in sizes:
        progress(f"training at {size} pixels")
        rates.append(_rates(size, hardware, batch_size, (seconds - sharing_s) / len(sizes), gflops))
    sharing = None
    if sharing_s:
        progress(f"{cores()} runs at a time")
        sharing = _sharing(min(sizes), hardware, batch_size, sharing_s)
    return Speed(hardware, cores(), gflops, decode, tuple(rates), sharing)


def _recipe(size: int) -> Recipe:
    return replace(Recipe(), input=InputConfig(size=size), optimizer=OptimizerConfig("sgd"))


def _rates(size: int, hardware: Hardware, batch_size: int, seconds: float, gflops: float) -> Rates:
    recipe = _recipe(size)
    step = training_step(recipe, NUM_CLASSES, batch_size, hardware)
    step()  # the first one allocates
    train_s, steps = median_seconds(step, most=8, seconds=seconds / 2)
    evaluate_s, _ = median_seconds(_evaluation_step(recipe, batch_size, hardware), most=8, seconds=seconds / 8)
    batch_s, _ = median_seconds(_batch_step(recipe, batch_size, hardware), most=8, seconds=seconds / 8)
    work = 3 * 2 * cost(recipe.model, NUM_CLASSES, size)[1] / 1e9  # forward, and twice as much backward
    train = batch_size / train_s
    return Rates(size, train, batch_size / evaluate_s, batch_size / batch_s, train * work / gflops, steps)


def _evaluation_step(recipe: Recipe, count: int, hardware: Hardware) -> Callable[[], float]:
    dtype, size = hardware.dtype, recipe.input.size
    model = for_inference(build(recipe.model, NUM_CLASSES), dtype).to(hardware.device)
    x_NCHW = torch.zeros(count, 3, size, size, dtype=dtype, device=hardware.device)
    x_NCHW = x_NCHW.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def step() -> float:
        started = time.perf_counter()
        model(x_NCHW).float().cpu()
        return time.perf_counter() - started

    step()
    return step


def _noise(side: int) -> CachedImages:
    """Returns one image of random pixels, as a cache has them."""
    height, width = side, side * 4 // 3
    pixels = np.random.default_rng(0).integers(0, 256, height * width * 3, dtype=np.uint8)
    return CachedImages(pixels, *np.array([[0], [height], [width]]))


def _batch_step(recipe: Recipe, count: int, hardware: Hardware) -> Callable[[], float]:
    members, labels = np.zeros(64 * count, dtype=np.int64), np.zeros(1, dtype=np.int64)
    images = resident(_noise(cached_side(recipe.input.size)), hardware.device, deterministic=hardware.deterministic)
    batches = Batches(images, labels, members, recipe.input, count, 0, hardware.device)
    ready: Iterator[Any] = batches.training(0)
    next(ready)

    def step() -> float:
        started = time.perf_counter()
        next(ready)
        if hardware.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return step


def _matmul_gflops(hardware: Hardware) -> float:
    """The best of several products of square matrices."""
    side = MATMUL_SIDES[hardware.device]
    a, b = torch.randn(2, side, side, device=hardware.device).to(hardware.dtype)

    def step() -> float:
        started = time.perf_counter()
        (a @ b)[0, 0].item()
        return time.perf_counter() - started

    step()
    return 2 * side**3 / min(step() for _ in range(5)) / 1e9


def _decode_rate() -> float:
    """Decodes one photograph-like JPEG again and again, on every core."""
    from concurrent.futures import ThreadPoolExecutor

    from PIL import Image

    height, width = PHOTO_HW
    coarse = np.random.default_rng(0).integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    content = buffer.getvalue()

    def read(_: int) -> None:
        with Image.open(io.BytesIO(content)) as image:
            image.convert("RGB").load()

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(read, range(2 * cores())))
        started, count = time.perf_counter(), 100 * cores()
        list(pool.map(read, range(count)))
    return count / (time.perf_counter() - started)


def _sharing(size: int, hardware: Hardware, batch_size: int, seconds: float) -> Sharing:
    """Times one process on all cores, then as many processes as cores, each on one, for as long.

    Raises:
        RunError: if a process dies, most likely for want of memory.
    """
    jobs = cores()
    alone = _rate_of(1, replace(hardware, threads=jobs), size, batch_size, seconds / 2)
    together = _rate_of(jobs, replace(hardware, threads=1), size, batch_size, seconds / 2)
    return Sharing(size, alone, together, jobs)


def _rate_of(jobs: int, hardware: Hardware, size: int, batch_size: int, seconds: float) -> float:
    context: Any = mp.get_context("spawn")
    ready = context.Barrier(jobs)
    workers = []
    for _ in range(jobs):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_train_alone, args=(theirs, ready, hardware, size, batch_size, seconds))
        process.start()
        theirs.close()
        workers.append((process, ours))
    total = 0.0
    for process, connection in workers:
        try:
            total += connection.recv()
        except EOFError:
            for other, _ in workers:
                other.terminate()
            raise RunError(f"measuring {jobs} runs at a time: a process died; is memory short?") from None
        process.join()
    return total


def _train_alone(
    connection: Connection, ready: Any, hardware: Hardware, size: int, batch_size: int, seconds: float
) -> None:
    """Trains in a process of its own from when all are ready, and sends its images per second."""
    hardware.prepare()
    step = training_step(_recipe(size), NUM_CLASSES, batch_size, hardware)
    step()
    ready.wait()
    taken, steps = 0.0, 0
    while not steps or taken < seconds:
        taken, steps = taken + step(), steps + 1
    connection.send(steps * batch_size / taken)
