"""What a network is made of, read from the network itself: kernels, strides and sizes are those of its modules.

`describe` walks a network (it imports torch) and returns plain data that JSON can hold, for reports to draw from.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any, TypedDict

from bagoftricks.errors import UserError
from bagoftricks.models.config import ModelConfig

DEFINING = frozenset(("kernel", "stride", "inputs", "outputs"))
"""Fields that make a layer what it is, beside its kind."""
SHAPE = frozenset(("outputs", "height", "width"))
"""Fields of the output's shape."""


class Layer(TypedDict):
    """One operation of the network, in the order of the forward pass."""

    name: str
    """Of its module in the state dict's words, `layer2.0.conv1`; the block's for what has no module."""
    kind: str
    """conv, norm, relu, avgpool, maxpool, blurpool, excitation, add or linear."""
    kernel: int | None
    """Side of the window in pixels; None where there is none, or where it spans the whole input (the last pool)."""
    stride: int | None
    inputs: int
    """Channels in."""
    outputs: int
    """Channels out."""
    height: int
    """Of the output, in pixels; 1 after the last pool."""
    width: int
    parameters: int
    multiply_adds: int
    """For one image; convolutions and the classifier are counted."""
    changed: list[str]
    """Fields in which it differs from the layer in its place in architecture A; ["kind"] where A has none there."""


class Block(TypedDict):
    """A residual block: two paths from the same input, and what joins them."""

    main: list[Layer]
    """Path A: the convolutions."""
    shortcut: list[Layer]
    """Path B: empty where the input goes straight to the addition."""
    join: list[Layer]
    """The addition and the ReLU after it."""


class Sums(TypedDict):
    """What a part of the network, or all of it, costs for one image."""

    parameters: int
    multiply_adds: int


class Part(Sums):
    """The stem or the head."""

    layers: list[Layer]


class Stage(Sums):
    """Blocks that share an output size."""

    blocks: list[Block]


class Layers(Sums):
    """A whole network."""

    name: str
    tweaks: str
    depth: int
    num_classes: int
    size: int
    """Side of the input images in pixels."""
    stem: Part
    """With the max pool, its last layer."""
    stages: list[Stage]
    head: Part


def describe(config: ModelConfig, num_classes: int = 1000, size: int = 224) -> Layers:
    """Returns every layer of the configured network, as a forward pass of a `size` x `size` image meets them.

    What differs from architecture A of the same depth is marked in each layer's `changed`.

    Raises:
        UserError: for less than 1 class, or images of less than 32 pixels.
    """
    if num_classes < 1:
        raise UserError(f"num_classes = {num_classes}: must be 1 or more")
    if size < 32:
        raise UserError(f"size = {size}: must be 32 pixels or more")
    structure = _walk(config, num_classes, size)
    if config.tweaks != "A":
        for layers, base in zip(
            all_paths(structure), all_paths(_walk(replace(config, tweaks="A"), num_classes, size)), strict=True
        ):
            _mark(layers, base)
    return structure


