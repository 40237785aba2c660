"""What timm knows of its networks and of their published weights. timm, an extra, is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bagoftricks.errors import UserError, install, unknown
from bagoftricks.models.config import RESNET, TIMM
from bagoftricks.models.published import UNKNOWN, Published
from bagoftricks.models.timm_names import resnet_of_timm


def need_timm() -> Any:
    """Returns timm.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return import_module("timm")
    except ImportError as error:
        raise UserError(f"a backbone of timm's needs timm; run: {install('timm')}") from error


def about(name: str) -> dict[str, Any]:
    """Returns timm's `pretrained_cfg` of a network, or of one of its published weights.

    Args:
        name: as timm has it: "convnext_tiny", "convnext_tiny.fb_in1k".

    Raises:
        UserError: for a name that timm does not have, with the nearest one, or without timm.
    """
    timm = need_timm()
    model, _, tag = name.partition(".")
    if not timm.is_model(model) or timm.get_pretrained_cfg(model) is None:  # of older names it knows nothing more
        raise unknown("network of timm", f"{TIMM}{model}", [TIMM + known for known in timm.list_models()])
    if tag:
        tags = [f"{TIMM}{known}" for known in timm.list_pretrained(f"{model}.*")]
        if f"{TIMM}{name}" not in tags:
            raise unknown("published weights", f"{TIMM}{name}", tags)
    return dict(timm.get_pretrained_cfg(name).to_dict())


def published(name: str) -> Published:
    """Returns what timm publishes under a name with its tag: "convnext_tiny.fb_in1k".

    Its checksum is what the HF hub says of its file. A network that is a ResNet of this project is described as one.

    Raises:
        UserError: for a name that timm does not have, weights that are not on the HF hub, or without timm.
    """
    model, _, tag = name.partition(".")
    about(model)
    if not tag:
        tags = [TIMM + known for known in need_timm().list_pretrained(f"{model}.*")]
        raise UserError(f"initial weights {TIMM}{name}: say which: {', '.join(tags[:5]) or 'timm has none of it'}")
    known = about(name)
    if not known.get("hf_hub_id"):
        raise UserError(f"initial weights {TIMM}{name}: not on the HF hub; download them by hand and pass the file")
    ours = resnet_of_timm(model)
    return Published(
        f"{TIMM}{name}", ours.tweaks if ours else "", ours.depth if ours else 0, "timm",
        known.get("license") or UNKNOWN, None, known["input_size"][1], "", hub_id=known["hf_hub_id"],
        backbone=RESNET if ours else f"{TIMM}{model}", mean=tuple(known["mean"]), std=tuple(known["std"]),
    )  # fmt: skip


def class_names(name: str) -> tuple[str, ...]:
    """Returns the classes of published weights: what they say themselves, or the synsets of ImageNet (n01440764).

    Raises:
        UserError: if nobody can tell.
    """
    known = about(name)
    if known.get("label_names"):
        return tuple(known["label_names"])
    data = import_module("timm.data")
    subset = data.infer_imagenet_subset(known)
    if subset is None:
        raise UserError(f"{TIMM}{name}: timm does not say which classes it knows")
    return tuple(data.ImageNetInfo(subset).label_names())
