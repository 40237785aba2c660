"""What is drawn is the network: the structure against real modules and a real forward pass, the SVG against itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import vl_convert
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bagoftricks.cli import main
from bagoftricks.errors import UserError
from bagoftricks.models import resnet
from bagoftricks.models.build import build, cost
from bagoftricks.models.config import BLOCKS, TWEAKS, ModelConfig
from bagoftricks.models.structure import DEFINING, Layer, Layers, describe
from bagoftricks.reports.canvas import ACCENT, ACCENT_FILL
from bagoftricks.reports.diagrams import draw, draw_beside, draw_tweaks, in_words

ALL = [(t, d) for d in BLOCKS for t in TWEAKS if d >= 50 or "B" not in t]
SVG = "{http://www.w3.org/2000/svg}"
Rectangle = tuple[float, float, float, float]


@cache
def described(tweaks: str, depth: int = 50) -> Layers:
    return describe(ModelConfig(tweaks, depth))


def all_layers(structure: Layers) -> list[Layer]:
    blocks = [block for stage in structure["stages"] for block in stage["blocks"]]
    inner = [layer for b in blocks for layer in b["main"] + b["shortcut"] + b["join"]]
    return [*structure["stem"]["layers"], *inner, *structure["head"]["layers"]]


def bare(layers: list[Layer]) -> list[dict[str, Any]]:
    return [{key: value for key, value in layer.items() if key != "changed"} for layer in layers]


@pytest.mark.parametrize(("tweaks", "depth"), [("A", 50), ("B", 50), ("BCD", 50), ("D", 101), ("CD", 18), ("A", 34)])
@torch.no_grad()
def test_the_structure_is_a_real_forward_pass(tweaks: str, depth: int) -> None:
    """Every layer that ran, with its module's kernel and stride and its output's shape; at an odd size too."""
    model = build(ModelConfig(tweaks, depth), 7).eval()
    names = {module: name for name, module in model.named_modules()}
    ran: Counter[tuple[Any, ...]] = Counter()

    def pair(value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shape = (*output.shape[1:], 1, 1)[:3]
        window = pair(getattr(module, "kernel_size", None)), pair(getattr(module, "stride", None))
        ran[names[module], *window, inputs[0].shape[1], *shape] += 1

    for module in names:
        if not list(module.children()) and not isinstance(module, nn.Identity):
            module.register_forward_hook(record)
    size = 97
    model(torch.zeros(1, 3, size, size))
    structure = describe(ModelConfig(tweaks, depth), 7, size)
    drawn = Counter(
        (x["name"], pair(x["kernel"]), pair(x["stride"]), x["inputs"], x["outputs"], x["height"], x["width"])
        for x in all_layers(structure)
        if not re.fullmatch(r"layer\d\.\d+", x["name"])
    )
    assert drawn == ran
    assert len(ran) > 40


class Operations(TorchDispatchMode):
    """Counts what was computed, whether a module asked for it or not."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("tweaks", "depth"), [("BCD", 50), ("CD", 18)])
@torch.no_grad()
def test_no_operation_without_a_module_is_forgotten(tweaks: str, depth: int) -> None:
    model = build(ModelConfig(tweaks, depth), 3).eval()
    with Operations() as ran:
        model(torch.zeros(1, 3, 32, 32))
    kinds = Counter(layer["kind"] for layer in all_layers(described(tweaks, depth)))
    counts = {re.sub("_$", "", name): number for name, number in ran.counts.items()}
    assert kinds["relu"] == counts["relu"]
    assert kinds["add"] == counts["add"] == sum(BLOCKS[depth])
    assert kinds["conv"] == counts["convolution"]
    assert kinds["avgpool"] == counts.get("avg_pool2d", 0) + counts["mean"]


@pytest.mark.parametrize(("tweaks", "depth"), ALL)
def test_costs_are_those_of_the_model(tweaks: str, depth: int) -> None:
    structure = described(tweaks, depth)
    assert (structure["parameters"], structure["multiply_adds"]) == cost(ModelConfig(tweaks, depth))
    parts = [structure["stem"], structure["head"], *structure["stages"]]
    assert sum(part["parameters"] for part in parts) == structure["parameters"]
    assert sum(part["multiply_adds"] for part in parts) == structure["multiply_adds"]
    assert tuple(len(stage["blocks"]) for stage in structure["stages"]) == BLOCKS[depth]


