"""Figures as Markdown tables, between markers of a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bagoftricks.files import write_text
from bench.calibrate.figures import Figure

HEADINGS = {
    "family-wise": "noise",
    "true-nulls": "noise",
    "equivalence": "noise",
    "coverage": "noise",
    "either": "design",
    "wholly": "design",
    "power": "planned for 80 %",
    "pilot": "effect",
    "verdicts-0.5": "study",
    "verdicts-2": "study",
    "sign-flip": "noise",
    "better": "true P(better)",
    "few": "noise",
    "one-level": "noise",
    "cells": "noise",
    "coarse": "validation",
    "pool": "measured",
    "pool-power": "planned for 80 %",
    "new-data": "effect",
}
"""Of the first column of each table."""


def table(name: str, figures: Sequence[Figure]) -> str:
    """Returns a table: rows and columns as they first appear, figures of one place side by side."""
    own = [figure for figure in figures if figure.table == name]
    columns = list(dict.fromkeys(figure.column for figure in own))
    lines = [f"| {HEADINGS[name]} | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for row in dict.fromkeys(figure.row for figure in own):
        here = {column: [f.shown for f in own if (f.row, f.column) == (row, column)] for column in columns}
        lines.append(f"| {row} | {' | '.join(' / '.join(here[column]) for column in columns)} |")
    return "\n".join(lines)


def write(page: Path, figures: Sequence[Figure]) -> None:
    """Replaces the tables of a page: what stands between `<!-- figures: NAME -->` and `<!-- end -->`.

    Raises:
        ValueError: if the page lacks a table's place or holds one that there are no figures for.
    """
    text = page.read_text(encoding="utf-8")
    wanted, places = set(HEADINGS), set(re.findall(r"<!-- figures: (\S+) -->", text))
    if wanted != places:
        raise ValueError(f"{page}: places and tables differ: {', '.join(sorted(wanted ^ places))}")
    for name in HEADINGS:
        place = re.compile(rf"(<!-- figures: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = place.sub(lambda found, name=name: f"{found[1]}\n{table(name, figures)}\n\n{found[2]}", text)
    write_text(page, text)


def broken(figures: Sequence[Figure]) -> list[Figure]:
    """Returns the figures that do not keep what is promised."""
    return [figure for figure in figures if figure.holds is False]
