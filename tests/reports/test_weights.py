from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bagoftricks.reports.analysis import study_analysis
from bagoftricks.reports.report import write_report
from bagoftricks.reports.results import read_results
from bagoftricks.reports.verdicts import sentences
from bagoftricks.reports.weights import NOTE
from tests.reports.made_up import make_many

FACTORS: dict[str, list[Any]] = {"model.tweaks": ["B", "A", "BC"], "schedule.decay": ["constant", "cosine"]}


def warn(root: Path, tweaks: str) -> None:
    """Has the runs of an architecture say that their weights came from another one."""
    plan = json.loads((root / "plan.json").read_text())
    cells = {cell["name"]: cell["levels"]["model.tweaks"] for cell in plan["cells"]}
    for run in plan["runs"]:
        if cells[run["cell"]] == tweaks:
            path = root / "runs" / run["id"] / "result.json"
            result = json.loads(path.read_text())
            result["weights"] = {"warning": "the initial weights were trained in architecture B, not A"}
            path.write_text(json.dumps(result))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_many(tmp_path, FACTORS, 5, 1)


def test_effects_of_a_mismatched_architecture_say_so(study: Path) -> None:
    warn(study, "A")
    analysis = study_analysis(read_results(study))
    assert analysis is not None
    for effect in analysis.effects:
        levels = dict(zip(effect.factors, effect.levels, strict=True)).get("model.tweaks", ())
        assert (NOTE in effect.notes) == ("A" in levels), effect.name
    assert any(NOTE in effect.notes for effect in analysis.effects)
    assert any(f"[{NOTE}]" in line for line in sentences(analysis))
    page = write_report(study).read_text(encoding="utf-8")
    assert NOTE in page
    assert "trained in architecture B, not A" in page


def test_without_a_mismatch_nothing_is_said(study: Path) -> None:
    analysis = study_analysis(read_results(study))
    assert analysis is not None
    assert not any(NOTE in effect.notes for effect in analysis.effects)


def test_in_a_ladder_the_steps_between_architectures_say_so(study: Path) -> None:
    path = study / "plan.json"
    plan = json.loads(path.read_text())
    names = [cell["name"] for cell in plan["cells"]]
    plan["study"]["design"] = "ladder"
    path.write_text(json.dumps(plan))
    warn(study, "BC")
    analysis = study_analysis(read_results(study))
    assert analysis is not None
    tweaks = {cell["name"]: cell["levels"]["model.tweaks"] for cell in plan["cells"]}
    assert len(analysis.effects) == len(names) - 1
    for effect in analysis.effects:
        later, earlier = effect.levels[0]
        expected = tweaks[later] != tweaks[earlier] and "BC" in (tweaks[later], tweaks[earlier])
        assert (NOTE in effect.notes) == expected, effect.name