@pytest.mark.parametrize("depth", [50, 152])
def test_b_differs_from_a_in_two_strides_of_each_downsampling_block(depth: int) -> None:
    a, b = all_layers(described("A", depth)), all_layers(described("B", depth))
    strides = {f"layer{stage}.0.conv{n}" for stage in (2, 3, 4) for n in (1, 2)}
    sizes = {f"layer{stage}.0.{layer}" for stage in (2, 3, 4) for layer in ("conv1", "bn1", "relu")}
    differing = {
        (ours["name"], key)
        for theirs, ours in zip(bare(a), bare(b), strict=True)
        for key in ours
        if ours[key] != theirs[key]
    }
    assert {(name, key) for name, key in differing if key in DEFINING | {"kind", "name"}} == {
        (name, "stride") for name in strides
    }
    assert {name for name, key in differing if key in ("height", "width")} == sizes
    marked = {(layer["name"], key) for layer in b for key in layer["changed"]}
    assert marked == {(name, key) for name, key in differing if key != "multiply_adds"}
    assert {x["name"]: x["stride"] for x in b if x["name"] in strides} == {n: int(n[-1]) for n in strides}


def test_c_differs_only_in_the_stem() -> None:
    a, c = described("A"), described("C")
    assert c["stages"] == a["stages"]
    assert c["head"] == a["head"]
    convs = [layer for layer in c["stem"]["layers"] if layer["kind"] == "conv"]
    assert [(x["kernel"], x["stride"], x["inputs"], x["outputs"]) for x in convs] == [
        (3, 2, 3, 32),
        (3, 1, 32, 32),
        (3, 1, 32, 64),
    ]
    assert [x["changed"] for x in c["stem"]["layers"]] == [["kind"]] * 6 + [["kernel", "stride", "inputs"], [], [], []]


@pytest.mark.parametrize("depth", [10, 18, 50])
def test_d_differs_only_in_the_shortcut(depth: int) -> None:
    a, d = described("A", depth), described("D", depth)
    assert d["stem"] == a["stem"]
    assert d["head"] == a["head"]
    changed = []
    for s, (theirs, ours) in enumerate(zip(a["stages"], d["stages"], strict=True), start=1):
        for n, (their_block, block) in enumerate(zip(theirs["blocks"], ours["blocks"], strict=True)):
            assert block["main"] == their_block["main"]
            assert block["join"] == their_block["join"]
            if [(x["kind"], x["stride"]) for x in block["shortcut"]] != [
                (x["kind"], x["stride"]) for x in their_block["shortcut"]
            ]:
                changed.append((s, n))
                pool, conv, norm = block["shortcut"]
                assert (pool["kind"], pool["kernel"], pool["stride"], pool["changed"]) == ("avgpool", 2, 2, ["kind"])
                assert (conv["kernel"], conv["stride"], conv["changed"]) == (1, 1, ["stride"])
                assert norm["changed"] == []
    assert changed == [(2, 0), (3, 0), (4, 0)]


def test_nothing_described_is_hard_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = resnet.deep_stem

    def wide() -> nn.Sequential:
        stem = narrow()
        stem[0], stem[1] = nn.Conv2d(3, 48, 5, 4, padding=2, bias=False), nn.BatchNorm2d(48)
        stem[3] = nn.Conv2d(48, 32, 3, padding=1, bias=False)
        return stem

    monkeypatch.setattr(resnet, "deep_stem", wide)
    structure = describe(ModelConfig("C", 18))
    first = structure["stem"]["layers"][0]
    assert (first["kernel"], first["stride"], first["outputs"], first["height"]) == (5, 4, 48, 56)
    assert {"5×5 conv, 48", "stride 4", "48×56×56"} <= set(texts(draw(structure)))


def test_nothing_drawn_is_hard_coded() -> None:
    structure = json.loads(json.dumps(described("BCD")))
    block = structure["stages"][1]["blocks"][0]
    block["main"][0].update(kernel=9, stride=7, outputs=11)
    block["shortcut"][0].update(kernel=6, stride=5)
    structure["stages"][3]["blocks"].pop()
    shown = set(texts(draw(structure)))
    assert {"9×9 conv, 11", "stride 7", "6×6 avg pool", "stride 5", "Stage 4: 2 blocks"} <= shown
    assert not shown & set(texts(draw(described("BCD")))) & {"2×2 avg pool", "Stage 4: 3 blocks"}


