"""Writes a study's report: one self-contained HTML file, with every table and chart as files beside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from bagoftricks.errors import UserError
from bagoftricks.files import replacing, write_text
from bagoftricks.models.structure import Layers
from bagoftricks.recipe import nest
from bagoftricks.reports.charts import Chart, all_charts
from bagoftricks.reports.datacheck import balance_chart
from bagoftricks.reports.diagrams import draw_beside
from bagoftricks.reports.results import HEADINGS, Results, read_results
from bagoftricks.reports.tables import Table, all_tables
from bagoftricks.reports.verdicts import effects_table, forest, sentences, study_analysis
from bagoftricks.store import Store, read_data_check, read_structures, read_test
from bagoftricks.studies.effects import SEEDS_FOR_VERDICT

BESIDE = 4
"""Architectures in one row of diagrams."""


def write_report(root: str | Path, out: str | Path | None = None) -> Path:
    """Writes the report of a study folder and returns the path of its HTML page.

    Args:
        root: the study folder.
        out: where to write; by default `report` inside it.

    Raises:
        UserError: if it is no study folder, or no run is done yet.
    """
    root = Path(root)
    results = read_results(root)
    if not results.done:
        raise UserError(f"study folder {root}: no run is done yet; see tricks status {root}")
    out = Path(out) if out else root / "report"
    analysis = study_analysis(results)
    tables, charts = all_tables(results), all_charts(results)
    if analysis:
        tables = [effects_table(analysis), *tables]
        charts = [*filter(None, [forest(analysis)]), *charts]
    for table in tables:
        write_text(out / "tables" / f"{table.key}.csv", table.to_csv())
        write_text(out / "tables" / f"{table.key}.md", table.to_markdown())
        write_text(out / "tables" / f"{table.key}.tex", table.to_latex())
    portrait = read_portrait(root)
    drawings = {chart.key: chart.svg() for chart in (*charts, *portrait.charts)}
    for chart in (*charts, *portrait.charts):
        write_text(out / "charts" / f"{chart.key}.svg", drawings[chart.key])
        with replacing(out / "charts" / f"{chart.key}.png") as temporary:
            temporary.write_bytes(chart.png())
    for number, diagram in enumerate(portrait.diagrams, start=1):
        write_text(out / "charts" / f"architectures-{number}.svg", diagram)
    page = out / "report.html"
    write_text(page, render(results, tables, charts, drawings, portrait, sentences(analysis) if analysis else []))
    return page


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


def render(
    results: Results,
    tables: list[Table],
    charts: list[Chart],
    drawings: Mapping[str, str],
    portrait: Portrait,
    verdicts: Sequence[str],
) -> str:
    """Returns the HTML page. Everything in it but the drawings is escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    room = files("bagoftricks.reports")
    template = environment.from_string((room / "report.html.j2").read_text(encoding="utf-8"))
    study = results.plan["study"]
    seeds = min(len(results.of_cell(cell)) for cell in results.cells if results.of_cell(cell))
    return template.render(
        style=(room / "report.css").read_text(encoding="utf-8"),
        results=results,
        study=study,
        counts=results.counts(),
        seeds=seeds,
        exploratory=seeds < SEEDS_FOR_VERDICT,
        seeds_for_verdict=SEEDS_FOR_VERDICT,
        facts=facts(results),
        tables=tables,
        charts=charts,
        drawings=drawings,
        portrait=portrait,
        verdicts=verdicts,
        metric=HEADINGS[results.metric],
        failed=[run for run in results.runs if run.state == "failed"],
        recipe=_toml(study["recipe"]),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def facts(results: Results) -> list[tuple[str, str]]:
    """Returns what the study ran on, as pairs of a name and a text."""
    data, hardware, recipe = results.plan["data"], results.plan["hardware"], results.plan["study"]["recipe"]
    first = results.done[0].result
    hours = sum(float(run.result["seconds"]) for run in results.done) / 3600
    factors, changes = results.plan["study"]["factors"], results.plan["study"].get("changes", {})
    names = {"input.size": "{} pixels", "batch_size": "batch {}", "epochs": "{} epochs", "optimizer.name": "{}"}
    training = [text.format(recipe[name]) for name, text in names.items() if name not in factors]
    by_seed = "as the data brings it" if data.get("given_split") else "another for each seed"
    split = f"{first['train_images']:,} for training, {first['val_images']:,} for validation; {by_seed}"
    rows = [
        ("Data", f"{data['name']}: {data['images']:,} images in {data['classes']} classes"),
        ("Split", split),
        ("Training", ", ".join(training)),
        ("Factors", "; ".join(f"{k}: {', '.join(map(str, v))}" for k, v in factors.items())),
        ("Seeds", ", ".join(map(str, sorted({run.seed for run in results.done})))),
        ("Hardware", f"{hardware['device']}, {hardware['precision']}, threads a run: {hardware['threads']}"),
        ("Decided by", f"{HEADINGS[results.metric]} on the validation set after the last epoch"),
        ("Cost", f"{hours:.2f} hours of training, summed over {len(results.done)} runs"),
    ]
    if leaks := {seed: n for seed, n in (data.get("leaks") or {}).items() if n}:
        pairs = ", ".join(f"{n} (seed {seed})" for seed, n in leaks.items())
        rows.insert(2, ("Copies", f"pairs of near-equal images, one trained on and the other validating: {pairs}"))
    if tested := read_test(results.root):
        looks = ", ".join(f"{look['cell'] or look['run']}: Top-1 {look['top1']:.3f}" for look in tested)
        rows.append(("Test set", f"spent on {looks} ({tested[0]['when']})"))
    if changes:
        shown = (f"{name} = {_shown(name, value)}" for name, value in changes.items())
        rows.insert(3, ("Set otherwise than the study's file", ", ".join(shown)))
    return rows


def _shown(name: str, value: Any) -> Any:
    """A path of this machine says nothing to a colleague; a file's name does."""
    return Path(str(value)).name if name == "init" else value


def _toml(flat: Mapping[str, Any]) -> str:
    import tomli_w

    return tomli_w.dumps(nest({name: _shown(name, value) for name, value in flat.items()}))
