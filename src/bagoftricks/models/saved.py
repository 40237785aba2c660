"""`config.json` of a model folder, written and read: which network, its classes, how to prepare images. No torch.

It has the fields that timm writes for the HF hub, so that timm itself builds and loads what it has a network for:
`timm.create_model("local-dir:FOLDER", pretrained=True)`. Ours beside them (`backbone`, or `tweaks` and `depth`;
`temperature`, `license`, `tta`, `schema`) are what is read here; of timm's, `pretrained_cfg` is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagoftricks.data.input import MEAN, STD, InputConfig
from bagoftricks.data.names import shown
from bagoftricks.data.untrusted import RefusedError, conform, read_object
from bagoftricks.errors import UserError, first_line
from bagoftricks.models.config import RESNET, ModelConfig, is_bottleneck
from bagoftricks.models.from_timm import about
from bagoftricks.models.published import TEACHER_LICENCE
from bagoftricks.models.published import UNKNOWN as UNKNOWN
from bagoftricks.models.timm_names import timm_architecture

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SCHEMA = 1
"""Of `config.json`; raised when a reader of the earlier one would misread it. The first version wrote none."""
MOST_CONFIG = 2**26
"""Bytes of `config.json`: 100,000 classes with names of 150 bytes, each name three times."""
TTA = ("none", "flip")
"""Views of an image that are averaged: itself, or itself and its mirror image."""
TEMPERATURES = (0.01, 100.0)
"""Least and largest that is believed; fitted ones lie within 0.05 and 20."""
INTERPOLATION = "bilinear"
CROP_MODES = {"center": "center", "pad": "border", "squash": "squash"}
"""timm's names of what evaluation cuts from an image, by ours."""
PREPARATION = {
    "input_size": [int],
    "crop_pct": float,
    "crop_mode?": str,
    "interpolation?": str,
    "mean?": [float],
    "std?": [float],
}
"""What `pretrained_cfg` says of images; earlier versions wrote the same at the top."""
SHAPE = {
    "backbone?": str,
    "tweaks?": str,
    "depth?": int,
    "num_classes": int,
    "id2label": {"*": str},
    "schema?": int,
    "temperature?": (float, type(None)),
    "license?": str,
    "tta?": str,
    f"{TEACHER_LICENCE}?": str,
    "pretrained_cfg?": PREPARATION,
}


NETWORK = {"tweaks": str, "depth": int}
"""What a config says where it names no backbone."""


@dataclass(frozen=True)
class SavedModel:
    """What a model folder's `config.json` says, checked."""

    config: ModelConfig
    """Which network."""
    classes: tuple[str, ...]
    """Names, in the order of the logits; no two alike."""
    inputs: InputConfig
    """How evaluation prepares images: `size`, `crop_pct`, `crop`. Fields of training are at their defaults."""
    temperature: float | None
    """Logits divided by it give calibrated probabilities; from 0.01 to 100. None where none was fitted."""
    licence: str
    """Of the initial weights; "" where it was trained from scratch, "unknown" where nobody said."""
    tta: str = "none"
    """How it was measured, and predicts unless told otherwise: none, or flip (averaged with the mirror image)."""
    teacher_licence: str = ""
    """Of the weights that a teacher of it, or of its initial weights, comes from; "" where none is known to bind."""


def joined_licences(*licences: str) -> str:
    """Returns several licences as one text, each once; "" where there is none."""
    return " and ".join(dict.fromkeys(filter(None, licences)))


def model_config(
    config: ModelConfig,
    classes: tuple[str, ...],
    inputs: InputConfig,
    temperature: float | None = None,
    licence: str = "",
    tta: str = "none",
    teacher_licence: str = "",
) -> dict[str, Any]:
    """Returns what `config.json` holds. `architecture` is timm's name, or ours ("ResNet-50-A") where timm has none.

    Of a backbone of timm's, timm is asked.
    """
    name, arguments = timm_architecture(config) or (config.name, {})
    ours: dict[str, Any] = {"backbone": config.backbone}
    if config.is_resnet:
        ours = {"tweaks": config.tweaks, "depth": config.depth}
        ours |= {"num_features": 2048 if is_bottleneck(config.depth) else 512, "global_pool": "avg"}
    return {
        "schema": SCHEMA,
        "architecture": name,
        **ours,
        "num_classes": len(classes),
        **({"model_args": arguments} if arguments else {}),
        "temperature": temperature,
        "license": licence,
        **({TEACHER_LICENCE: teacher_licence} if teacher_licence else {}),
        **({} if tta == "none" else {"tta": tta}),
        "pretrained_cfg": _pretrained_cfg(config, len(classes), inputs, licence),
        "label_names": list(classes),
        "id2label": {str(i): name for i, name in enumerate(classes)},
        "label2id": {name: i for i, name in enumerate(classes)},
    }


