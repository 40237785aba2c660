"""What a study folder shows of its data and models."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bagoftricks.models.structure import Layers
from bagoftricks.reports.charts import Chart
from bagoftricks.reports.datacheck import balance_chart
from bagoftricks.reports.diagrams import draw_beside
from bagoftricks.store import Store, read_data_check, read_structures

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
    """Returns what a study folder shows of its data and models."""
    found, samples = read_data_check(root), Store(root).samples
    structures = [cast(Layers, structure) for structure in read_structures(root)]
    groups = [structures[i : i + BESIDE] for i in range(0, len(structures), BESIDE)]
    return Portrait(
        findings=tuple(map(str, found["findings"])) if found else (),
        checked=found is not None,
        charts=(balance_chart(str(found["name"]), found["counts"]),) if found else (),
        samples=f"data:image/jpeg;base64,{b64encode(samples.read_bytes()).decode()}" if samples.is_file() else "",
        diagrams=tuple(draw_beside(group) for group in groups),
    )
