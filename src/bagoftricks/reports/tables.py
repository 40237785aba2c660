"""Tables of results: built once, written as CSV, Markdown, LaTeX and HTML."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bagoftricks.data.names import shown
from bagoftricks.data.untrusted import csv_cell
from bagoftricks.reports.results import HEADINGS, Results, Spread


@dataclass(frozen=True)
class Entry:
    """One figure: its text, its parts for CSV, and whether it is the best of its column."""

    text: str
    parts: Mapping[str, str]
    best: bool = False

    @property
    def value(self) -> float | None:
        """What a column is sorted by: the first part, where it is a number; None where it is text, or missing."""
        try:
            number = float(next(iter(self.parts.values()), ""))
        except ValueError:
            return None
        return number if math.isfinite(number) else None


@dataclass(frozen=True)
class Table:
    """A titled table; the first column names the rows."""

    key: str
    """For file names."""
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]

    def to_csv(self) -> str:
        """Every part in a column of its own: mean, sd, n; see `csv_cell` for what looks like a formula."""
        out = io.StringIO()
        names = [
            f"{c}_{part}" if part else c for c, e in zip(self.columns, self.rows[0], strict=True) for part in e.parts
        ]
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(csv_cell(name.lower().replace(" ", "_").replace("-", "")) for name in names)
        writer.writerows([csv_cell(value) for entry in row for value in entry.parts.values()] for row in self.rows)
        return out.getvalue()

    def to_markdown(self) -> str:
        """With the best of each column in bold."""
        lines = ["| " + " | ".join(map(_markdown, self.columns)) + " |"]
        lines.append("| --- |" + " ---: |" * (len(self.columns) - 1))
        for row in self.rows:
            texts = (_markdown(entry.text) for entry in row)
            lines.append("| " + " | ".join(f"**{t}**" if e.best else t for t, e in zip(texts, row, strict=True)) + " |")
        return f"**{_markdown(self.title)}.** {_markdown(self.note)}\n\n" + "\n".join(lines) + "\n"

    def to_latex(self) -> str:
        """A `table` environment; needs the booktabs package."""
        body = []
        for row in self.rows:
            cells = (rf"\textbf{{{_latex(e.text)}}}" if e.best else _latex(e.text) for e in row)
            body.append("  " + " & ".join(cells) + r" \\")
        align = "l" + "r" * (len(self.columns) - 1)
        return "\n".join(
            [
                r"\begin{table}",
                r"  \centering",
                rf"  \caption{{{_latex(self.title)}. {_latex(self.note)}}}",
                rf"  \begin{{tabular}}{{{align}}}",
                r"  \toprule",
                "  " + " & ".join(map(_latex, self.columns)) + r" \\",
                r"  \midrule",
                *body,
                r"  \bottomrule",
                r"  \end{tabular}",
                r"\end{table}",
                "",
            ]
        )


MARKDOWN = str.maketrans({"|": r"\|", "[": r"\[", "]": r"\]", "`": r"\`", "<": "&lt;"})
"""What would end a cell, or make a name a link, an image or a tag; other signs only change how it looks."""
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
)


def _markdown(text: str) -> str:
    return shown(text).translate(MARKDOWN)


def _latex(text: str) -> str:
    return shown(text).translate(LATEX)


def _spread(spread: Spread | None, *, best: bool) -> Entry:
    if spread is None:
        return Entry("–", {"mean": "", "sd": "", "n": "0"})
    sd = "" if spread.sd is None else f"{spread.sd:.4f}"
    text = f"{spread.mean:.3f}" + (f" ± {spread.sd:.3f}" if spread.sd is not None else "")
    return Entry(text, {"mean": f"{spread.mean:.4f}", "sd": sd, "n": str(spread.n)}, best)


def plain_entry(text: str, *, best: bool = False) -> Entry:
    """A text that is its own only part."""
    return Entry(text, {"": text}, best)


def _published(value: float) -> str:
    """With the decimals that it was published with: two, or four where two would round it."""
    return f"{value:.2f}" if round(value, 2) == value else f"{value:.4f}"


def _runs(results: Results, cell: str) -> Entry:
    counts = results.counts(cell)
    planned = sum(counts.values())
    text = str(counts["done"]) if counts["done"] == planned else f"{counts['done']} of {planned}"
    return plain_entry(text)


def cells_table(results: Results) -> Table:
    """Every cell with every measure: mean, sample standard deviation, runs."""
    best = {measure: results.best(measure) for measure in results.measures}
    rows = tuple(
        (
            plain_entry(cell),
            *(_spread(results.spread(cell, m), best=best[m] == cell) for m in results.measures),
            _runs(results, cell),
        )
        for cell in results.cells
    )
    note = "Validation set, last epoch: mean ± standard deviation over seeds. Bold: best mean, which is no verdict."
    if results.metric != "top1":
        note += f" The study's primary metric is {HEADINGS[results.metric]}."
    return Table("cells", "All cells", note, ("Cell", *(HEADINGS[m] for m in results.measures), "Runs"), rows)


def reference_tables(results: Results) -> list[Table]:
    """The tables that the study declares, in their published layout, ours beside the published figures."""
    return [
        _reference_table(results, table, f"table-{number}")
        for number, table in enumerate(results.plan["study"].get("tables", ()), start=1)
    ]


def _reference_table(results: Results, table: Mapping[str, Any], key: str) -> Table:
    cells = [row["cell"] for row in table["rows"]]
    shown = [m for m in ("top1", "top5") if any(row.get(m) is not None for row in table["rows"])]
    best = {measure: results.best(measure, cells) for measure in shown}
    published_best = {m: max((row[m] for row in table["rows"] if row.get(m) is not None), default=None) for m in shown}
    rows = []
    for row in table["rows"]:
        entries = [plain_entry(row["cell"])]
        for m in shown:
            entries.append(_spread(results.spread(row["cell"], m), best=best[m] == row["cell"]))
            published = row.get(m)
            text = "–" if published is None else _published(published)
            entries.append(plain_entry(text, best=published is not None and published == published_best[m]))
        entries.append(_runs(results, row["cell"]))
        rows.append(tuple(entries))
    columns = ("Model", *(c for m in shown for c in (f"{HEADINGS[m]} ours", f"{HEADINGS[m]} published")), "Runs")
    return Table(key, table["title"], f"Published: {table['source']}.", columns, tuple(rows))


def all_tables(results: Results) -> list[Table]:
    """What the report shows: published layouts first, then every cell."""
    return [*reference_tables(results), cells_table(results)]
