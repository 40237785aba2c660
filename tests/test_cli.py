from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bagoftricks.cli import _take_any_text, main
from tests.reports.test_report import make_study

SMALL = ["--size", "32", "--model.depth", "10", "--model", "A", "--epochs", "1", "--batch-size", "8"]


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("tricks: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "COMMAND"),
        (("stady",), "invalid choice: 'stady'"),
        (("study", "papr"), "unknown preset 'papr': did you mean 'paper'?"),
        (("study", "paper"), "names no data: pass --data"),
        (("study", "paper", "--data", "nowhere"), "data folder nowhere: no such folder"),
        (("study", "paper", "--data", "digits"), "pass --init with a file of ImageNet weights"),
        (("study", "paper", "--sede", "3"), "unknown flag '--sede': did you mean '--seeds'?"),
        (("study", "paper", "--optimizer.rl", "3"), "did you mean '--optimizer.lr'?"),
        (("study", "paper", "--seeds", "x"), "invalid int value: 'x'"),
        (("study", "quickstart", "--seeds", "0"), "--seeds 0: must be between 1"),
        (("study", "quickstart", "--jobs", "0"), "--jobs 0: must be at least 1"),
        (("study", "quickstart", "--epochs", "0"), "epochs = 0: must be between"),
        (("study", "quickstart", "--lr", "fast"), "optimizer.lr = fast: must be a number"),
        (("study", "quickstart", "--batch-size", "5000"), "larger than the training set of 1438"),
        (("study", "quickstart", "--init", "none.pth"), "initial weights none.pth: no such file"),
        (("study", "quickstart", "--smoothing", "0.2"), "is a factor of study 'quickstart'"),
        (("study", "quickstart", "--device", "tpu"), "device 'tpu' is not here"),
        (("study", "quickstart", "--max-hours", "nan"), "--max-hours nan: must be above 0"),
        (("study", "quickstart", "--trim"), "--trim: says nothing without --max-hours"),
        (("study", "none.toml"), "study none.toml: no such file"),
        (("train", "--data", "digits", "--model", "BQ"), "unknown model.tweaks 'BQ'"),
        (("train", "--data", "digits", "--recipe", "none.toml"), "recipe none.toml: no such file"),
        (("train",), "--data"),
        (("status", "nowhere"), "no plan.json in it"),
        (("status", "nowhere", ""), "unrecognized arguments: ; see tricks status --help"),
        (("train", "--data", ""), "data '': the name of a folder is empty"),
        (("report", "nowhere"), "no plan.json in it"),
        (("models", "--depth", "51"), "model.depth = 51"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("terminal", [False, True])
def test_names_are_written_where_the_encoding_lacks_their_characters(terminal: bool) -> None:
    """As under Windows, whose files have another one than UTF-8."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="cp1252")
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    _take_any_text(stream)
    stream.write("\N{CJK UNIFIED IDEOGRAPH-732B}.jpg")
    stream.flush()
    assert raw.getvalue() == (b"\\u732b.jpg" if terminal else "\N{CJK UNIFIED IDEOGRAPH-732B}.jpg".encode())


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert {"name", "tweaks", "parameters", "multiply_adds"} <= set(rows[0])
    assert [row["tweaks"] for row in rows] == ["A", "B", "C", "D", "BC", "BD", "CD", "BCD", "BE", "BF", "BCDEF"]
    assert main(["models", "--depth", "18"]) == 0
    assert "ResNet-18-CD" in capsys.readouterr().out


def test_a_dry_run_says_the_cost_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    arguments = [
        "study",
        "paper",
        "--data",
        str(photos),
        "--init",
        "scratch",
        "--size",
        "32",
        "--batch-size",
        "8",
        "--seeds",
        "2",
        "--dry-run",
    ]
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (len(plan["cells"]), len(plan["runs"])) == (18, 36)
    assert plan["cost"]["seconds"] > 0
    assert main(arguments) == 0
    out, error = capsys.readouterr()
    assert out == ""
    assert "18 cells x 2 seeds = 36 runs" in error
    assert "36 runs to do, about" in error
    assert sorted(tmp_path.rglob("*")) == before


def test_train_keeps_a_model(capsys: pytest.CaptureFixture[str], tmp_path: Path, photos: Path) -> None:
    arguments = ["train", "--data", str(photos), "--out", str(tmp_path / "out"), *SMALL]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert "top5" not in result
    assert (Path(result["folder"]) / "model.safetensors").is_file()
    assert main(arguments) == 0
    assert "Top-1" in capsys.readouterr().out


def test_a_failing_training_gives_status_1(capsys: pytest.CaptureFixture[str], tmp_path: Path, photos: Path) -> None:
    breaks = ["--opt", "sgd", "--lr", "100", "--schedule.decay", "constant", "--epochs", "9"]
    assert main(["train", "--data", str(photos), "--out", str(tmp_path / "out"), *SMALL, *breaks]) == 1
    assert "loss became" in capsys.readouterr().err


def test_a_study_with_a_failed_run_gives_status_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photos: Path
) -> None:
    (tmp_path / "breaks.toml").write_text("[factors]\n'optimizer.lr' = [100.0]")
    breaks = ["--opt", "sgd", "--schedule.decay", "constant", "--epochs", "9"]
    arguments = ["study", str(tmp_path / "breaks.toml"), "--data", str(photos), "--out", str(tmp_path / "out")]
    assert main([*arguments, *SMALL, *breaks, "--json"]) == 1
    out, error = capsys.readouterr()
    result = json.loads(out)
    assert (result["done"], result["failed"], result["report"]) == (0, 1, None)
    assert "loss became" in result["runs"][0]["error"]
    assert "baseline seed 0: FAILED: the" in error


def test_status_and_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make_study(tmp_path, seeds=1)
    assert main(["status", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "Failed: B+m seed 0: it <b>broke</b>" in text
    assert main(["status", str(tmp_path), "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["done"], state["failed"], len(state["cells"]), len(state["runs"])) == (17, 1, 18, 18)
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "elsewhere")]) == 0
    text = capsys.readouterr().out
    assert "Table 1: architecture tweaks" in text
    assert f"Report: {tmp_path / 'elsewhere' / 'report.html'}\n" in text


def test_what_is_unexpected_is_one_line_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bagoftricks.reports.results.read_results", lambda root: 1 / 0)
    assert main(["status", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "tricks: unexpected ZeroDivisionError: division by zero; --debug shows where\n"
    with pytest.raises(ZeroDivisionError):
        main(["status", str(tmp_path), "--debug"])


def test_the_console_script() -> None:
    done = subprocess.run([str(Path(sys.executable).with_name("tricks")), "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("bagoftricks ")
    done = subprocess.run([sys.executable, "-m", "bagoftricks.cli", "nonsense"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("tool", ["tensorboard", "mlflow", "wandb"])
def test_trainings_are_logged(photos: Path, tmp_path: Path, tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(tool)
    out = tmp_path / "out"
    assert main(["train", "--data", str(photos), "--out", str(out), "--log", tool, *SMALL]) == 0
    written = {path for path in (out / "logs" / tool).rglob("*") if path.is_file()}
    assert written
    sizes = {path: path.stat().st_size for path in written}
    assert main(["train", "--data", str(photos), "--out", str(out), "--log", tool, *SMALL]) == 0  # found, not repeated
    if tool == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        assert {path: path.stat().st_size for path in sizes} == sizes
        (run,) = {path.parent for path in written if "tfevents" in path.name}
        events = EventAccumulator(str(run)).Reload()
        assert "final/top1" in events.Tags()["scalars"]
    assert "Warning" not in capsys.readouterr().err


def test_a_study_is_logged(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    study = tmp_path / "s.toml"
    study.write_text('seeds = 2\n[factors]\n"mixup.alpha" = [0.0, 0.2]\n')
    out = tmp_path / "out"
    arguments = ["study", str(study), "--data", str(photos), "--out", str(out), "--jobs", "2", "--log", "tensorboard"]
    assert main([*arguments, *SMALL]) == 0
    runs = sorted({path.parent for path in (out / "logs").rglob("*tfevents*")})
    assert len(runs) == 4
    for run in runs:
        events = EventAccumulator(str(run)).Reload()
        assert [event.step for event in events.Scalars("final/top1")] == [1]


def test_who_stops_reading_ends_the_command_in_peace() -> None:
    """As `| head -1` does: rich would end the process as failed."""
    with subprocess.Popen(
        [sys.executable, "-m", "bagoftricks", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == ("", 0)


def test_notes_that_nobody_reads_do_not_end_the_work() -> None:
    code = "from bagoftricks.console import note\nfor i in range(3): note('looked at')\nprint('went on')"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.close()
        assert (process.stdout.read(), process.wait(60)) == ("went on\n", 0)