def _pretrained_cfg(config: ModelConfig, num_classes: int, inputs: InputConfig, licence: str) -> dict[str, Any]:
    """Fields of timm's `PretrainedCfg`, which refuses others."""
    grid = -(-inputs.size // 32)
    network: dict[str, Any] = {
        "fixed_input_size": False,
        "mean": list(MEAN),
        "std": list(STD),
        "pool_size": [grid, grid],
        "first_conv": "conv1.0" if "C" in config.tweaks else "conv1",
        "classifier": "fc",
    }
    if not config.is_resnet:
        known = about(config.timm_name)
        network = {key: known[key] for key in network if known.get(key) is not None and key != "pool_size"}
    return {
        **network,
        "input_size": [3, inputs.size, inputs.size],
        "interpolation": INTERPOLATION,
        "crop_pct": inputs.crop_pct if inputs.crop == "center" else 1.0,
        "crop_mode": CROP_MODES[inputs.crop],
        "num_classes": num_classes,
        **({"license": licence} if licence else {}),
    }


def read_config(folder: str | Path) -> SavedModel:
    """Returns what a model folder's `config.json` says, those of every earlier version too. Weights are not looked at.

    Raises:
        UserError: if there is none, or one that is none of ours or asks for what cannot be done.
    """
    folder = Path(folder)
    require(folder, CONFIG)
    try:
        return _checked(read_object(folder / CONFIG, MOST_CONFIG, follow=True))
    except (UserError, ValueError, OSError) as error:
        raise refusal(folder, error) from error


def _checked(config: dict[str, Any]) -> SavedModel:
    if config.get("schema", SCHEMA) != SCHEMA:
        raise RefusedError("its config is of a later version; upgrade bagoftricks")
    conform(config, SHAPE)
    temperature = config.get("temperature")
    if temperature is not None and not TEMPERATURES[0] <= temperature <= TEMPERATURES[1]:
        raise RefusedError(f"temperature {temperature:g}: must be between {TEMPERATURES[0]:g} and {TEMPERATURES[1]:g}")
    if (tta := config.get("tta", "none")) not in TTA:
        raise RefusedError(f"tta '{tta[:40]}': must be {' or '.join(TTA)}")
    if config.get("backbone", RESNET) != RESNET:
        network = ModelConfig(backbone=config["backbone"])
    else:
        conform(config, NETWORK)
        network = ModelConfig(config["tweaks"], config["depth"])
    return SavedModel(
        network,
        _classes(config["id2label"], config["num_classes"]),
        _inputs(config.get("pretrained_cfg", config), given_norm=network.is_resnet),
        None if temperature is None else float(temperature),
        config.get("license", UNKNOWN),
        tta,
        config.get(TEACHER_LICENCE, ""),
    )


def _classes(names: dict[str, str], count: int) -> tuple[str, ...]:
    if count < 1:
        raise RefusedError(f"{count} classes in {CONFIG}")
    classes: dict[str, None] = {}
    for i in range(count):
        name = names.get(str(i))
        if name is None:  # before a count that lies costs memory
            raise RefusedError(f"num_classes is {count}, but id2label lacks '{i}'")
        if name in classes:
            raise RefusedError(f"two classes are named '{name[:60]}'")
        classes[name] = None
    return tuple(classes)


def _inputs(given: dict[str, Any], *, given_norm: bool) -> InputConfig:
    """Refuses what images are never prepared like here, rather than preparing them otherwise in silence.

    Args:
        given: what `pretrained_cfg` says.
        given_norm: whether mean and deviation must be ImageNet's; a backbone of timm's knows its own.
    """
    conform(given, PREPARATION)
    channels, *sides = given["input_size"] or [0]
    if channels != 3 or len(sides) != 2 or sides[0] != sides[1]:
        raise RefusedError("input_size must be 3 channels and two equal sides")
    for name, own in (("mean", MEAN), ("std", STD)) if given_norm else ():
        values = given.get(name, own)
        if len(values) != len(own) or any(abs(a - b) > 1e-6 for a, b in zip(values, own, strict=True)):
            raise RefusedError(f"{name} is not ImageNet's, {', '.join(map(str, own))}")
    if given.get("interpolation", INTERPOLATION) != INTERPOLATION:
        raise RefusedError(f"interpolation '{given['interpolation'][:40]}': images are resized {INTERPOLATION} here")
    mode, share = given.get("crop_mode", "center"), float(given["crop_pct"])
    crop = next((own for own, timms in CROP_MODES.items() if timms == mode), None)
    if crop is None:
        raise RefusedError(f"unknown crop_mode '{mode[:40]}': choose from {', '.join(CROP_MODES.values())}")
    if crop == "center":
        return InputConfig(size=sides[0], crop_pct=share)
    if share != 1:
        raise RefusedError(f"crop_pct {share:g} with crop_mode {mode}: must be 1, as nothing is cut away")
    return InputConfig(size=sides[0], crop=crop)  # type: ignore[arg-type]


def require(folder: Path, *names: str) -> None:
    """Refuses a folder that lacks one of the files."""
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"model folder {folder}: {name} is missing; was the model kept?")


def refusal(folder: Path, error: Exception) -> UserError:
    """Returns the one line that says why a folder is no model."""
    return UserError(f"model folder {folder}: cannot be loaded ({shown(first_line(error))})")
