"""Diagrams of the architectures, drawn without torch from what `models.structure.describe` read off the network.

The figures follow Figures 2 and 3 of the paper and Figures 1 and 2 of He et al. 2019, arXiv:1812.01187.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bagoftricks.files import replacing, write_text
from bagoftricks.models.config import TWEAKS, ModelConfig, is_bottleneck
from bagoftricks.models.structure import Layer, Layers, Sums, all_paths, describe
from bagoftricks.reports.canvas import (
    ACCENT,
    ACCENT_FILL,
    BOX_WIDTH,
    COLUMN,
    EDGE,
    FILL,
    GAP,
    HEADING,
    MARGIN,
    PART_HEIGHT,
    PART_WIDTH,
    PATHS,
    PILL_HEIGHT,
    SPACE,
    TITLES,
    Canvas,
    Span,
    shape_words,
)


@dataclass(frozen=True)
class Panel:
    """A titled area; `paint` draws around an x, from a y down, and returns where it ended."""

    title: str
    width: float
    paint: Callable[[float, float], float]


def draw(structure: Layers, *, highlight: bool = True) -> str:
    """Returns an SVG of a network: the whole, its stem, and the first block of its second stage.

    Args:
        structure: what `describe` returned, perhaps read back from JSON.
        highlight: whether to show in an accent colour what differs from architecture A.
    """
    canvas = Canvas(highlight)
    facts = f"{_cost(structure)}, at {structure['size']}×{structure['size']} pixels"
    canvas.text(MARGIN, 42, [(structure["name"], False)], 20, bold=True, anchor="start")
    canvas.text(MARGIN, 63, [(facts, False)], soft=True, anchor="start")
    network = Panel("Network", PART_WIDTH + 2 * SPACE, partial(_network, canvas, structure))
    details = (
        Panel("Stem", BOX_WIDTH + 6 * SPACE, partial(_stem, canvas, structure)),
        Panel(_block_title(structure), COLUMN, partial(_block, canvas, structure)),
    )
    left, bottom = _row(canvas, MARGIN, 80, [network])
    right, end = _row(canvas, left + SPACE, 80, details)
    canvas.panel("Legend", left + SPACE, end + SPACE, right - left - SPACE, bottom - end - SPACE)
    _legend(canvas, left + 2 * SPACE, end + SPACE + HEADING, left, [structure])
    return canvas.svg(right + MARGIN, bottom + MARGIN, structure["name"], in_words(structure))


def draw_tweaks(depth: int = 50, tweaks: Sequence[str] = (), num_classes: int = 1000, size: int = 224) -> str:
    """Returns an SVG that sets architectures side by side: their stems and their down-sampling blocks.

    Args:
        depth: 10, 18, 34, 50, 101 or 152.
        tweaks: which ones; by default the paper's A, B, C and D (at depths below 50 there is no B).
        num_classes: of the classifier.
        size: of the input images, in pixels.

    Raises:
        UserError: for what `ModelConfig` or `describe` refuses.
    """
    names = tweaks or ("ABCD" if is_bottleneck(depth) else "ACD")
    return draw_beside([describe(ModelConfig(name, depth), num_classes, size) for name in names])


def draw_beside(structures: Sequence[Layers], *, highlight: bool = True) -> str:
    """Returns an SVG of the stems and down-sampling blocks of networks that `describe` returned, a column each."""
    canvas = Canvas(highlight)
    for i, structure in enumerate(structures):
        x = MARGIN + i * (COLUMN + SPACE)
        canvas.text(x, 42, [(structure["name"], False)], 18, bold=True, anchor="start")
        canvas.text(x, 63, [(_cost(structure), False)], 11, soft=True, anchor="start")
    stems = [Panel("Stem", COLUMN, partial(_stem, canvas, structure)) for structure in structures]
    blocks = [Panel(_block_title(structure), COLUMN, partial(_block, canvas, structure)) for structure in structures]
    _, bottom = _row(canvas, MARGIN, 80, stems)
    right, bottom = _row(canvas, MARGIN, bottom + SPACE, blocks)
    bottom = _legend(canvas, MARGIN, bottom + SPACE, right, structures)
    title = f"{', '.join(structure['name'] for structure in structures)} side by side"
    words = " ".join(in_words(structure) for structure in structures)
    return canvas.svg(right + MARGIN, bottom + MARGIN, title, words)


def write_diagrams(folder: Path, depth: int = 50) -> list[Path]:
    """Writes the combinations of B, C and D at a depth, and A to D side by side, as SVG and PNG; returns the paths."""
    import vl_convert

    allowed = [tweaks for tweaks in TWEAKS if is_bottleneck(depth) or "B" not in tweaks]
    drawings = {f"resnet-{depth}-{tweaks.lower()}": draw(describe(ModelConfig(tweaks, depth))) for tweaks in allowed}
    drawings[f"resnet-{depth}-side-by-side"] = draw_tweaks(depth)
    written = []
    for name, svg in drawings.items():
        write_text(path := folder / f"{name}.svg", svg)
        with replacing(picture := folder / f"{name}.png") as temporary:
            temporary.write_bytes(vl_convert.svg_to_png(svg, scale=2))
        written += [path, picture]
    return written


def _row(canvas: Canvas, x: float, top: float, panels: Sequence[Panel]) -> tuple[float, float]:
    """Draws panels of one height side by side from x on; returns where they end, to the right and below."""
    behind, canvas.shapes = canvas.shapes, []
    edges = [x + sum(panel.width + SPACE for panel in panels[:i]) for i in range(len(panels))]
    ends = [panel.paint(x + panel.width / 2, top + HEADING) for x, panel in zip(edges, panels, strict=True)]
    bottom = max(ends) + SPACE + 2
    inside, canvas.shapes = canvas.shapes, behind
    for x, panel in zip(edges, panels, strict=True):
        canvas.panel(panel.title, x, top, panel.width, bottom - top)
    canvas.shapes += inside
    return edges[-1] + panels[-1].width, bottom


def _network(canvas: Canvas, structure: Layers, x: float, top: float) -> float:
    """Draws the whole network as a column of parts; returns where it ends."""
    stem, head = structure["stem"], structure["head"]
    *groups, pool = _groups(stem["layers"])
    kernels = ", ".join(f"{g[0]['kernel']}×{g[0]['kernel']}" for g in groups)
    rows: list[tuple[list[Span], str, list[Layer]]] = [
        ([("Stem: conv ", False), (kernels, canvas.marks([g[0] for g in groups]))], _cost(stem), stem["layers"][:-1]),
        ([(_words(pool), canvas.marks(pool))], "", pool),
    ]
    for i, stage in enumerate(structure["stages"], start=1):
        layers = [layer for b in stage["blocks"] for layer in b["main"] + b["shortcut"] + b["join"]]
        rows.append(([(f"Stage {i}: {len(stage['blocks'])} blocks", False)], _cost(stage), layers))
    rows.append(([(f"Head: {_words(head['layers'])}", False)], _cost(head), head["layers"]))
    top = canvas.pill(x, top, _image(structure))
    for i, (spans, cost, layers) in enumerate(rows):
        canvas.line((x, top), (x, top + GAP))
        if i:
            canvas.label(x, top, rows[i - 1][2][-1])
        lines = [spans, [(cost, False)]] if cost else [spans]
        top = canvas.box(x, top + GAP, lines, accent=canvas.marks(layers), soft=bool(cost), width=PART_WIDTH,
                         height=PART_HEIGHT)  # fmt: skip
    canvas.line((x, top), (x, top + GAP))
    return canvas.pill(x, top + GAP, f"{structure['num_classes']} logits")


def _stem(canvas: Canvas, structure: Layers, x: float, top: float) -> float:
    """Draws the stem, the max pool included; returns where it ends."""
    layers = structure["stem"]["layers"]
    top = canvas.pill(x, top, _image(structure))
    canvas.line((x, top), (x, top + GAP))
    top = _chain(canvas, x, top + GAP, _groups(layers))
    canvas.line((x, top), (x, top + GAP))
    return canvas.pill(x, top + GAP, shape_words(layers[-1]))


def _block(canvas: Canvas, structure: Layers, x: float, top: float) -> float:
    """Draws the first block of the second stage with its two paths side by side; returns where it ends."""
    block = structure["stages"][1]["blocks"][0]
    half = (PATHS - BOX_WIDTH) / 2
    top = canvas.pill(x, top, shape_words(structure["stages"][0]["blocks"][-1]["join"][-1]))
    fork, radius = top + 12, 11
    paths = ((x - half, "path A", block["main"]), (x + half, "path B", block["shortcut"]))
    ends = []
    for side, name, layers in paths:
        canvas.line((x, top), (x, fork), (side, fork), (side, fork + GAP))
        canvas.text(side + (8 if side < x else -8), fork + 19, [(name, False)], 10.5, soft=True,
                    anchor="start" if side < x else "end")  # fmt: skip
        ends.append(_chain(canvas, side, fork + GAP, _groups(layers)))
    join = max(ends) + GAP + 8
    for (side, _, layers), end in zip(paths, ends, strict=True):
        canvas.line((side, end), (side, join), (x - radius if side < x else x + radius, join))
        canvas.label(side, end, layers[-1])
    add, relu = block["join"]
    top = canvas.box(
        x, join - radius, [[(TITLES[add["kind"]], False)]], width=2 * radius, height=2 * radius, radius=radius
    )
    canvas.line((x, top), (x, top + 20))
    top = canvas.box(x, top + 20, [[(TITLES[relu["kind"]], False)]], height=PILL_HEIGHT)
    canvas.line((x, top), (x, top + 20))
    return canvas.pill(x, top + 20, shape_words(relu))


def _chain(canvas: Canvas, x: float, top: float, groups: Sequence[list[Layer]]) -> float:
    """Draws layers below each other, a box for each with what follows it; returns where the last one ends."""
    for i, group in enumerate(groups):
        if i:
            canvas.label(x, top, groups[i - 1][-1])
            canvas.line((x, top), (x, top + GAP))
            top += GAP
        layer, *after = group
        lines = _spans(canvas, layer)
        if after:
            lines.append([(", ".join(TITLES[x["kind"]] for x in after), False)])
        top = canvas.box(x, top, lines, accent=canvas.marks(group), soft=bool(after))
    return top


def _groups(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Puts norms and ReLUs to the layer that they follow."""
    groups: list[list[Layer]] = []
    for layer in layers:
        if layer["kind"] in ("norm", "relu"):
            groups[-1].append(layer)
        else:
            groups.append([layer])
    return groups


