"""What `tricks study` and `tricks test` are asked for arrives where it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bagoftricks.cli import main
from bagoftricks.errors import UserError
from bagoftricks.studies import plan as planned
from bagoftricks.studies import run as module

SMALL = ("--seeds", "1", "--epochs", "1", "--model.depth", "10", "--input.size", "32")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What planning and executing are called with; nothing is executed."""
    seen: dict[str, Any] = {}
    plan_study = planned.plan_study

    def plan(study: Any, data: Any, **options: Any) -> Any:
        seen.update(study=study, data=data, **options)
        return plan_study(study, data, **options)

    def execute(plan: Any, out: Path, **options: Any) -> str:
        seen.update(out=out, **options)
        raise UserError("enough")

    monkeypatch.setattr("bagoftricks.studies.cost._probe", lambda run, plan: (100.0, 2**30))
    monkeypatch.setattr(planned, "plan_study", plan)
    monkeypatch.setattr(module, "execute_plan", execute)
    return seen


def test_every_flag_of_a_study_arrives(
    told: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (
        "--data digits --metric macro_f1 --jobs 2 --device cpu --precision bf16 --kernels torch --deterministic "
        "--allow-corrupt 0.3 --keep best --no-samples --retries 7 --stall-minutes 3.5"
    )
    assert main(["study", "quickstart", *SMALL, "--out", str(tmp_path / "out"), *flags.split()]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("enough")
    study = told.pop("study")
    assert (study.metric, study.seeds, study.recipe.epochs, study.recipe.model.depth) == ("macro_f1", (0,), 1, 10)
    for callback in ("on_hash", "on_event", "on_image"):
        assert callable(told.pop(callback))
    assert told == {
        "data": "digits",
        "out": tmp_path / "out",
        "jobs": 2,
        "device": "cpu",
        "precision": "bf16",
        "kernels": "torch",
        "deterministic": True,
        "allow_corrupt": 0.3,
        "keep": "best",
        "samples": False,
        "retries": 7,
        "stall_minutes": 3.5,
    }


def test_a_study_without_flags_is_the_usual_one(told: dict[str, Any], tmp_path: Path) -> None:
    assert main(["study", "quickstart", *SMALL, "--out", str(tmp_path / "out")]) == 2
    usual = {name: told[name] for name in ("keep", "samples", "retries", "stall_minutes", "allow_corrupt", "kernels")}
    assert usual == {
        "keep": "none",
        "samples": True,
        "retries": 2,
        "stall_minutes": 10.0,
        "allow_corrupt": 0.1,
        "kernels": "auto",
    }


@pytest.mark.parametrize("flags", [[], ["--cell", "c", "--against", "baseline", "--again"]])
def test_every_flag_of_a_test_arrives(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def measure(folder: Path, data: str, **options: Any) -> Any:
        seen.update(folder=folder, data=data, **options)
        raise UserError("enough")

    monkeypatch.setattr("bagoftricks.training.final.measure_test", measure)
    assert main(["test", str(tmp_path), "--data", "digits", "--device", "cpu", "--precision", "fp32", *flags]) == 2
    hardware = seen.pop("hardware")
    assert (hardware.device, hardware.precision) == ("cpu", "fp32")
    cell, against = ("c", "baseline") if flags else (None, None)
    asked = {"cell": cell, "against": against, "again": bool(flags)}
    assert seen == {"folder": tmp_path, "data": "digits", **asked}
