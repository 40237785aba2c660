"""What a study folder shows of its data and models."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bagoftricks.data.untrusted import read_plain
from bagoftricks.models.structure import Layers
from bagoftricks.reports.charts import Chart
from bagoftricks.reports.datacheck import balance_chart
from bagoftricks.reports.diagrams import draw_beside
from bagoftricks.reports.guard import CHECK, MOST, check_layers, check_shape, is_jpeg
from bagoftricks.store import Store
from bagoftricks.study_folder import read_data_check, read_structures

BESIDE = 4
"""Architectures in one row of diagrams."""


@dataclass(frozen=True)
class Portrait:
    """What the study folder shows of its data and models; empty for a study of an earlier version."""

    findings: tuple[str, ...] = ()
    checked: bool = False
    """Whether the data were checked."""
    charts: tuple[Chart, ...] = ()
    """Class balance."""
    samples: str = ""
    """A picture of sample images, as a data address."""
    diagrams: tuple[str, ...] = ()
    """The architectures side by side, as SVG."""


def read_portrait(root: Path) -> Portrait:
    """Returns what a study folder, perhaps another's, shows of its data and models.

    Raises:
        RunError: if something in it is damaged.
    """
    found, store = read_data_check(root), Store(root)
    if found:
        found = check_shape(found, CHECK, store.data_check)
    structures = [cast(Layers, check_layers(layers, store.structures)) for layers in read_structures(root)]
    groups = [structures[i : i + BESIDE] for i in range(0, len(structures), BESIDE)]
    return Portrait(
        findings=tuple(map(str, found["findings"])) if found else (),
        checked=found is not None,
        charts=(balance_chart(str(found["name"]), found["counts"]),) if found else (),
        samples=_picture(store.samples),
        diagrams=tuple(draw_beside(group) for group in groups),
    )


def _picture(path: Path) -> str:
    """Returns a JPEG as a data address; nothing where there is none, or it is another kind of file."""
    content = read_plain(path, MOST[".jpg"]) if path.is_file() else b""
    return f"data:image/jpeg;base64,{b64encode(content).decode()}" if is_jpeg(content) else ""
