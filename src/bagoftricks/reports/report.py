"""Writes a study's report: one self-contained HTML file, with every table and chart as files beside it."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from bagoftricks.errors import RunError, UserError
from bagoftricks.files import replacing, write_text
from bagoftricks.reports import reproduction
from bagoftricks.reports.answer import Answer, answer, told
from bagoftricks.reports.charts import MOST_PANELS, Chart, all_curves, all_dots, figure
from bagoftricks.reports.classes import ClassParts, class_parts
from bagoftricks.reports.cost import cost_table, gain_chart
from bagoftricks.reports.evidence import evidence_table
from bagoftricks.reports.interactions import interaction_chart
from bagoftricks.reports.portrait import Portrait, read_portrait
from bagoftricks.reports.results import HEADINGS, Results, read_results
from bagoftricks.reports.tables import Table, all_tables
from bagoftricks.reports.verdicts import forest, verdict_tables
from bagoftricks.studies.effects import SEEDS_FOR_VERDICT, Analysis

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_ROWS = 60
"""Rows of a chart's data up to which the page shows them as a table; more are shown as CSV."""


@dataclass(frozen=True)
class Parts:
    """What a report holds, in its order."""

    answer: Answer | None
    """None where nothing is varied, or less than two cells ran."""
    forest: Chart | None
    dots: tuple[Chart, ...]
    interactions: Chart | None
    curves: tuple[Chart, ...]
    tables: tuple[Table, ...]
    classes: ClassParts | None
    """None where no run kept its predictions."""
    cost: Table
    gain: Chart | None
    portrait: Portrait
    recipes: Table
    runs: Table

    @property
    def charts(self) -> list[Chart]:
        """Every chart, in the page's order."""
        shown = [self.forest, *self.dots, self.interactions, *self.curves]
        if self.classes:
            shown += self.classes.charts
        return [chart for chart in (*shown, self.gain, *self.portrait.charts) if chart]

    @property
    def all_tables(self) -> list[Table]:
        """Every table, in the page's order."""
        classes = self.classes.tables if self.classes else ()
        return [*self.tables, *classes, self.cost, self.recipes, self.runs]


def write_report(root: str | Path, out: str | Path | None = None, *, results: Results | None = None) -> Path:
    """Writes the report of a study folder and returns the path of its HTML page.

    Args:
        root: the study folder.
        out: where to write; by default `report` inside it.
        results: what the folder holds, where it is read already.

    Raises:
        UserError: if it is no study folder, or no run is done yet.
        RunError: if the folder is damaged, or its own `report` leads elsewhere.
    """
    root = Path(root)
    results = results or read_results(root)
    if not results.done:
        raise UserError(f"study folder {root}: no run is done yet; see tricks status {root}")
    if out is None:
        _check_own(root / "report")
    out = Path(out) if out else root / "report"
    parts = collect(results)
    for table in parts.all_tables:
        write_text(out / "tables" / f"{table.key}.csv", table.to_csv())
        write_text(out / "tables" / f"{table.key}.md", table.to_markdown())
        write_text(out / "tables" / f"{table.key}.tex", table.to_latex())
    for chart in parts.charts:
        write_text(out / "charts" / f"{chart.key}.svg", chart.svg())
        write_text(out / "charts" / f"{chart.key}.csv", chart.to_csv())
        with replacing(out / "charts" / f"{chart.key}.png") as temporary:
            temporary.write_bytes(chart.png())
    for number, diagram in enumerate(parts.portrait.diagrams, start=1):
        write_text(out / "charts" / f"architectures-{number}.svg", diagram)
    write_text(out / reproduction.STUDY_FILE, reproduction.study_file(results))
    page = out / "report.html"
    write_text(page, render(results, parts))
    return page


def _check_own(out: Path) -> None:
    """Refuses to write where a link in a study folder, which may be another's, leads."""
    for folder in (out, out / "tables", out / "charts"):
        if folder.is_symlink():
            raise RunError(f"{folder}: is a link; remove it, or pass --out to say where the report goes")


def collect(results: Results) -> Parts:
    """Returns what a report of these results holds."""
    analysis = results.analysis
    evidence = evidence_table(analysis) if analysis else None
    judged = [*(verdict_tables(analysis) if analysis else ()), *([evidence] if evidence else ())]
    return Parts(
        answer=answer(analysis) if analysis else None,
        forest=_forest(analysis) if analysis else None,
        dots=tuple(all_dots(results)),
        interactions=interaction_chart(results, analysis) if analysis else None,
        curves=tuple(all_curves(results)),
        tables=(*judged, *all_tables(results)),
        classes=class_parts(results),
        cost=cost_table(results),
        gain=gain_chart(results, analysis) if analysis else None,
        portrait=read_portrait(results.root),
        recipes=reproduction.recipes_table(results),
        runs=reproduction.runs_table(results),
    )


def _forest(analysis: Analysis) -> Chart | None:
    """The forest plot, with the effects in its text alternative."""
    chart = forest(analysis)
    return replace(chart, alt=told(analysis, chart)) if chart else None


def breakable(text: str) -> Markup:
    """Returns a name, escaped, that a narrow column may break after a sign: cells are named from many factors."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(piece) for piece in re.split(r"(?<=[+=_/,])|(?<=\.)(?!\d)", text))


def render(results: Results, parts: Parts) -> str:
    """Returns the HTML page. Everything in it but the drawings is escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = breakable
    room = files("bagoftricks.reports")
    style, script = ((room / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    template = environment.from_string((room / "report.html.j2").read_text(encoding="utf-8"))
    study = results.plan["study"]
    ran = [{run.seed for run in results.of_cell(cell)} for cell in results.cells if results.of_cell(cell)]
    seeds = len(set.intersection(*ran))
    return template.render(
        style=style,
        script=script,
        script_hash=f"sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        results=results,
        study=study,
        parts=parts,
        counts=results.counts(),
        seeds=seeds,
        exploratory=seeds < SEEDS_FOR_VERDICT,
        gaps=max(map(len, ran)) >= SEEDS_FOR_VERDICT,
        seeds_for_verdict=SEEDS_FOR_VERDICT,
        metric=HEADINGS[results.metric],
        many=sum(1 for cell in results.cells if results.of_cell(cell)) > MOST_PANELS,
        most_rows=MOST_ROWS,
        figure=figure,
        facts=reproduction.facts(results),
        command=reproduction.command(results),
        command_notes=reproduction.command_notes(results),
        study_file=reproduction.study_file(results),
        recipe=reproduction.as_toml(reproduction.shared_recipe(results)),
        environment=reproduction.environment_rows(results),
        hashes=reproduction.hashes(results),
        failed=[run for run in results.runs if run.state == "failed"],
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