def _walk(config: ModelConfig, num_classes: int, size: int) -> Layers:
    """Runs the network, with whatever lies in memory as weights, and records the shapes that each layer made."""
    import torch
    from torch import Tensor, nn

    from bagoftricks.models.build import build
    from bagoftricks.models.units import BlurPool, SqueezeExcitation

    kinds = {
        BlurPool: "blurpool", SqueezeExcitation: "excitation",
        nn.Conv2d: "conv", nn.BatchNorm2d: "norm", nn.ReLU: "relu", nn.Linear: "linear",
        nn.AvgPool2d: "avgpool", nn.AdaptiveAvgPool2d: "avgpool", nn.MaxPool2d: "maxpool",
    }  # fmt: skip
    calls: list[Layer] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kind = kinds[type(module)]
        height, width = output.shape[2:] if output.ndim == 4 else (1, 1)
        parameters = sum(p.numel() for p in module.parameters())
        inner = [m.weight.numel() for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        places = 1 if kind == "excitation" else height * width  # it looks at the means of its channels
        calls.append(
            Layer(
                name=names[module], kind=kind, kernel=_side(module, "kernel_size"), stride=_side(module, "stride"),
                inputs=inputs[0].shape[1], outputs=output.shape[1], height=height, width=width,
                parameters=parameters, multiply_adds=sum(inner) * places, changed=[],
            )
        )  # fmt: skip

    with torch.device("meta"):
        model = build(config, num_classes)
    names = {module: name for name, module in model.named_modules()}
    for module in names:
        if type(module) in kinds and ".se." not in names[module]:  # which is one layer here
            module.register_forward_hook(record)
    with torch.no_grad():
        model.to_empty(device="cpu").eval()(torch.zeros(1, 3, size, size))
    return _assemble(config, num_classes, size, calls)


def _side(module: Any, name: str) -> int | None:
    """Returns a window's side or stride, which are the same in both directions here."""
    value = getattr(module, name, None)
    if isinstance(value, tuple):
        (value,) = set(value)
    return value


def _assemble(config: ModelConfig, num_classes: int, size: int, calls: list[Layer]) -> Layers:
    """Sorts recorded layers into parts by their names; adds a block's addition and last ReLU, which have no module."""
    inside = [layer["name"].startswith("layer") for layer in calls]
    first, end = inside.index(True), len(inside) - inside[::-1].index(True)
    stages: dict[str, dict[str, Block]] = {}
    for layer in calls[first:end]:
        stage, block, child = layer["name"].split(".")[:3]
        paths = stages.setdefault(stage, {}).setdefault(block, Block(main=[], shortcut=[], join=[]))
        (paths["shortcut"] if child == "downsample" else paths["main"]).append(layer)
    for stage, blocks in stages.items():
        for block, paths in blocks.items():
            paths["join"] = [_bare(f"{stage}.{block}", kind, paths["main"][-1]) for kind in ("add", "relu")]
    parts = [
        Stage(blocks=list(blocks.values()), **_sums([x for b in blocks.values() for x in b["main"] + b["shortcut"]]))
        for blocks in stages.values()
    ]
    return Layers(
        name=config.name, tweaks=config.tweaks, depth=config.depth, num_classes=num_classes, size=size, stages=parts,
        stem=Part(layers=calls[:first], **_sums(calls[:first])), head=Part(layers=calls[end:], **_sums(calls[end:])),
        **_sums(calls),
    )  # fmt: skip


def _bare(name: str, kind: str, last: Layer) -> Layer:
    """Returns an operation without a module that keeps the shape of `last`'s output."""
    return Layer(
        name=name, kind=kind, kernel=None, stride=None, inputs=last["outputs"], outputs=last["outputs"],
        height=last["height"], width=last["width"], parameters=0, multiply_adds=0, changed=[],
    )  # fmt: skip


def _sums(layers: list[Layer]) -> Sums:
    return Sums(
        parameters=sum(layer["parameters"] for layer in layers),
        multiply_adds=sum(layer["multiply_adds"] for layer in layers),
    )


def all_paths(structure: Layers) -> list[list[Layer]]:
    """Returns every chain of layers, in an order that all architectures of a depth share."""
    blocks = [block for stage in structure["stages"] for block in stage["blocks"]]
    inner = [path for block in blocks for path in (block["main"], block["shortcut"], block["join"])]
    return [structure["stem"]["layers"], *inner, structure["head"]["layers"]]


def _mark(layers: list[Layer], base: list[Layer]) -> None:
    """Writes into `changed` how a chain differs from the one in its place in A."""
    kinds, base_kinds = [x["kind"] for x in layers], [x["kind"] for x in base]
    for _, base_start, base_end, start, end in SequenceMatcher(None, base_kinds, kinds, autojunk=False).get_opcodes():
        same = kinds[start:end] == base_kinds[base_start:base_end]
        for offset, layer in enumerate(layers[start:end]):
            if same:
                theirs: Any = base[base_start + offset]
                ours: Any = layer
                layer["changed"] = [n for n in ours if n in DEFINING | SHAPE and ours[n] != theirs[n]]
            else:
                layer["changed"] = ["kind"]
