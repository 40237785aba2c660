"""What an exported file computes, and what it says of itself.

It takes upright RGB images, cut to its size, with values in [0, 1], normalises them itself, and gives logits and
probabilities. How images become its input stands in `describe`, which goes into the file and into a JSON beside it.

Shapes: N images, C channels, S x S pixels, K classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bagoftricks.data.batches import WHOLE
from bagoftricks.data.cache import cached_side
from bagoftricks.data.decoding import LONGEST
from bagoftricks.data.input import MEAN, STD, InputConfig
from bagoftricks.files import file_digest
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.inference import for_inference
from bagoftricks.models.network import Network
from bagoftricks.models.saved import CROP_MODES, WEIGHTS
from bagoftricks.serving.classifier import Classifier
from bagoftricks.store import RESULT
from bagoftricks.training.hardware import environment

IMAGES, LOGITS, PROBABILITIES, BATCH = "images", "logits", "probabilities", "batch"
"""Names in the file: its input, its two outputs, and the dimension that is not fixed."""
SCHEMA = 1
"""Of the description; raised when a reader of the earlier one would misread it."""
NOTED = ("bagoftricks", "torch")
"""Packages whose versions are noted."""


class Deployed(nn.Module):
    """A network with its normalisation before it and its probabilities after it.

    Args:
        network: which; it stays as it is. Its batch-norms are folded in a copy.
        temperature: what logits are divided by before the softmax.
        dtype: what the network computes in. Input, normalisation, outputs and softmax are float32 in any case.
        channels_last: give the network its input so, which torch's convolutions on a CPU are faster with.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: Network, temperature: float, dtype: torch.dtype, *, channels_last: bool = False
    ) -> None:
        super().__init__()
        # the weights' own order of memory would stand in the graph, as a dozen nodes that undo it
        self.network = for_inference(network, dtype).to(memory_format=torch.contiguous_format)
        self.temperature, self.dtype = temperature, dtype
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits_NK and probabilities_NK of x_NCHW in [0, 1], float32 all."""
        x_NCHW = ((images - self.mean) / self.std).to(self.dtype)
        logits_NK = self.network(x_NCHW.contiguous(memory_format=self.memory_format)).float()
        return logits_NK, torch.softmax(logits_NK / self.temperature, dim=1)


def steps(inputs: InputConfig) -> list[str]:
    """Returns what must be done to an image, in order, before the exported network takes it."""
    size, side = inputs.size, cached_side(inputs.size)
    cut = {
        "center": f"cut the square from the middle whose side is {inputs.crop_pct:g} of the short side",
        "pad": f"if its long side is above {WHOLE * size} pixels, shrink it to that in the same way, and put it in the "
        f"middle of a square as large as its long side, of the colour {_mean_colour()}",
        "squash": f"keep the whole image, a side above {WHOLE * size} pixels shrunk to that in the same way: the next "
        "step gives up its aspect ratio",
    }[inputs.crop]
    return [
        "turn the image upright, as its EXIF orientation says, and convert it to RGB of 8 bits: grey of 16 bits keeps "
        "its upper 8 (Pillow's convert would clip it), transparency lies on white",
        f"let scale be the smaller of {side} / its short side and {LONGEST * side} / its long side; if that is below "
        "1, shrink it so, bilinearly with antialiasing (Pillow's BILINEAR). A JPEG is decoded at 1/2, 1/4 or 1/8 for "
        "that, as long as twice the size wanted is left (Pillow's draft)",
        cut,
        f"resize it to {size} x {size} pixels, bilinearly without antialiasing, pixel centres at half integers "
        "(align_corners false)",
        "divide by 255, and order the values as channels, rows, columns",
    ]


def _mean_colour() -> str:
    return f"({', '.join(str(round(255 * part)) for part in MEAN)})"


def describe(classifier: Classifier, config: ModelConfig, file_format: str, dtype: str) -> dict[str, Any]:
    """Returns what a reader of the exported file must know, for JSON. It names no path of this computer."""
    inputs, count = classifier.inputs, len(classifier.classes)
    outputs = {"dtype": "float32", "shape": [BATCH, count]}
    return {
        "schema": SCHEMA,
        "format": file_format,
        "dtype": dtype,
        "architecture": config.name,
        "classes": list(classifier.classes),
        "id2label": {str(k): name for k, name in enumerate(classifier.classes)},
        "input": {
            "name": IMAGES, "dtype": "float32", "shape": [BATCH, 3, inputs.size, inputs.size],
            "colour": "RGB", "range": [0, 1],
        },
        "outputs": {
            LOGITS: outputs,
            PROBABILITIES: outputs | {"is": f"softmax({LOGITS} / temperature)"},
        },
        "preprocessing": {
            "steps": steps(inputs),
            "crop_mode": CROP_MODES[inputs.crop],
            "crop_pct": inputs.crop_pct if inputs.crop == "center" else 1.0,
            "interpolation": "bilinear",
            "short_side": cached_side(inputs.size),
            "averaged_with_mirror_image": {"in_the_file": False, "when_measured": classifier.tta == "flip"},
            "normalisation": {"in_the_file": True, "mean": list(MEAN), "std": list(STD)},
        },
        "temperature": classifier.temperature,
        "calibrated": classifier.calibrated,
        "licence": {"initial_weights": classifier.licence, "teacher": classifier.teacher_licence},
        "source": source(classifier.folder),
        "versions": {name: version for name, version in environment().items() if name in NOTED},
    }  # fmt: skip


def source(folder: Path) -> dict[str, Any]:
    """Returns what was exported: the run's identity, null for a model without its run, and the hash of its weights."""
    is_run = (folder / RESULT).is_file()
    return {"run": folder.resolve().name if is_run else None, "weights_sha256": file_digest(folder / WEIGHTS)}
