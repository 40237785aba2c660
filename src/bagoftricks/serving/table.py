"""Predictions as text, a line as soon as it is known: a table for people, JSON lines, CSV.

Names of files and classes are others' words. JSON spells out all that is no ASCII, so that any name survives and none
can harm a terminal; elsewhere they are escaped (`names.shown`), and in CSV no spreadsheet computes them.
"""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from rich.cells import cell_len

from bagoftricks.data.names import shown
from bagoftricks.data.reading import BadImageError
from bagoftricks.data.untrusted import csv_cell
from bagoftricks.errors import unknown
from bagoftricks.serving.classifier import Prediction

FORMATS = ("table", "jsonl", "csv")
WIDEST = 100
"""Columns of a terminal that a name is padded to; longer ones are written out all the same."""


def entry(name: str, outcome: Prediction | BadImageError) -> dict[str, Any]:
    """Returns an image's prediction for JSON: `filename`, `predictions` (best first), `abstained`; or `error`."""
    if isinstance(outcome, BadImageError):
        return {"filename": name, "error": outcome.reason}
    rows = zip(outcome.labels, outcome.indices, outcome.probs, strict=True)
    found = [{"label": label, "index": index, "prob": prob} for label, index, prob in rows]
    return {"filename": name, "predictions": found, "abstained": outcome.abstained}


class Writer(ABC):
    """Writes predictions as they come; `Writer.of` chooses the format."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    @abstractmethod
    def add(self, path: Path, outcome: Prediction | BadImageError) -> None:
        """Writes what was found out about an image."""

    @staticmethod
    def of(kind: str, stream: IO[str], paths: Iterable[Path], classes: Sequence[str], top_k: int) -> Writer:
        """Returns a writer of predictions.

        Args:
            kind: table, jsonl or csv.
            stream: where to; nothing closes it.
            paths: of the images to come, for the width of a column.
            classes: of the model, for the same.
            top_k: classes of each prediction.

        Raises:
            UserError: for another kind.
        """
        if kind == "csv":
            return _Csv(stream, top_k)
        if kind == "jsonl":
            return _JsonLines(stream)
        if kind == "table":
            return _Table(stream, [str(path) for path in paths], classes)
        raise unknown("--format", kind, FORMATS)


class _JsonLines(Writer):
    def add(self, path: Path, outcome: Prediction | BadImageError) -> None:
        self.stream.write(json.dumps(entry(str(path), outcome)) + "\n")


class _Csv(Writer):
    """A row an image, or with several classes asked for a row for each, with its rank.

    Bad images have none. Where the model abstains there is one, without index and label.
    """

    def __init__(self, stream: IO[str], top_k: int) -> None:
        super().__init__(stream)
        self.rows, self.ranked = csv.writer(stream, lineterminator="\n"), top_k > 1
        self.rows.writerow(["filename", "index", "label", "prob", *(["rank"] if self.ranked else [])])

    def add(self, path: Path, outcome: Prediction | BadImageError) -> None:
        if isinstance(outcome, BadImageError):
            return
        name = csv_cell(path)
        if outcome.abstained:
            self._row([name, "", "", f"{outcome.probs[0]:.6f}"], 1)
            return
        found = zip(outcome.indices, outcome.labels, outcome.probs, strict=True)
        for rank, (index, label, prob) in enumerate(found, 1):
            self._row([name, index, csv_cell(label), f"{prob:.6f}"], rank)

    def _row(self, cells: list[Any], rank: int) -> None:
        self.rows.writerow([*cells, rank] if self.ranked else cells)


class _Table(Writer):
    """Aligned columns: image, class, probability; further classes stand below the first."""

    def __init__(self, stream: IO[str], names: Sequence[str], classes: Sequence[str]) -> None:
        super().__init__(stream)
        self.name_width = _width(names, "image")
        self.label_width = _width([f"{name}?" for name in classes], "class")
        self._line("image", "class", "probability")

    def add(self, path: Path, outcome: Prediction | BadImageError) -> None:
        if isinstance(outcome, BadImageError):
            self._line(shown(str(path)), "-", f"cannot be read: {shown(outcome.reason)}")
            return
        name = shown(str(path))
        for label, prob in zip(outcome.labels, outcome.probs, strict=True):
            doubted = "?" if outcome.abstained else ""
            self._line(name, shown(label) + doubted, f"{prob:.3f}")
            name = ""

    def _line(self, name: str, label: str, last: str) -> None:
        self.stream.write(f"{_padded(name, self.name_width)}  {_padded(label, self.label_width)}  {last}\n")


def _width(texts: Iterable[str], heading: str) -> int:
    return min(WIDEST, max(cell_len(shown(text)) for text in [heading, *texts]))


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
