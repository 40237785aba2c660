from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagoftricks.cli import main
from bagoftricks.studies.inference import detectable, seeds_needed
from bagoftricks.studies.planning import upper_sd
from tests.reports.test_report import make_study

DECAY = "schedule.decay: cosine - constant"
SMOOTHING = "label_smoothing.amount: 0.1 - 0.0"


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quickstart of five seeds with made-up noise; every run took a minute."""
    return make_noisy(tmp_path_factory.mktemp("pilot"), "quickstart")


def make_noisy(root: Path, study: str) -> Path:
    make_study(root, preset=study, seeds=5, missing="")
    rng = np.random.default_rng(0)
    for path in sorted(root.glob("runs/*/result.json")):
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"top1": 0.8 + float(rng.normal(0, 0.01))}))
    return root


def planned(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["plan", *map(str, arguments), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["plan", *map(str, arguments)]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_stated_sd(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "quickstart", "--sd", 1, "--effect", 0.5, 1)
    assert plan["family"]["tests"] == 3
    assert [need["seeds"] for need in plan["needs"]] == [seeds_needed(e, 1.0, tests=3) for e in (0.5, 1.0)]
    assert [need["runs"] for need in plan["needs"]] == [4 * need["seeds"] for need in plan["needs"]]
    assert (plan["cost"], plan["within"], plan["for_all"]) == (None, None, [])
    text = said(capsys, "quickstart", "--sd", 1)
    assert "Study quickstart: 4 cells, 3 declared effects (Holm), by top1" in text
    assert "standard deviation between seeds of the difference that one effect makes" in text


def test_without_an_sd_there_is_a_table_over_some(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "paper")
    assert [(need["points"], need["sd"]) for need in plan["needs"]] == [
        (e, sd) for e in (0.5, 1.0, 2.0) for sd in (0.25, 0.5, 1.0, 2.0)
    ]
    assert all(need["seeds"] >= 5 for need in plan["needs"])


def test_stated_seconds_and_hours(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("quickstart", "--sd", 1, "--seconds-per-run", 90, "--hours", 1, "--jobs", 2)
    plan = planned(capsys, *arguments)
    assert plan["needs"][0]["hours"] == pytest.approx(plan["needs"][0]["seeds"] * 4 * 90 / 2 / 3600)
    assert (plan["within"]["seeds"], plan["within"]["runs"]) == (20, 80)
    (find,) = plan["within"]["finds"]
    assert find["corrected"] == pytest.approx(detectable(20, tests=3))
    assert find["alone"] == pytest.approx(detectable(20))
    assert "In 60 min: 20 seeds (80 runs, 60 min)." in said(capsys, *arguments)


def test_too_few_hours_for_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    fixed = ("quickstart", "--sd", 1, "--seconds-per-run", 90)
    text = said(capsys, *fixed, "--hours", 0.3)
    assert "3 seeds (12 runs, 18 min); exploratory, without a verdict: 5 seeds take 30 min." in text
    assert "In 36 s: not one seed fits; exploratory" in said(capsys, *fixed, "--hours", 0.01)


def test_a_pilot(capsys: pytest.CaptureFixture[str], pilot: Path) -> None:
    plan = planned(capsys, "quickstart", "--pilot", pilot, "--effect", 1, "--hours", 1)
    tops = {
        tuple(path.parent.name.rsplit("-", 1)): json.loads(path.read_text())["top1"]
        for path in pilot.glob("runs/*/result.json")
    }
    d = [50 * (tops["c", s] + tops["c+l", s] - tops["baseline", s] - tops["l", s]) for s in "01234"]
    sd = float(np.std(d, ddof=1))
    first, upper = plan["sds"][:2]
    assert (first["effect"], first["source"], first["blocks"]) == (DECAY, "pilot", 5)
    assert first["points"] == pytest.approx(sd)
    assert upper["points"] == pytest.approx(upper_sd(sd, 5))
    assert plan["needs"][0]["seeds"] == max(5, seeds_needed(1.0, sd, tests=3))
    assert plan["needs"][1]["seeds"] == max(5, seeds_needed(1.0, upper_sd(sd, 5), tests=3))
    each = [need for need in plan["needs"] if need["source"] == "upper limit"]
    assert plan["for_all"][1]["seeds"] == max(need["seeds"] for need in each)
    assert plan["cost"]["seconds_per_seed"] == pytest.approx(240)
    assert plan["cost"]["source"] == "pilot"
    assert plan["within"]["seeds"] == 15
    assert len(plan["within"]["finds"]) == 6
    text = said(capsys, "quickstart", "--pilot", pilot)
    assert "60 s a run (pilot, cpu, fp32, 1 thread a run)" in text
    assert "plan on its upper limit (one-sided, 80% confidence, chi-square)" in text


def test_a_pilot_on_a_gpu_promises_nothing_of_runs_side_by_side(
    capsys: pytest.CaptureFixture[str], pilot: Path, tmp_path: Path
) -> None:
    shutil.copytree(pilot, tmp_path / "gpu")
    plan = json.loads((pilot / "plan.json").read_text())
    plan["hardware"]["device"] = "cuda"
    (tmp_path / "gpu" / "plan.json").write_text(json.dumps(plan))
    counts = [
        planned(capsys, "quickstart", "--pilot", tmp_path / "gpu", "--hours", 1, "--jobs", jobs)["within"]["seeds"]
        for jobs in (1, 4)
    ]
    assert counts == [15, 15]


def test_a_pilot_that_tells_no_sd_still_tells_the_cost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make_study(tmp_path, preset="quickstart", seeds=1, missing="")
    plan = planned(capsys, "quickstart", "--pilot", tmp_path)
    assert {sd["source"] for sd in plan["sds"]} == {"assumed"}
    assert plan["cost"]["seconds_per_seed"] == pytest.approx(240)
    assert any("the pilot tells no sd of this" in note for note in plan["notes"])
    stated = planned(capsys, "quickstart", "--pilot", tmp_path, "--sd", 2)
    assert [sd["points"] for sd in stated["sds"]] == [2.0]


def test_a_part_of_a_pilot(capsys: pytest.CaptureFixture[str], pilot: Path, tmp_path: Path) -> None:
    """Blocks that lack a run do not count; where a cell is missing in all, no declared effect is left."""
    part = tmp_path / "part"
    shutil.copytree(pilot, part)
    for seed in range(3):
        shutil.rmtree(part / "runs" / f"c+l-{seed}")
    assert {sd["blocks"] for sd in planned(capsys, "quickstart", "--pilot", part)["sds"]} == {2}
    shutil.rmtree(part / "runs" / "c+l-3")
    notes = planned(capsys, "quickstart", "--pilot", part)["notes"]
    assert any("the pilot tells no sd of this study's effects" in note for note in notes)
    shutil.rmtree(part / "runs" / "c+l-4")
    plan = planned(capsys, "quickstart", "--pilot", part)
    assert {sd["source"] for sd in plan["sds"]} == {"assumed"}
    assert plan["cost"]["seconds_per_seed"] == pytest.approx(240)


def test_a_pilot_of_one_change_at_a_time(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Its report names each effect in fewer words than a plan does."""
    study = tmp_path / "one.toml"
    study.write_text(
        'design = "one-at-a-time"\n[factors]\n"mixup.alpha" = [0.0, 0.2]\n"label_smoothing.amount" = [0.0, 0.1]\n'
    )
    plan = planned(capsys, study, "--pilot", make_noisy(tmp_path / "pilot", str(study)))
    assert [sd["source"] for sd in plan["sds"]] == ["pilot", "upper limit"] * 2
    assert not any("not in the pilot" in note for note in plan["notes"])


