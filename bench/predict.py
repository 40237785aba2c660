"""Images per second of `predict`, from files to probabilities, beside evaluation of the same images from the cache.

    python bench/predict.py --data caltech-101 --size 224

Both in one process, in turn: evaluation as a training does it, every image decoded before; prediction as `tricks
predict` does it, which decodes each image while the network computes; and the decoding alone, on as many threads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.machine import describe, load
from bench.summary import Spread, ratio, show

WAYS = ("evaluation, from the cache", "prediction, from files", "decoding alone")


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    found = argparse.ArgumentParser(prog="bench/predict.py", description=(__doc__ or "").partition("\n")[0])
    found.add_argument("--data", type=Path, required=True, help="a folder of class folders")
    found.add_argument("--size", type=int, nargs="+", default=[224, 128], help="pixels [224 128]")
    found.add_argument("--images", type=int, default=1024, help="most images of each measurement [1024]")
    found.add_argument("--batch", type=int, default=64, help="images through the network at once [64]")
    found.add_argument("--repeats", type=int, default=3, help="rounds in turn [3]")
    found.add_argument("--device", default="auto", help="auto, cpu, cuda or mps [auto]")
    found.add_argument("--out", type=Path, default=Path("bench/results/predict.json"), help="JSON")
    return found


def rates(options: argparse.Namespace, size: int, work: Path) -> dict[str, dict[int, float]]:
    """Returns images per second of each way, by repeat, of a ResNet-50 with random weights.

    Args:
        options: see `parser`.
        size: pixels.
        work: an empty folder.
    """
    import numpy as np
    import torch

    from bagoftricks.data.batches import Batches
    from bagoftricks.data.cache import open_images
    from bagoftricks.data.index import subset
    from bagoftricks.data.input import InputConfig
    from bagoftricks.data.resident import resident
    from bagoftricks.data.sources import open_data
    from bagoftricks.models.resnet import ResNet
    from bagoftricks.models.saved import SavedModel
    from bagoftricks.serving.classifier import Classifier
    from bagoftricks.serving.inputs import read_ahead, read_image
    from bagoftricks.training.evaluate import evaluate
    from bagoftricks.training.hardware import cores, detect

    hardware = detect(options.device)
    hardware.prepare()
    index = open_data(options.data)
    index = subset(
        index, np.sort(np.random.default_rng(0).choice(len(index), min(options.images, len(index)), replace=False))
    )
    assert index.root is not None
    paths = [index.root / name for name in index.names]
    model, inputs = ResNet("B", 50, index.num_classes), InputConfig(size)
    model.classes = index.classes
    model = model.to(hardware.device, memory_format=torch.channels_last)
    images = resident(open_images(index, size, work, workers=cores(), progress=lambda done: None), hardware.device)
    held = Batches(images, index.labels, np.arange(len(index)), inputs, options.batch, 0, hardware.device)
    classifier = Classifier(model, SavedModel(model.config, index.classes, inputs, None, ""), hardware, work)
    read = partial(read_image, short_side=classifier.short_side)
    ways: tuple[Callable[[], Any], ...] = (
        lambda: evaluate(model, held, index.num_classes, hardware),
        lambda: list(classifier.predict_each(paths, batch_size=options.batch)),
        lambda: deque(read_ahead(paths, read, workers=hardware.threads, most=options.batch), maxlen=0),
    )
    found: dict[str, dict[int, float]] = {way: {} for way in WAYS}
    for repeat in range(-1, options.repeats):  # the first round warms up
        turns = list(zip(WAYS, ways, strict=True))
        for name, way in turns if repeat % 2 == 0 else reversed(turns):
            began = time.perf_counter()
            way()
            if repeat >= 0:
                found[name][repeat] = len(index) / (time.perf_counter() - began)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints a table for each size."""
    options = parser().parse_args(arguments)
    from bagoftricks.files import write_json
    from bagoftricks.training.hardware import cores, detect

    device = detect(options.device).device
    found: dict[str, Any] = {"what": "predict", "machine": describe(cores(), device), "load_before": load()}
    for size in options.size:
        print(f"… {size} px", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="bagoftricks-") as folder:
            measured = rates(options, size, Path(folder))
        found[str(size)] = measured
        write_json(options.out, found)
        rows = []
        for name, by_repeat in measured.items():
            beside = ratio(by_repeat, measured[WAYS[0]])
            assert beside is not None
            rows.append([name, Spread.of(list(by_repeat.values())).text(), beside.text(2)])
        show(f"{size} px: images per second", ["", "median (range)", "of evaluation"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
