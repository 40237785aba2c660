"""A canvas for diagrams: boxes, arrows, texts and panels, collected and written as one SVG.

An SVG states its colours in `style` attributes and has neither ids nor a style sheet, so that several can stand in one
page, and the page's styles leave them alone.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from html import escape

from bagoftricks.models.structure import DEFINING, SHAPE, Layer

INK, SOFT, EDGE, FILL, PANEL, FRAME = "#1c1f23", "#5a6270", "#7d92ab", "#e6eef7", "#f5f6f8", "#d9dde3"
ACCENT, ACCENT_FILL = "#b4500f", "#fdeee2"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
BOX_WIDTH, BOX_HEIGHT, PILL_HEIGHT, PART_WIDTH, PART_HEIGHT = 118, 56, 24, 250, 42
MARGIN, SPACE, GAP, HEADING, LINE = 24, 14, 30, 40, 15
PATHS = 2 * BOX_WIDTH + SPACE
"""Width of a block's two paths."""
COLUMN = PATHS + 2 * SPACE
"""Width of the panel around them."""
TITLES = {
    "norm": "batch norm", "relu": "ReLU", "avgpool": "avg pool", "maxpool": "max pool", "blurpool": "blur pool",
    "excitation": "squeeze, excite", "add": "+",
}  # fmt: skip

Span = tuple[str, bool]
"""A piece of a text, and whether it is in the accent colour."""


def shape_words(layer: Layer) -> str:
    """Returns the output's channels, height and width."""
    return f"{layer['outputs']}×{layer['height']}×{layer['width']}"


@dataclass
class Canvas:
    """Collects the shapes of one drawing: pixels from the top left corner, texts at their baseline."""

    highlight: bool = True
    """Whether what differs from A is accented."""
    shapes: list[str] = field(default_factory=list)

    def marks(self, layers: Sequence[Layer], names: Set[str] = DEFINING) -> bool:
        """Whether some layer is to be accented: A has none in its place, or has one that differs in these fields."""
        return self.highlight and any((names | {"kind"}) & set(layer["changed"]) for layer in layers)

    def rectangle(
        self, part: str, left: float, top: float, width: float, height: float, radius: float, style: str
    ) -> None:
        """Adds a rectangle; `part` says what it stands for."""
        self.shapes.append(
            f'<rect data-part="{part}" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" '
            f'style="{style}"/>'
        )

    def text(
        self, x: float, y: float, spans: Sequence[Span], size: float = 12, *, soft: bool = False, bold: bool = False,
        anchor: str = "middle",
    ) -> None:  # fmt: skip
        """Adds a line of text."""
        inner = "".join(
            f'<tspan style="fill:{ACCENT};font-weight:700">{escape(text)}</tspan>' if accent else escape(text)
            for text, accent in spans
        )
        style = f"fill:{SOFT if soft else INK};font-size:{size:g}px;font-weight:{700 if bold else 400}"
        self.shapes.append(f'<text x="{x:g}" y="{y:g}" style="{style};text-anchor:{anchor}">{inner}</text>')

    def line(self, *points: tuple[float, float]) -> None:
        """Adds a line of horizontal and vertical pieces through points, with an arrow's head at the last one."""
        (x0, y0), (x, y) = points[-2:]
        length = abs(x - x0) + abs(y - y0)
        dx, dy = (x - x0) / length, (y - y0) / length
        neck = (x - 5 * dx, y - 5 * dy)
        path = " ".join(f"{a:g},{b:g}" for a, b in (*points[:-1], neck))
        self.shapes.append(
            f'<polyline points="{path}" style="fill:none;stroke:{SOFT};stroke-width:1.4;stroke-linejoin:round"/>'
        )
        wings = [(x - 7 * dx + s * 3.5 * dy, y - 7 * dy + s * 3.5 * dx) for s in (-1, 1)]
        corners = " ".join(f"{a:g},{b:g}" for a, b in ((x, y), *wings))
        self.shapes.append(f'<polygon data-part="head" points="{corners}" style="fill:{SOFT};stroke:none"/>')

    def box(
        self, x: float, top: float, lines: Sequence[Sequence[Span]], *, accent: bool = False, soft: bool = False,
        width: float = BOX_WIDTH, height: float = BOX_HEIGHT, radius: float = 5, fill: str = FILL,
    ) -> float:  # fmt: skip
        """Adds a box around x with centred lines, the last of them soft if so; returns where it ends."""
        edge, fill = (ACCENT, ACCENT_FILL) if accent else (EDGE, fill)
        style = f"fill:{fill};stroke:{edge};stroke-width:{1.8 if accent else 1.2}"
        self.rectangle("box", x - width / 2, top, width, height, radius, style)
        first = top + height / 2 - (len(lines) - 1) * LINE / 2 + 4
        for i, spans in enumerate(lines):
            quiet = soft and i == len(lines) - 1
            self.text(x, first + i * LINE, spans, 10.5 if quiet else 12, soft=quiet)
        return top + height

    def panel(self, title: str, left: float, top: float, width: float, height: float) -> None:
        """Adds the ground on which a part of the drawing stands."""
        self.rectangle("panel", left, top, width, height, 8, f"fill:{PANEL};stroke:none")
        self.text(left + SPACE, top + 23, [(title, False)], soft=True, bold=True, anchor="start")

    def pill(self, x: float, top: float, text: str) -> float:
        """Adds a white box with round ends, for what goes in or comes out; returns where it ends."""
        return self.box(x, top, [[(text, False)]], height=PILL_HEIGHT, radius=PILL_HEIGHT / 2, fill="#ffffff")

    def label(self, x: float, top: float, layer: Layer) -> None:
        """Writes the shape of a layer's output beside the line that leaves it."""
        self.text(x + 8, top + 18, [(shape_words(layer), self.marks([layer], SHAPE))], 10.5, soft=True, anchor="start")

    def svg(self, width: float, height: float, title: str, words: str) -> str:
        """Returns the document, on a white panel that keeps it legible on dark pages."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img"><title>{escape(title)}</title><desc>{escape(words)}</desc>'
            f'<g style="font-family:{FONT}"><rect data-part="paper" x="0.5" y="0.5" width="{width - 1:g}" '
            f'height="{height - 1:g}" rx="12" style="fill:#ffffff;stroke:{FRAME}"/>{"".join(self.shapes)}</g></svg>\n'
        )