def test_a_pilot_with_other_settings_is_told(capsys: pytest.CaptureFixture[str], pilot: Path, tmp_path: Path) -> None:
    from bagoftricks.studies.study_file import load_study

    other = tmp_path / "other"
    shutil.copytree(pilot, other)
    plan = json.loads((other / "plan.json").read_text())
    cells = load_study("quickstart").adapted({"epochs": 1}).cells
    plan["cells"] = [
        {"name": cell.name, "levels": dict(cell.levels), "recipe": cell.recipe.canonical()} for cell in cells
    ]
    (other / "plan.json").write_text(json.dumps(plan))
    assert "other settings (epochs 1, not 2)" in said(capsys, "quickstart", "--pilot", other)


def test_measured_on_this_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The quickstart needs no weights; a study that starts from some is measured without them."""
    (tmp_path / "mine.toml").write_text(
        'design = "ladder"\n[recipe]\nepochs = 1\nmodel = { tweaks = "A", depth = 18 }\ninput = { size = 32 }\n'
        'init = "imagenet"\n[factors]\n"mixup.alpha" = [0.0, 0.2]\n'
    )
    plan = planned(capsys, tmp_path / "mine.toml", "--data", "digits", "--device", "cpu", "--hours", 3)
    cost = plan["cost"]
    assert cost["source"] == "measured now"
    assert 0 < cost["longest"] <= cost["seconds_per_seed"]
    assert cost["machine"].startswith("cpu, ")
    assert plan["within"]["seeds"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "STUDY"),
        (("papr",), "did you mean 'paper'?"),
        (("paper", "--effect", "0"), "--effect 0: must be other than 0"),
        (("paper", "--effect", "x"), "invalid float value: 'x'"),
        (("paper", "--power", "1"), "--power 1: must be"),
        (("paper", "--sd", "0"), "--sd 0: must be above 0"),
        (("paper", "--sd", "nan"), "--sd nan"),
        (("paper", "--hours", "3"), "--hours: needs the cost of a run; pass --pilot, --data or --seconds-per-run"),
        (("paper", "--sd", "1", "--device", "cuda"), "--device: says nothing without --data"),
        (("paper", "--sd", "1", "--deterministic"), "--deterministic: says nothing without --data"),
        (("paper", "--hours", "0", "--seconds-per-run", "60"), "--hours 0: must be above 0"),
        (("paper", "--hours", "nan", "--seconds-per-run", "60"), "--hours nan: must be above 0"),
        (("paper", "--seconds-per-run", "-3"), "--seconds-per-run -3: must be above 0"),
        (("paper", "--seconds-per-run", "60", "--data", "digits"), "stated or measured, one or the other"),
        (("paper", "--jobs", "0"), "--jobs 0: must be at least 1"),
        (("paper", "--pilot", "nowhere"), "no plan.json in it"),
        (("paper", "--data", "nowhere"), "no such folder"),
    ],
)
def test_bad_requests(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert message.lower() in error.lower()
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_pilots_that_do_not_fit(capsys: pytest.CaptureFixture[str], pilot: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[factors]\n"optimizer.weight_decay" = [0.0, 0.1]\n')
    assert main(["plan", str(tmp_path / "mine.toml"), "--pilot", str(pilot)]) == 2
    assert "measured no effect of study 'mine'" in capsys.readouterr().err
    (tmp_path / "other.toml").write_text('metric = "macro_f1"\n[factors]\n"schedule.decay" = ["constant", "cosine"]\n')
    assert main(["plan", str(tmp_path / "other.toml"), "--pilot", str(pilot)]) == 2
    assert "its runs lack macro_f1" in capsys.readouterr().err
    empty = make_study(tmp_path / "empty", preset="quickstart", seeds=1, missing="")
    shutil.rmtree(empty / "runs")
    assert main(["plan", "quickstart", "--pilot", str(empty)]) == 2
    assert "no run in it is finished" in capsys.readouterr().err
