"""Every log is read back with its tool's own reader, where there is one."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bagoftricks.errors import RunError, UserError
from bagoftricks.loggers import LOGGERS, Loggers, open_loggers
from bagoftricks.loggers.base import LoggedRun, file_name, series
from bagoftricks.recipe import Recipe

A, B = "aaaaaaaaaaaaaaa1", "bbbbbbbbbbbbbbb2"
CONFIG = {"epochs": 3, "mixup.alpha": 0.2, "input.flip": True, "model.tweaks": "BCD"}


def row(epoch: int, loss: float) -> dict[str, float]:
    return {"epoch": epoch, "lr": 0.1 / epoch, "train_loss": loss, "eval_top1": 1 - loss, "images_per_s": 100.0}


def study(folder: Path, names: tuple[str, ...], project: str = "paper") -> None:
    """Two cells trained at the same time; the second fails in its second epoch."""
    with open_loggers(names, folder, project) as logs:
        logs.start(A, "B seed 0", CONFIG, cell="B", seed=0)
        logs.start(B, "B+mixup seed 0", CONFIG | {"mixup.alpha": 0.5}, cell="B+mixup", seed=0)
        logs.epoch(A, row(1, 0.5))
        logs.epoch(B, row(1, 0.75))
        logs.epoch(A, row(2, 0.25))
        logs.finish(B, {}, "failed")
        logs.epoch(A, row(3, 0.125))
        logs.finish(A, {"top1": 0.875, "loss": 0.125, "weights": "scratch"}, "done")


# what all of them share


class Recorder:
    """A logger that keeps what it is told, and raises when told to."""

    def __init__(self, fails: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails = fails

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] == self.fails:
            raise OSError("disk full\nand more")

    def start(self, run: LoggedRun) -> None:
        self._note("start", run.id, run.cell, run.seed)

    def epoch(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        self._note("epoch", run_id, step, dict(values))

    def finish(self, run_id: str, step: int, values: Mapping[str, float], status: str) -> None:
        self._note("finish", run_id, step, dict(values), status)

    def close(self) -> None:
        self._note("close")


def test_a_run_is_opened_by_its_first_epoch() -> None:
    recorder = Recorder()
    with Loggers({"recorder": recorder}) as logs:
        logs.start(A, "B seed 0", CONFIG, cell="B", seed=0)
        logs.start(B, "busy elsewhere", CONFIG, cell="B", seed=1)
        assert recorder.calls == []
        logs.epoch(A, {"epoch": 1, "train_loss": 0.5})
        logs.finish(A, {"top1": 0.5}, "done")
    assert recorder.calls == [
        ("start", A, "B", 0),
        ("epoch", A, 1, {"train/loss": 0.5}),
        ("finish", A, 1, {"final/top1": 0.5}, "done"),
        ("close",),
    ]


def test_what_is_open_at_the_end_was_interrupted() -> None:
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt), Loggers({"recorder": recorder}) as logs:
        logs.start(A, "B seed 0", CONFIG, cell="B", seed=0)
        logs.epoch(A, {"epoch": 4, "train_loss": 0.5})
        raise KeyboardInterrupt
    assert recorder.calls[2:] == [("finish", A, 4, {}, "interrupted"), ("close",)]


def test_a_run_that_fails_elsewhere_or_before_it_begins_leaves_no_trace() -> None:
    recorder = Recorder()
    with Loggers({"recorder": recorder}) as logs:
        logs.finish(A, {}, "failed")
    assert recorder.calls == [("close",)]


@pytest.mark.parametrize("fails", ["start", "epoch", "finish", "close"])
def test_a_logger_that_fails_is_switched_off_with_one_warning(capsys: pytest.CaptureFixture[str], fails: str) -> None:
    bad, good = Recorder(fails), Recorder()
    with Loggers({"bad": bad, "good": good}) as logs:
        for run_id in (A, B):
            logs.start(run_id, run_id, CONFIG, cell="B", seed=0)
            logs.epoch(run_id, {"epoch": 1, "train_loss": 0.5})
            logs.finish(run_id, {}, "done")
    assert [call[0] for call in good.calls] == ["start", "epoch", "finish"] * 2 + ["close"]
    out, error = capsys.readouterr()
    assert (out, error) == ("", "Warning: the log to bad is switched off: disk full\n")
    assert sum(call[0] == fails for call in bad.calls) == (2 if fails == "close" else 1)


def test_names() -> None:
    assert series({"epoch": 2, "lr": 1, "train_loss": 0.5, "eval_top1": 0.25, "note": "x", "none": None}) == {
        "lr": 1.0,
        "train/loss": 0.5,
        "eval/top1": 0.25,
    }
    assert file_name("B+mixup, alpha 0.2/x seed 0") == "B+mixup_alpha_0.2_x_seed_0"
    assert file_name("../..") == "_"
    assert len(file_name("x" * 300)) == 50
    assert file_name("") == "run"


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown logger 'tensorbord': did you mean 'tensorboard'"):
        open_loggers(["tensorbord"], tmp_path, "paper")
    with pytest.raises(ValueError, match="status 'ok'"):
        open_loggers([], tmp_path, "paper").finish(A, {}, "ok")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LOGGERS)
def test_an_absent_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"pip install .*\[{name}\]'") as caught:
        open_loggers([name], tmp_path, "paper")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_loggers_need_no_torch(tmp_path: Path) -> None:
    for name in LOGGERS:
        pytest.importorskip(name)
    code = (
        "import sys\nfrom pathlib import Path\nfrom bagoftricks.loggers import open_loggers\n"
        "with open_loggers(['tensorboard', 'wandb'], Path(sys.argv[1]), 'paper') as logs:\n"
        "    logs.start('a', 'a', {'epochs': 1}, cell='B', seed=0)\n"
        "    logs.epoch('a', {'epoch': 1, 'train_loss': 0.5})\n"
        "assert not {'torch', 'tensorflow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (file,) = (tmp_path / "logs" / "wandb").glob("offline-run-*/run-a.wandb")
    assert wandb_run(file)["exit"] == 130  # complete when the process has ended


# TensorBoard


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, pytest.approx(e.value)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def hparams(folder: Path) -> dict[str, Any]:
    """What TensorBoard's HPARAMS tab shows: a row for each cell."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    context = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder))))
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        aggregation_type=api_pb2.AGGREGATION_AVG,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_UNKNOWN],
        include_metrics=True,
    )
    experiment = context.experiment_from_metadata(
        RequestContext(), "", True, context.hparams_metadata(RequestContext(), ""), []
    )
    for info in experiment.hparam_infos:
        request.col_params.add(hparam=info.name)
    for info in experiment.metric_infos:
        request.col_params.add(metric=info.name)
    groups = list_session_groups.Handler(RequestContext(), context, "", request).run().session_groups
    return {
        group.hparams["cell"].string_value: {
            "hparams": {
                name: getattr(value, value.WhichOneof("kind") or "", None) for name, value in group.hparams.items()
            },
            "metrics": {metric.name.tag: metric.value for metric in group.metric_values},
            "status": [api_pb2.Status.Name(session.status) for session in group.sessions],
        }
        for group in groups
    }


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    study(tmp_path, ("tensorboard",))
    root = tmp_path / "logs" / "tensorboard"
    assert sorted(folder.name for folder in root.iterdir()) == [f"B+mixup_seed_0-{B}", f"B_seed_0-{A}"]
    first = scalars(root / f"B_seed_0-{A}")
    assert first["train/loss"] == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert first["eval/top1"] == [(1, 0.5), (2, 0.75), (3, 0.875)]
    assert first["final/top1"] == [(3, 0.875)]
    assert set(first) == {"lr", "train/loss", "eval/top1", "images_per_s", "final/top1", "final/loss"}
    assert scalars(root / f"B+mixup_seed_0-{B}")["train/loss"] == [(1, 0.75)]