def texts(svg: str) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def rectangles(svg: str, part: str) -> list[Rectangle]:
    """(left, top, right, bottom)."""
    found = []
    for item in ElementTree.fromstring(svg).iter(f"{SVG}rect"):
        if item.get("data-part") == part:
            x, y, width, height = (float(item.get(key, "nan")) for key in ("x", "y", "width", "height"))
            found.append((x, y, x + width, y + height))
    return found


def overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def inside(inner: Rectangle, outer: Rectangle) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def extent(text: ElementTree.Element) -> Rectangle:
    """About where a text lies, by what letters of a common sans serif take."""
    style = dict(item.split(":") for item in (text.get("style") or "").split(";"))
    size, bold = float(style["font-size"].removesuffix("px")), "700" in ElementTree.tostring(text, "unicode")
    width = len("".join(text.itertext())) * size * (0.56 if bold else 0.52)
    x, y = float(text.get("x", "nan")), float(text.get("y", "nan"))
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[style["text-anchor"]]
    return left, y - 0.75 * size, left + width, y + 0.25 * size


def check_drawing(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert [child.tag.removeprefix(SVG) for child in root][:2] == ["title", "desc"]
    assert all(child.text and child.text.strip() for child in list(root)[:2])
    assert re.findall(r"http[^\"' ]*", svg) == ["http://www.w3.org/2000/svg"]
    assert {item.tag.removeprefix(SVG) for item in root.iter()} == {
        "svg", "title", "desc", "g", "rect", "text", "tspan", "polyline", "polygon",
    } - (set() if ACCENT in svg else {"tspan"})  # fmt: skip
    assert not any(name in item.attrib for item in root.iter() for name in ("id", "class", "href", "onclick"))
    assert "system-ui" in svg

    page = tuple(map(float, (root.get("viewBox") or "").split()))
    assert (page[2], page[3]) == (float(root.get("width", 0)), float(root.get("height", 0)))
    boxes, panels = rectangles(svg, "box"), rectangles(svg, "panel")
    assert len(boxes) > 12
    assert all(inside(panel, page) for panel in panels)
    assert all(any(inside(box, panel) for panel in panels) for box in boxes)
    for group in (boxes, panels):
        assert not any(overlap(a, b) for a, b in combinations(group, 2))
    areas = [extent(text) for text in root.iter(f"{SVG}text")]
    assert not any(overlap(a, b) for a, b in combinations(areas, 2))
    for area in areas:
        assert inside(area, page)
        for box in boxes + panels:
            assert not overlap(area, box) or inside(area, box), area


def check_arrows(svg: str) -> None:
    """Every arrow ends on a box's edge, and begins at one."""
    root, boxes = ElementTree.fromstring(svg), rectangles(svg, "box")

    def touches(x: float, y: float) -> bool:
        return any(
            (left <= x <= right and min(abs(y - top), abs(y - bottom)) < 0.01)
            or (top <= y <= bottom and min(abs(x - left), abs(x - right)) < 0.01)
            for left, top, right, bottom in boxes
        )

    points = [
        [tuple(map(float, point.split(","))) for point in (item.get("points") or "").split()] for item in root.iter()
    ]
    heads = [p for p, item in zip(points, root.iter(), strict=True) if item.get("data-part") == "head"]
    lines = [p for p, item in zip(points, root.iter(), strict=True) if item.tag == f"{SVG}polyline"]
    assert len(heads) == len(lines) > 12
    assert all(touches(*tips[0]) for tips in heads)
    assert all(touches(*line[0]) for line in lines)
    assert all(x == x2 or y == y2 for line in lines for (x, y), (x2, y2) in pairwise(line))


@pytest.mark.parametrize(("tweaks", "depth"), ALL)
def test_a_drawing_is_sound(tweaks: str, depth: int) -> None:
    svg = draw(described(tweaks, depth))
    check_drawing(svg)
    check_arrows(svg)
    assert f"ResNet-{depth}-{tweaks}" in texts(svg)


@pytest.mark.parametrize(
    ("depth", "tweaks", "names"),
    [(50, (), "ABCD"), (18, (), "ACD"), (101, ("A", "BCD"), ("A", "BCD")), (34, ("CD",), ("CD",))],
)
def test_the_tweaks_side_by_side(depth: int, tweaks: tuple[str, ...], names: str | tuple[str, ...]) -> None:
    svg = draw_tweaks(depth, tweaks)
    check_drawing(svg)
    check_arrows(svg)
    assert [text for text in texts(svg) if re.fullmatch(rf"ResNet-{depth}-\w+", text)] == [
        f"ResNet-{depth}-{name}" for name in names
    ]
    assert draw_beside([described(name, depth) for name in names]) == svg


@pytest.mark.parametrize(("size", "num_classes"), [(32, 1), (640, 21841)])
def test_extreme_sizes_fit(size: int, num_classes: int) -> None:
    check_drawing(draw(describe(ModelConfig("BCD", 101), num_classes, size)))
    check_drawing(draw_tweaks(50, ("A", "BCD"), num_classes, size))


def accented(svg: str) -> list[str]:
    """The first lines of boxes in the accent colour."""
    items = list(ElementTree.fromstring(svg).iter())
    return [
        "".join(items[i + 1].itertext())
        for i, item in enumerate(items)
        if item.get("data-part") == "box" and ACCENT_FILL in (item.get("style") or "")
    ]


def test_what_differs_from_a_is_accented() -> None:
    stages = ["Stage 2: 4 blocks", "Stage 3: 6 blocks", "Stage 4: 3 blocks"]
    stem = ["3×3 conv, 32", "3×3 conv, 32", "3×3 conv, 64"]
    assert accented(draw(described("A"))) == []
    assert accented(draw(described("B"))) == [*stages, "1×1 conv, 128", "3×3 conv, 128"]
    assert accented(draw(described("C"))) == ["Stem: conv 3×3, 3×3, 3×3", *stem]
    assert accented(draw(described("D"))) == [*stages, "2×2 avg pool", "1×1 conv, 512"]
    assert accented(draw_tweaks(50)) == [*stem, "1×1 conv, 128", "3×3 conv, 128", "2×2 avg pool", "1×1 conv, 512"]
    assert "differs from ResNet-50-A" in texts(draw(described("B")))
    plain = draw(described("BCD"), highlight=False)
    assert ACCENT not in plain
    assert not any("differs" in text for text in texts(plain))


def test_the_words_say_it_too() -> None:
    words = in_words(described("BD"))
    assert "Stages of 3, 4, 6, 3 blocks" in words
    assert "path A: 1×1 conv, 128, stride 1; 3×3 conv, 128, stride 2; 1×1 conv, 512, stride 1" in words
    assert "path B: 2×2 avg pool, stride 2; 1×1 conv, 512, stride 1" in words
    assert "the stem" not in words
    assert "path A of stage 2" in words
    assert "path A of stage 1" not in words
    assert "This is architecture A" in in_words(described("A"))


def test_a_stored_structure_is_drawn_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(described("BCD"), allow_nan=False), encoding="utf-8")
    code = (
        "import json, sys; from bagoftricks.reports.diagrams import draw, draw_beside\n"
        "s = json.load(open(sys.argv[1], encoding='utf-8')); draw_beside([s, s])\n"
        "sys.stdout.buffer.write(draw(s).encode()); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True)
    assert done.stdout.decode() == draw(described("BCD"))


def test_it_becomes_a_picture() -> None:
    png = vl_convert.svg_to_png(draw(described("B")), scale=1)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(png) > 20_000


@pytest.mark.parametrize(("num_classes", "size", "message"), [(0, 224, "num_classes = 0"), (10, 31, "size = 31")])
def test_refuses(num_classes: int, size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        describe(ModelConfig("A", 18), num_classes, size)


def test_no_b_where_there_are_no_bottlenecks() -> None:
    with pytest.raises(UserError, match="have none"):
        draw_tweaks(18, ("A", "B"))


def test_the_command_draws_every_architecture_of_a_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vl_convert, "svg_to_png", lambda svg, scale: b"drawn elsewhere")  # by the report's tests
    assert main(["models", "--depth", "18", "--draw", str(tmp_path / "drawn"), "--json"]) == 0
    said = capsys.readouterr()
    drawn = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    names = [f"resnet-18-{tweaks.lower()}" for tweaks in TWEAKS if "B" not in tweaks] + ["resnet-18-side-by-side"]
    assert drawn == sorted(f"{name}.{kind}" for name in names for kind in ("svg", "png"))
    assert len(said.err.splitlines()) == len(drawn)
    assert {row["tweaks"] for row in json.loads(said.out)["models"]} >= {t for t in TWEAKS if "B" not in t}
    assert (tmp_path / "drawn" / "resnet-18-cd.svg").read_text() == draw(described("CD", 18))
