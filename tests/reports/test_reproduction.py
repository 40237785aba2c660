"""What a report says of doing a study again: it must hold."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from bagoftricks.cli import parser
from bagoftricks.files import write_json
from bagoftricks.flags import recipe_changes
from bagoftricks.reports.reproduction import (
    STUDY_FILE,
    command,
    command_notes,
    environment_rows,
    hashes,
    is_preset,
    recipes_table,
    runs_table,
    study_file,
)
from bagoftricks.reports.results import Results, read_results
from bagoftricks.store import Store
from bagoftricks.studies.design import PRESETS
from bagoftricks.studies.study_file import load_study, parse_study, study_to_dict
from tests.reports.test_report import make_study


def adapted(root: Path, changes: dict[str, object], name: str = "paper") -> Results:
    """A made-up folder of a preset with changed fields."""
    make_study(root, seeds=2, preset=name, missing="")
    plan = json.loads((root / "plan.json").read_text())
    study = load_study(name).adapted(changes, 2)  # type: ignore[arg-type]
    write_json(root / "plan.json", {**plan, "study": study_to_dict(study)})
    return read_results(root)


def test_the_command_gives_the_same_study(tmp_path: Path) -> None:
    changes = {"epochs": 3, "init": "/home/somebody/resnet50.safetensors", "input.flip": False}
    results = adapted(tmp_path, changes)
    assert is_preset(results)
    text = command(results)
    assert "somebody" not in text
    words = shlex.split(text)
    options = parser(words[1:]).parse_args(words[1:])
    again = load_study(options.study).adapted(recipe_changes(options), options.seeds, options.metric)
    ours = parse_study(study_file(results))
    assert [cell.name for cell in again.cells] == [cell.name for cell in ours.cells]
    for one, two in zip(again.cells, ours.cells, strict=True):
        init = {"init": "resnet50.safetensors"}
        assert one.recipe.with_fields(init) == two.recipe.with_fields(init)  # type: ignore[arg-type]
    assert again.seeds == ours.seeds == (0, 1)
    assert (options.device, options.precision) == ("cpu", "fp32")
    assert any("initial weights" in note for note in command_notes(results))


@pytest.mark.parametrize("name", PRESETS)
def test_the_study_file_is_the_study(tmp_path: Path, name: str) -> None:
    results = read_results(make_study(tmp_path, seeds=1, preset=name, missing=""))
    ours, preset = parse_study(study_file(results)), load_study(name).adapted({"epochs": 3}, 1)
    assert ours.cells == preset.cells
    assert ours.tables == preset.tables
    assert ours.assumptions == preset.assumptions
    assert (ours.design, ours.metric, ours.seeds) == (preset.design, preset.metric, preset.seeds)


def test_what_is_no_preset_is_run_from_the_file_beside(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=1, preset="quickstart", missing="")
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["study"]["factors"]["schedule.decay"] = ["constant"]
    write_json(tmp_path / "plan.json", plan)
    results = read_results(tmp_path)
    assert not is_preset(results)
    assert command(results).startswith(f"tricks study {STUDY_FILE} --data ")
    assert "PATH/<i>photos</i>" in shlex.split(command(results))


def test_seeds_that_no_flag_can_name_are_told(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=1, preset="quickstart", missing="")
    plan = json.loads((tmp_path / "plan.json").read_text())
    write_json(tmp_path / "plan.json", {**plan, "study": {**plan["study"], "seeds": [3, 5]}})
    results = read_results(tmp_path)
    assert "--seeds" not in command(results)
    assert any("The seeds were 3, 5" in note for note in command_notes(results))


def test_runs_on_two_machines_are_told_apart(tmp_path: Path) -> None:
    results = read_results(make_study(tmp_path, seeds=2, preset="quickstart", missing=""))
    for run in results.done:
        environment = {"torch": "2.15.0", "cpu": "AVX2" if run.seed else "AVX512", "gpu": ""}
        write_json(Store(tmp_path).runs / run.id / "environment.json", environment)
    rows = dict(environment_rows(results))
    assert rows["torch"] == "2.15.0"
    assert rows["gpu"] == "none"
    assert sorted(rows["cpu"].split("; ")) == ["AVX2 (4 runs)", "AVX512 (4 runs)"]


def test_hashes_recipes_and_runs(tmp_path: Path) -> None:
    results = read_results(make_study(tmp_path, seeds=1, preset="quickstart", missing="l"))
    plan = {**results.plan, "data": {**results.plan["data"], "fingerprint": "ab" * 32}}
    about = {"source": "resnet50.safetensors", "sha256": "cd" * 32}
    runs = [results.runs[0], *results.runs[1:]]
    object.__setattr__(runs[0], "result", {**runs[0].result, "weights": about})
    known = Results(results.root, plan, tuple(runs))
    assert hashes(known) == [("Data, <i>photos</i>", "ab" * 32), ("Initial weights, resnet50.safetensors", "cd" * 32)]
    table = recipes_table(known)
    assert [entry.text for entry in table.rows[-1]] == ["c+l", "cosine", "0.1"]
    states = {row[0].text: [entry.text for entry in row[2:4]] for row in runs_table(known).rows}
    assert states["l"] == ["failed", "–"]
    assert states["baseline"] == ["done", "0.5000"]


def test_a_gpu_that_gave_the_same_bits_is_asked_for_them_again(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=1, preset="quickstart", missing="")
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert "--deterministic" not in command(read_results(tmp_path))
    write_json(tmp_path / "plan.json", {**plan, "hardware": {**plan["hardware"], "deterministic": True}})
    assert "--deterministic" in shlex.split(command(read_results(tmp_path)))


def test_a_message_shows_no_users_folder(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=1, preset="quickstart", missing="")
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["study"]["recipe"]["init"] = "/data/lab 7/resnet50.safetensors"
    write_json(tmp_path / "plan.json", plan)
    run = plan["runs"][0]
    shutil.rmtree(tmp_path / "runs" / run["id"])
    said = "/data/lab 7/resnet50.safetensors: no such file; see /home/alice/x.log, C:\\Users\\bob\\y"
    said += ", 'C:\\\\Users\\\\bob\\\\z'"  # as Python shows a path
    Store(tmp_path).record_failure(run["id"], run["cell"], said)
    (failed,) = (row for row in read_results(tmp_path).runs if row.state == "failed")
    assert failed.error == "resnet50.safetensors: no such file; see ~/x.log, ~\\y, '~\\\\z'"
