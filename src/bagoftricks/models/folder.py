"""A saved model: a folder with `model.safetensors` and `config.json` (architecture, classes, how to prepare images).

Field names are those of the HF hub and timm: `id2label`, `input_size`, `mean`, `std`, `crop_pct`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes

from bagoftricks.data.input import MEAN, STD, InputConfig
from bagoftricks.data.names import shown
from bagoftricks.data.untrusted import conform, read_object
from bagoftricks.errors import UserError, first_line
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.resnet import ResNet, build
from bagoftricks.models.weights import check_tensor, read_state

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SCHEMA = 1
"""Of `config.json`; raised when a reader of the earlier one would misread it. The first version wrote none."""
MOST_CONFIG = 2**24
"""Bytes of `config.json`: 100,000 classes with names of 150 bytes."""
SHAPE = {"tweaks": str, "depth": int, "num_classes": int, "id2label": {"*": str}, "schema?": int}


def model_config(config: ModelConfig, classes: tuple[str, ...], inputs: InputConfig) -> dict[str, Any]:
    """Returns what `config.json` holds."""
    return {
        "schema": SCHEMA,
        "architecture": config.name,
        "tweaks": config.tweaks,
        "depth": config.depth,
        "num_classes": len(classes),
        "id2label": {str(i): name for i, name in enumerate(classes)},
        "input_size": [3, inputs.size, inputs.size],
        "crop_pct": inputs.crop_pct if inputs.crop == "center" else 1.0,
        "crop_mode": {"pad": "border"}.get(inputs.crop, inputs.crop),
        "interpolation": "bilinear",
        "mean": list(MEAN),
        "std": list(STD),
    }


def save_model(model: ResNet, classes: tuple[str, ...], inputs: InputConfig, folder: Path) -> None:
    """Writes the model's folder; the architecture goes into the weights' metadata too."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "architecture": model.config.name, "classes": json.dumps(classes)}
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    (folder / WEIGHTS).write_bytes(_ordered(to_bytes(state, metadata)))  # by Python, so that a full disk is an OSError
    text = json.dumps(model_config(model.config, classes, inputs), indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _ordered(raw: bytes) -> bytes:
    """Returns a .safetensors file with its metadata in order: equal models give equal files, and so equal hashes."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]


def load_model(folder: str | Path) -> ResNet:
    """Returns a saved model in eval mode, on the CPU; its class names are in `model.classes`.

    Raises:
        UserError: if the folder holds no model, or one that does not fit its config.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"model folder {folder}: {name} is missing; was the model kept?")
    try:
        config = read_object(folder / CONFIG, MOST_CONFIG, follow=True)
        if config.get("schema", SCHEMA) != SCHEMA:
            raise ValueError("its config is of a later version; upgrade bagoftricks")
        conform(config, SHAPE)
        classes = tuple(config["id2label"][str(i)] for i in range(config["num_classes"]))
        state, _ = read_state(folder / WEIGHTS, "model")
        for name, tensor in state.items():
            check_tensor(name, tensor)
        if len(classes) != len(state["fc.bias"]):  # before memory is asked for as many
            raise ValueError(f"{len(state['fc.bias'])} classes in {WEIGHTS}, {len(classes)} in {CONFIG}")
        model = build(ModelConfig(config["tweaks"], config["depth"]), len(classes))
        model.load_state_dict(state)
    except (UserError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise UserError(f"model folder {folder}: cannot be loaded ({shown(first_line(error))})") from error
    model.classes = classes
    return model.eval().to(memory_format=torch.channels_last)
