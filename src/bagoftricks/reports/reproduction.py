"""How to do a study again: the command, every recipe, the machine, the seeds, the hashes, and what failed."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bagoftricks.dotted import nest
from bagoftricks.errors import UserError
from bagoftricks.models.config import ADAPT
from bagoftricks.recipe import PATHS
from bagoftricks.reports.guard import LOOK, check_shape
from bagoftricks.reports.results import HEADINGS, Results
from bagoftricks.reports.tables import Entry, Table, plain_entry
from bagoftricks.store import ENVIRONMENT, Store
from bagoftricks.studies.design import PRESETS
from bagoftricks.studies.study_file import load_study, study_from_dict, study_to_dict
from bagoftricks.study_folder import TEST, read_test

STUDY_FILE = "study.toml"
"""Beside the page: the study as it ran, for `tricks study`."""
TEACHER = "distillation.teacher"
IGNORED = ("seeds", "data")
"""Of a study, when it is compared with a preset: what the command says anyway."""


def as_toml(flat: Mapping[str, Any]) -> str:
    """Returns recipe fields as TOML."""
    import tomli_w

    return tomli_w.dumps(nest(flat))


def shared_recipe(results: Results) -> dict[str, Any]:
    """Returns the fields that every cell shares, by dotted name."""
    study = results.plan["study"]
    return {name: value for name, value in study["recipe"].items() if name not in study["factors"]}


def study_file(results: Results) -> str:
    """Returns the study as it ran, as a TOML file that `tricks study` reads."""
    import tomli_w

    study = results.plan["study"]
    labels = {name: texts for name, texts in study.get("labels", {}).items() if texts}
    table: dict[str, Any] = {
        **{key: study[key] for key in ("name", "title", "about", "data", "design", "metric") if study.get(key)},
        "seeds": list(study["seeds"]),
        "assumptions": [dict(item) for item in study.get("assumptions", ())],
        "cells": [dict(cell) for cell in study.get("cells", ())],
        "recipe": nest(shared_recipe(results)),
        "factors": {name: list(levels) for name, levels in study["factors"].items()},
        "labels": labels,
        "tables": [_reference_table(item) for item in study.get("tables", ())],
    }
    kept = {key: value for key, value in table.items() if value or key == "seeds"}
    return tomli_w.dumps(kept)


def _reference_table(table: Mapping[str, Any]) -> dict[str, Any]:
    rows = [{key: value for key, value in row.items() if value is not None} for row in table["rows"]]
    return {**table, "rows": rows}


def is_preset(results: Results) -> bool:
    """Whether a preset, with the changes that the plan records, is this very study, its seeds aside."""
    study = dict(results.plan["study"])
    if study["name"] not in PRESETS:
        return False
    try:
        ours = study_from_dict(study)
        preset = load_study(ours.name).adapted(ours.changes, metric=ours.metric)
    except UserError:  # of another version, in which a field had other values
        return False
    mine, theirs = study_to_dict(ours), study_to_dict(replace(preset, seeds=ours.seeds))
    return all(mine[key] == theirs[key] for key in mine if key not in IGNORED)


def command(results: Results) -> str:
    """Returns the command that runs this study again, with the data's name where their folder's path must stand."""
    plan = results.plan
    study, hardware = plan["study"], plan["hardware"]
    data = "digits" if plan["data"]["name"] == "digits" else f"PATH/{plan['data']['name']}"
    seeds = list(study["seeds"])
    parts = ["tricks", "study", study["name"] if (preset := is_preset(results)) else STUDY_FILE, "--data", data]
    if preset:
        if seeds == list(range(len(seeds))):
            parts += ["--seeds", str(len(seeds))]
        if study["metric"] != load_study(study["name"]).metric:
            parts += ["--metric", study["metric"]]
        for name, value in study.get("changes", {}).items():
            parts += [f"--{name.replace('_', '-')}", _flag(name, value)]
    elif study["recipe"].get("init", "scratch") != "scratch":
        parts += ["--init", _flag("init", study["recipe"]["init"])]
    parts += ["--device", str(hardware["device"]), "--precision", str(hardware["precision"])]
    parts += ["--kernels", str(hardware.get("kernels", "torch"))]  # which there was no choice of at first
    if hardware.get("deterministic"):
        parts.append("--deterministic")
    parts += ["--out", "again"]
    return shlex.join(parts)


def _flag(name: str, value: Any) -> str:
    if name in PATHS and value not in ("scratch", "none"):
        adapt = ADAPT if str(value).startswith(ADAPT) else ""
        path = str(value).removeprefix(ADAPT)
        return f"{adapt}{path}" if ":" in path else f"{adapt}PATH/{path}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def command_notes(results: Results) -> list[str]:
    """Returns what the command needs that it does not say."""
    plan = results.plan
    seeds, threads = plan["study"]["seeds"], plan["hardware"]["threads"]
    notes = []
    if plan["data"]["name"] != "digits":
        notes.append(f"PATH is where the images{_weights(results)} lie; the hashes below tell if they are the same.")
    if is_preset(results) and list(seeds) != list(range(len(seeds))):
        notes.append(f"The seeds were {', '.join(map(str, seeds))}: run {STUDY_FILE}, which names them, instead.")
    study = plan["study"]
    if TEACHER in study["factors"] or study["recipe"].get(TEACHER, "none") != "none":
        notes.append("Teachers are looked for where the study names them: put them there, the hashes below tell them.")
    notes.append(
        f"A run had {threads} thread{'s' if threads != 1 else ''}: the cores shared among the jobs. Another number, "
        "device, precision or kernels change results in their last digits; set --jobs to the machine's cores over that "
        "number."
    )
    return notes


def _weights(results: Results) -> str:
    return "" if results.plan["study"]["recipe"].get("init", "scratch") == "scratch" else " and the initial weights"


def recipes_table(results: Results) -> Table:
    """The level of every factor in every cell: what the shared recipe does not say."""
    factors = list(results.plan["study"]["factors"])
    rows = tuple(
        (plain_entry(cell["name"]), *(plain_entry(str(cell["levels"].get(f, "–"))) for f in factors))
        for cell in results.plan["cells"]
    )
    note = "What each cell sets beside the shared recipe."
    return Table("recipes", "The recipe of each cell", note, ("Cell", *factors), rows)


def runs_table(results: Results) -> Table:
    """Every run: its identity, state and time."""
    metric = results.metric
    rows = []
    for run in results.runs:
        value, seconds = run.result.get(metric), run.result.get("seconds")
        rows.append(
            (
                plain_entry(run.cell),
                plain_entry(str(run.seed)),
                plain_entry(run.state),
                plain_entry("–") if value is None else Entry(f"{value:.4f}", {"": f"{value:.6f}"}),
                plain_entry("–") if seconds is None else Entry(f"{seconds:.1f}", {"": f"{seconds:.2f}"}),
                plain_entry(run.id),
            )
        )
    note = "Identity: a hash of recipe, seed, data, initial weights, teacher, threads, precision, device and kernels."
    columns = ("Cell", "Seed", "State", HEADINGS[metric], "Seconds", "Identity")
    return Table("runs", "Every run", note, columns, tuple(rows))


def environment_rows(results: Results) -> list[tuple[str, str]]:
    """Returns what the done runs ran on: a name and its value, or its values with the number of runs of each."""
    store = Store(results.root)
    found = [
        stored.environment
        for run in results.done
        if (stored := store.get(run.id)) and (stored.folder / ENVIRONMENT).is_file()
    ]
    rows = []
    for name in dict.fromkeys(name for values in found for name in values):
        counts = Counter(str(values.get(name, "")) for values in found)
        texts = [text or "none" for text in counts]
        if len(texts) > 1:
            texts = [f"{text or 'none'} ({count} runs)" for text, count in counts.most_common()]
        rows.append((name, "; ".join(texts)))
    return rows


def hashes(results: Results) -> list[tuple[str, str]]:
    """Returns the hashes of what went into the runs: a name and a SHA-256."""
    data = results.plan["data"]
    rows = [(f"Data, {data['name']}", str(data["fingerprint"]))] if data.get("fingerprint") else []
    weights = {}
    for run in results.done:
        about = run.result.get("weights") or {}
        if about.get("source"):
            weights[str(about["source"])] = str(about.get("sha256") or "")
    rows += [(f"Initial weights, {name}", digest) for name, digest in weights.items() if digest]
    taught = (run.result["teacher"] for run in results.done if "teacher" in run.result)
    teachers = {about["run"]: about["sha256"] for about in taught}
    return rows + [(f"Teacher, {name}", str(digest)) for name, digest in teachers.items()]


def facts(results: Results) -> list[tuple[str, str]]:
    """Returns what the study ran on, as pairs of a name and a text."""
    data, hardware, recipe = results.plan["data"], results.plan["hardware"], results.plan["study"]["recipe"]
    first = results.done[0].result
    hours = sum(float(run.result["seconds"]) for run in results.done) / 3600
    factors, changes = results.plan["study"]["factors"], results.plan["study"].get("changes", {})
    names = {"input.size": "{} pixels", "batch_size": "batch {}", "epochs": "{} epochs", "optimizer.name": "{}"}
    training = [text.format(recipe[name]) for name, text in names.items() if name not in factors]
    kernels = ", native kernels" if hardware.get("kernels") == "native" else ""
    by_seed = "as the data brings it" if data.get("given_split") else "another for each seed"
    split = f"{first['train_images']:,} for training, {first['val_images']:,} for validation; {by_seed}"
    rows = [
        ("Data", f"{data['name']}: {data['images']:,} images in {data['classes']} classes"),
        ("Split", split),
        ("Training", ", ".join(training)),
        ("Factors", "; ".join(f"{k}: {', '.join(map(str, v))}" for k, v in factors.items())),
        ("Seeds", ", ".join(map(str, sorted({run.seed for run in results.done})))),
        ("Hardware", f"{hardware['device']}, {hardware['precision']}{kernels}, threads a run: {hardware['threads']}"),
        ("Decided by", f"{HEADINGS[results.metric]} on the validation set after the last epoch"),
        ("Cost", f"{hours:.2f} hours of training, summed over {len(results.done)} runs"),
    ]
    if leaks := {seed: n for seed, n in (data.get("leaks") or {}).items() if n}:
        pairs = ", ".join(f"{n} (seed {seed})" for seed, n in leaks.items())
        rows.insert(2, ("Copies", f"pairs of near-equal images, one trained on and the other validating: {pairs}"))
    if tested := check_shape(read_test(results.root), [LOOK], results.root / TEST):
        looks = ", ".join(f"{look['cell'] or look['run']}: Top-1 {look['top1']:.3f}" for look in tested)
        rows.append(("Test set", f"spent on {looks} ({tested[0]['when']})"))
    if changes:
        listed = (f"{name} = {value}" for name, value in changes.items())
        rows.insert(3, ("Set otherwise than the study's file", ", ".join(listed)))
    return rows