def _spans(canvas: Canvas, layer: Layer) -> list[list[Span]]:
    """Returns a layer's lines of text, with what differs from A accented."""
    return [[(text, canvas.marks([layer], set(names))) for text, *names in line] for line in _wording(layer)]


def _wording(layer: Layer) -> list[list[tuple[str, ...]]]:
    """Returns lines of pieces of text, each with the fields that it shows."""
    kind = layer["kind"]
    title = TITLES.get(kind, kind)
    if layer["kernel"] is None:
        return [[(f"global {title}" if kind == "avgpool" else title,)]]
    window = f"{layer['kernel']}×{layer['kernel']} "
    channels = [(", ",), (str(layer["outputs"]), "outputs")] if kind == "conv" else []
    return [[(window, "kernel"), (title,), *channels], [(f"stride {layer['stride']}", "stride")]]


def _words(layers: Sequence[Layer], joint: str = ", ") -> str:
    """Returns layers in words, norms and ReLUs left out."""
    heads = [_wording(group[0]) for group in _groups(layers)]
    return joint.join(", ".join("".join(piece[0] for piece in line) for line in lines) for lines in heads)


def in_words(structure: Layers) -> str:
    """Returns in a few sentences what `draw` shows, for those who cannot see it."""
    block = structure["stages"][1]["blocks"][0]
    every = Canvas()
    parts = {"the stem": structure["stem"]["layers"]}
    for i, stage in enumerate(structure["stages"], start=1):
        parts[f"path A of stage {i}"] = [layer for b in stage["blocks"] for layer in b["main"]]
        parts[f"path B of stage {i}"] = [layer for b in stage["blocks"] for layer in b["shortcut"]]
    differs = [name for name, layers in parts.items() if every.marks(layers)]
    return (
        f"{structure['name']}: {_cost(structure)}. Stem: {_words(structure['stem']['layers'], '; ')}. "
        f"Stages of {', '.join(str(len(stage['blocks'])) for stage in structure['stages'])} blocks. "
        f"First block of stage 2: path A: {_words(block['main'], '; ')}; path B: {_words(block['shortcut'], '; ')}. "
        + (f"Differs from architecture A in {', '.join(differs)}." if differs else "This is architecture A.")
    )