def test_tensorboard_compares_cells(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    study(tmp_path, ("tensorboard",))
    with open_loggers(["tensorboard"], tmp_path, "paper") as logs:  # another seed of the first cell
        logs.start("c", "B seed 1", CONFIG, cell="B", seed=1)
        logs.epoch("c", row(3, 0.375))
        logs.finish("c", {"top1": 0.625}, "done")
    rows = hparams(tmp_path / "logs" / "tensorboard")
    assert set(rows) == {"B", "B+mixup"}
    assert rows["B"]["status"] == ["STATUS_SUCCESS"] * 2
    assert rows["B"]["metrics"]["final/top1"] == pytest.approx((0.875 + 0.625) / 2)
    assert rows["B"]["hparams"] == {"cell": "B", **CONFIG}
    assert rows["B+mixup"]["hparams"]["mixup.alpha"] == 0.5
    assert rows["B+mixup"]["status"] == ["STATUS_FAILURE"]


def test_tensorboard_continues(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    study(tmp_path, ("tensorboard",))
    time.sleep(1.1)  # event files are ordered by the second of their start
    with open_loggers(["tensorboard"], tmp_path, "paper") as logs:  # B failed after epoch 1: starts over
        logs.start(B, "B and mixup, seed 0", CONFIG | {"mixup.alpha": 0.5}, cell="B+mixup", seed=0)
        logs.epoch(B, row(1, 0.75))
        logs.epoch(B, row(2, 0.625))
        logs.finish(B, {"top1": 0.375}, "done")
    root = tmp_path / "logs" / "tensorboard"
    assert len(list(root.iterdir())) == 2
    assert scalars(root / f"B+mixup_seed_0-{B}")["train/loss"] == [(1, 0.75), (2, 0.625)]
    assert hparams(root)["B+mixup"]["status"] == ["STATUS_SUCCESS"]


# MLflow


@pytest.fixture(scope="module")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all of them: setting one up takes seconds."""
    for module in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(module)
    return tmp_path_factory.mktemp("a folder é")


def mlflow_runs(folder: Path, project: str) -> tuple[Any, dict[str, Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'logs' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(project)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len({run.data.tags["bagoftricks.run_id"] for run in runs}) == len(runs)
    return client, {run.data.tags["bagoftricks.run_id"]: run for run in runs}


def history(client: Any, run: Any, metric: str) -> list[tuple[int, float]]:
    return [(entry.step, entry.value) for entry in client.get_metric_history(run.info.run_id, metric)]


def test_mlflow(mlflow_folder: Path) -> None:
    study(mlflow_folder, ("mlflow",), "first")
    client, runs = mlflow_runs(mlflow_folder, "first")
    assert set(runs) == {A, B}
    assert runs[A].info.run_name == "B seed 0"
    assert (runs[A].info.status, runs[B].info.status) == ("FINISHED", "FAILED")
    assert runs[A].data.params == {"epochs": "3", "mixup.alpha": "0.2", "input.flip": "True", "model.tweaks": "BCD"}
    assert runs[B].data.params["mixup.alpha"] == "0.5"
    assert (runs[B].data.tags["cell"], runs[B].data.tags["seed"]) == ("B+mixup", "0")
    assert history(client, runs[A], "train/loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert history(client, runs[B], "train/loss") == [(1, 0.75)]
    assert history(client, runs[A], "final/top1") == [(3, 0.875)]
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_mlflow_continues(mlflow_folder: Path) -> None:
    study(mlflow_folder, ("mlflow",), "second")
    with open_loggers(["mlflow"], mlflow_folder, "second") as logs:
        logs.start(B, "B+mixup seed 0", CONFIG | {"mixup.alpha": 0.5}, cell="B+mixup", seed=0)
        logs.epoch(B, row(1, 0.75))
        client, runs = mlflow_runs(mlflow_folder, "second")
        assert runs[B].info.status == "RUNNING"
        logs.epoch(B, row(2, 0.625))
    client, runs = mlflow_runs(mlflow_folder, "second")
    assert set(runs) == {A, B}
    assert history(client, runs[B], "train/loss") == [(1, 0.75), (2, 0.625)]
    assert runs[B].info.status == "KILLED"


def test_mlflow_takes_every_recipe_field(mlflow_folder: Path) -> None:
    config = Recipe().flat() | {f"more.{i}": i for i in range(150)}
    with open_loggers(["mlflow"], mlflow_folder, "fields") as logs:
        logs.start(A, "B seed 0", config, cell="B", seed=0)
        logs.epoch(A, row(1, 0.5))
    _, runs = mlflow_runs(mlflow_folder, "fields")
    assert runs[A].data.params == {name: str(value) for name, value in config.items()}


def test_mlflow_that_cannot_be_opened(tmp_path: Path) -> None:
    for module in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(module)
    (tmp_path / "logs").write_text("in the way")
    with pytest.raises(RunError, match="log to mlflow, below .*logs: .*"):
        open_loggers(["mlflow"], tmp_path, "paper")


# Weights & Biases


def wandb_records(path: Path) -> Iterator[Any]:
    """Reads a .wandb file: protocol buffers in LevelDB's log format (blocks of 32 KiB; checksum, length, kind)."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] in (b":W&B", b"")  # empty until first flushed
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or last
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def wandb_run(path: Path) -> dict[str, Any]:
    """What `wandb sync` would send of one file."""
    found: dict[str, Any] = {"history": [], "summary": {}, "config": {}}
    for record in wandb_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found |= {"id": run.run_id, "name": run.display_name, "group": run.run_group, "project": run.project}
            found["config"] |= {item.key: json.loads(item.value_json) for item in run.config.update}
        elif kind == "history":
            items = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            found["history"].append(items)
        elif kind == "summary":
            found["summary"] |= {
                ".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update
            }
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def wandb_runs(folder: Path) -> list[dict[str, Any]]:
    """The runs by the time of their start. W&B's own process writes them, and may end a little after our call."""
    deadline = time.monotonic() + 30
    while True:
        files = sorted((folder / "logs" / "wandb").glob("offline-run-*/run-*.wandb"))
        runs = [wandb_run(file) for file in files]
        if runs and all("exit" in run for run in runs):
            return runs
        assert time.monotonic() < deadline, runs
        time.sleep(0.1)


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody is logged in, and nothing of this machine's settings is read."""
    pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


@pytest.mark.usefixtures("no_account")
def test_wandb(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study(tmp_path, ("wandb",), "paper: all of it")
    a, b = sorted(wandb_runs(tmp_path), key=lambda run: str(run["id"]))
    assert (a["id"], b["id"]) == (A, B)
    assert (a["name"], a["group"], a["project"]) == ("B seed 0", "B", "paper_all_of_it")
    assert {name: a["config"][name] for name in CONFIG} == CONFIG
    assert (b["config"]["mixup.alpha"], b["config"]["cell"], b["config"]["seed"]) == (0.5, "B+mixup", 0)
    assert [(h["_step"], h["train/loss"]) for h in a["history"]] == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert [(h["_step"], h["train/loss"]) for h in b["history"]] == [(1, 0.75)]
    assert (a["summary"]["final/top1"], a["summary"]["status"], b["summary"]["status"]) == (0.875, "done", "failed")
    assert (a["exit"], b["exit"]) == (0, 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_account")
def test_wandb_continues_under_the_same_id(tmp_path: Path) -> None:
    study(tmp_path, ("wandb",))
    time.sleep(1.1)  # its folders are named by the second
    with open_loggers(["wandb"], tmp_path, "paper") as logs:
        logs.start(B, "B+mixup seed 0", CONFIG, cell="B+mixup", seed=0)
        logs.epoch(B, row(2, 0.625))
    runs = [run for run in wandb_runs(tmp_path) if run["id"] == B]
    assert [(h["_step"], h["train/loss"]) for run in runs for h in run["history"]] == [(1, 0.75), (2, 0.625)]
    assert [run["exit"] for run in runs] == [1, 130]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal of its own")
@pytest.mark.usefixtures("no_account")
def test_wandb_online_without_an_account_asks_nothing_and_costs_the_log_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("TERM", "xterm")
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.test_loggers import study\n"
        "study(Path(sys.argv[1]), ('wandb',))\nprint('came to the end')"
    )
    ours, theirs = os.openpty()  # in a terminal it could ask
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).parent.parent
    subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, timeout=120, check=True, cwd=root)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    warning, end = shown.split("\r\n")[:2]
    assert warning.startswith("Warning: the log to wandb is switched off: ")
    assert "wandb login" in warning
    assert end == "came to the end"