def _legend(canvas: Canvas, left: float, top: float, right: float, structures: Sequence[Layers]) -> float:
    """Explains colours and labels in rows that break before `right`; returns where the last one ends."""
    depths = {structure["depth"] for structure in structures}
    base = f"ResNet-{depths.pop()}-A" if len(depths) == 1 else "A of the same depth"
    entries: list[tuple[str, str, str]] = [(FILL, EDGE, "layers, or a part of the network")]
    if any(canvas.marks(path) for structure in structures for path in all_paths(structure)):
        entries = [(FILL, EDGE, f"as in {base}"), (ACCENT_FILL, ACCENT, f"differs from {base}")]
    entries += [
        ("", "", "beside arrows: channels×height×width"),
        ("", "", "path A: the convolutions, path B: the shortcut"),
    ]
    x = left
    for fill, edge, text in entries:
        indent = 26 if fill else 0
        width = indent + 5.8 * len(text)
        if x > left and x + width > right:
            x, top = left, top + 22
        if fill:
            canvas.rectangle("swatch", x, top, 18, 13, 3, f"fill:{fill};stroke:{edge};stroke-width:1.4")
        canvas.text(x + indent, top + 10.5, [(text, False)], 11, soft=True, anchor="start")
        x += width + SPACE
    return top + 13


def _block_title(structure: Layers) -> str:
    return f"Stage 2, block 1 of {len(structure['stages'][1]['blocks'])}"


def _image(structure: Layers) -> str:
    return f"{structure['stem']['layers'][0]['inputs']}×{structure['size']}×{structure['size']}"


def _cost(part: Sums) -> str:
    return f"{_short(part['parameters'])} parameters, {_short(part['multiply_adds'])} multiply-adds"


def _short(number: int) -> str:
    """Returns a count with three digits: 25.6 M."""
    for power, sign in ((9, " G"), (6, " M"), (3, " k")):
        if number >= 0.9995 * 10**power:
            value = number / 10**power
            return f"{value:.{max(0, 2 - (value >= 9.995) - (value >= 99.95))}f}{sign}"
    return str(number)
