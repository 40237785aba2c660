"""The benches: their arithmetic, their budgets, what they lay out, and a smallest run of two contenders."""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import gpu, gpu_study, growth, predict, summary, throughput, time_to_accuracy, toml_writer, usage
from bench.budget import Budget
from bench.checkpoint_cost import checkpoint_cost
from bench.clock import Clock
from bench.contenders import ours
from bench.contenders.job import Job, contenders, environment
from bench.contenders.progress import Progress
from bench.driver import last_line, prepare, run_job
from bench.journal import Journal
from bench.machine import training_flops
from bench.photos import make_photos, plant
from bench.summary import Spread

from bagoftricks.data.folder import read_folder
from bagoftricks.dotted import nest
from bagoftricks.errors import UserError
from bagoftricks.files import write_json
from bagoftricks.recipe import Recipe
from tests.conftest import ROOT

Measurement = dict[str, Any]
PEERS = {"accelerate", "fastai", "lightning", "timm", "transformers"}
"""Which may be missing."""


class Hands:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def measured(task: str, contender: str, size: int, rates: list[float]) -> list[Measurement]:
    return [
        {"task": task, "contender": contender, "size": size, "repeat": r, "result": {"images_per_s": rate}}
        for r, rate in enumerate(rates)
    ]


def imported(path: Path) -> list[tuple[str, str]]:
    """(module, name) of all that a bench imports from here by name, within functions too."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    imports = [node for node in tree if isinstance(node, ast.ImportFrom)]
    ours = [(str(n.module), alias.name) for n in imports for alias in n.names]
    return [(module, name) for module, name in ours if module.split(".")[0] in ("bagoftricks", "bench")]


@pytest.mark.parametrize("path", sorted((ROOT / "bench").rglob("*.py")), ids=lambda path: str(path.stem))
def test_what_benches_import_is_there(path: Path) -> None:
    """Those of peers too, which are not installed here."""
    for module, name in imported(path):
        try:
            assert hasattr(import_module(module), name) or find_spec(f"{module}.{name}"), f"{module}.{name}"
        except ModuleNotFoundError as error:
            if str(error.name).split(".")[0] not in PEERS:
                raise


@pytest.mark.parametrize("script", ["throughput", "time_to_accuracy", "predict", "study", "gpu"])
def test_scripts_say_how_they_are_used(script: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "bench" / f"{script}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert f"bench/{script}.py" in done.stdout
    assert "--out" in done.stdout


# the clock


def test_clock_counts_whole_steps_after_the_warm_up() -> None:
    hands, settled = Hands(), []
    clock = Clock(2, 3, 1e9, lambda: settled.append(hands.time), hands, look=lambda: {"private_mb": 7.0})
    ticks = []
    for seconds in (50.0, 10.0, 1.0, 2.0, 3.0, 99.0):  # the first step compiles
        hands.time += seconds
        ticks.append(clock.tick())
    assert ticks == [False, False, False, False, True, True]
    found = clock.result(64, began=90.0)
    assert found["seconds"] == 6.0
    assert found["images_per_s"] == pytest.approx(64 * 3 / 6)
    assert found["prepare_s"] == pytest.approx(150.0 - 90.0 - 2.0)  # until the first step's end, less a step
    assert found["private_mb"] == 7.0
    assert settled == [150.0, 160.0, 166.0]


def test_clock_stops_at_its_seconds_and_leaves_evaluations_out() -> None:
    hands = Hands()
    clock = Clock(1, 100, 5.0, now=hands)
    clock.leave_out(1000.0)  # before it started
    assert not clock.tick()
    hands.time += 2.0
    assert not clock.tick()
    hands.time += 30.0
    clock.leave_out(30.0)
    hands.time += 2.0
    assert not clock.tick()
    hands.time += 2.0
    assert clock.tick()
    assert clock.elapsed == 6.0
    assert clock.result(8)["images_per_s"] == pytest.approx(8 * 3 / 6)


def test_a_warm_up_of_slow_steps_ends_early_but_not_before_its_least() -> None:
    hands = Hands()
    clock = Clock(50, 1, 1e9, now=hands, least=3, patience=20.0)
    for _ in range(3):
        hands.time += 12.0
        assert not clock.tick()
    assert clock.started == hands.time  # 24 s after the first step's end
    hands.time += 12.0
    assert clock.tick()
    assert clock.elapsed == 12.0


def test_clock_refuses_a_loop_that_ended_early() -> None:
    clock = Clock(2, 3, 1e9)
    clock.tick()
    with pytest.raises(ValueError, match="ended after 1 steps"):
        clock.result(64)


def test_warm_up_outlasts_what_workers_prepared() -> None:
    job = Job("train", "timm", 32, 4, "", "", "", 3, "cpu", 1, 4, 2, 1.0, options={"workers": 16})
    assert job.warm_steps >= 3 * 16
    assert Job.from_json(job.to_json()) == job


# medians, ratios, bars


def test_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert Spread.of([2.0]).text() == "2.0"
    assert Spread.of([1234.0, 1.0]).text(0) == "618 (1 to 1,234)"
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_ratio_pairs_repeats() -> None:
    # the machine slowed down by half in the second round: the ratio did not change
    assert summary.ratio({0: 40.0, 1: 20.0, 2: 99.0}, {0: 10.0, 1: 5.0}) == Spread(4.0, 4.0, 4.0, 2)
    assert summary.ratio({0: 1.0}, {1: 1.0}) is None


def test_bars() -> None:
    found = [
        *measured("train", "ours", 224, [41.0, 42.0, 43.0]),
        *measured("train", "torch-fp32", 224, [10.0, 10.0, 11.0]),
        *measured("train", "timm", 224, [30.0, 30.0, 30.0]),
        *measured("train", "fastai", 224, [35.0, 36.0, 37.0]),
        *measured("step", "ours", 224, [42.0, 43.0, 43.0]),
        *measured("eval", "ours", 224, [100.0]),
        *measured("eval", "timm", 224, [99.0]),
    ]
    stock, training, evaluation, share = summary.bars(found, ["torch-fp32", "timm", "fastai"], [224])
    assert stock.met is True
    assert stock.everywhere is False  # 43 / 11
    assert training.met is False
    assert "against fastai" in training.measured  # the fastest, not the first
    assert evaluation.met is False
    assert share.met is True
    assert summary.outside_step(found, 224) == Spread(
        pytest.approx(100 * (1 - 42 / 43)), pytest.approx(0.0), pytest.approx(100 * (1 - 41 / 42)), 3
    )
    inside = [{**entry, "result": {**entry["result"], "outside_share": 0.02}} for entry in found]
    assert summary.outside_step(inside, 224) == Spread(2.0, 2.0, 2.0, 3)  # timed within the training
    restless = [*measured("train", "ours", 224, [42.0]), *measured("step", "ours", 224, [30.0])]
    drifted = summary.bars(restless, ["timm"], [224])[-1]
    assert drifted.met is None
    assert "not quiet" in drifted.measured
    nothing = summary.bars([], ["timm"], [128])
    assert [bar.met for bar in nothing] == [None] * 4
    assert summary.bars_to_list(nothing)[0]["measured"] == "not measured"


def test_failed_measurements_are_no_figures() -> None:
    failed = {"task": "train", "contender": "timm", "size": 224, "repeat": 0, "error": "broken"}
    assert summary.by_repeat([failed], "train", "timm", 224) == {}
    assert summary.best_peer([failed], "train", ["timm"], 224) == ("", {})


def test_first_epoch_pays_for_what_is_prepared() -> None:
    assert summary.first_epoch_rate(1000, 50.0, 20.0) == pytest.approx(1000 / 40)
    assert summary.first_epoch_rate(1000, 50.0, 0.0) == pytest.approx(50.0)


@pytest.mark.parametrize("rich", [True, False])
def test_tables(rich: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if not rich:
        for name in ("rich", "rich.console", "rich.table", "rich.text"):
            monkeypatch.setitem(sys.modules, name, None)
    summary.show_bars([summary.at_most("share [x]", Spread(2.0, 1.0, 4.0, 3), 3.0, " %")])
    printed = capsys.readouterr()
    assert printed.out == ""
    for text in ("share [x]", "at most 3 %", "2.00 (1.00 to 4.00) %", "met, not in every repeat"):
        assert text in printed.err


# budgets and continuation


def test_budget_begins_nothing_that_would_not_end() -> None:
    hands = Hands()
    budget = Budget(100.0, hands)
    assert budget.allows("run", 60.0)
    hands.time += 30.0
    budget.took("run", 30.0)
    assert budget.allows("run")
    assert not budget.allows("other", 71.0)
    hands.time += 45.0
    assert budget.left == 25.0
    assert not budget.allows("run")
    assert budget.allows("other", 20.0)


def test_journal_continues_and_replaces_failures(tmp_path: Path) -> None:
    path = tmp_path / "results" / "x.json"
    first = Journal.open(path, {"steps": 2}, {"what": "x"})
    first.add({"contender": "a", "repeat": 0, "error": "broken", "seconds": 1.0})
    first.add({"contender": "b", "repeat": 0, "result": {"images_per_s": 2.0}, "seconds": 1.0})
    again = Journal.open(path, {"steps": 2})
    assert again.find(contender="a") is None  # it failed: to be tried again
    assert again.find(contender="b", repeat=0) == first.entries[1]
    again.add({"contender": "a", "repeat": 0, "result": {"images_per_s": 1.0}, "seconds": 3.0})
    assert len(again.entries) == 2
    with pytest.raises(UserError, match="other steps"):
        Journal.open(path, {"steps": 3})
    assert Journal.open(path, {"steps": 3}, fresh=True).entries == []
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="no results of a bench"):
        Journal.open(path, {"steps": 2})


def test_flags_are_tried_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[dict[str, Any]] = []

    def measure(job: Any, *, repeat: int, kind: str) -> dict[str, Any]:
        assert kind == "probe"
        tried.append(dict(job))
        rate = 10.0 + (5 if job["workers"] == 1 else 0) - (3 if job["channels_last"] else 0)
        return {"result": {"images_per_s": rate}}

    bench = throughput.Bench.__new__(throughput.Bench)
    bench.options = argparse.Namespace(no_tune=False, size=[64])
    monkeypatch.setattr(bench, "measure", measure, raising=False)
    monkeypatch.setattr(bench, "job", lambda task, name, size, flags, probe: flags, raising=False)
    lightning = contenders(2, "cpu")["lightning"]
    flags = bench.tuned(lightning, "train")
    assert flags == {"amp": "bfloat16", "channels_last": False, "workers": 1, "malloc": True}
    assert len(tried) == 4
    bench.options.no_tune = True
    assert bench.tuned(lightning, "train") == {"amp": "bfloat16", "channels_last": True, "workers": 2, "malloc": True}
    assert all("malloc" not in contender.axes for contender in contenders(2, "cuda").values())


def test_contenders_name_modules_that_are_there() -> None:
    found = contenders(2, "cuda")
    assert {"ours", "torch-fp32", "torch-amp", "timm", "fastai", "transformers", "lightning"} <= found.keys()
    for contender in found.values():
        assert (ROOT / "bench" / "contenders" / f"{contender.module}.py").is_file()
        assert not set(contender.fixed) & set(contender.axes)
    assert found["timm"].missing(lambda module: module != "timm") == ["timm"]
    assert environment({"malloc": True})
    assert environment({"malloc": False}) == {}


# time to accuracy


def test_progress_notes_when_the_target_was_met() -> None:
    hands = Hands()
    job = Job("accuracy", "ours", 128, 64, "", "", "", 3, "cpu", 1, 0, 0, 60.0, options={"target": 0.93})
    progress = Progress(job, 640, hands)
    hands.time += 12.0
    progress.leave_out(2.0)
    assert not progress.epoch(0.90)
    hands.time += 13.0
    progress.leave_out(3.0)
    assert progress.epoch(0.94)
    found = progress.result()
    assert (found["reached"], found["train_s"], found["eval_s"], found["images"]) == (True, 20.0, 5.0, 1280.0)
    assert found["epochs"] == 2


def test_progress_that_is_stopped() -> None:
    hands = Hands()
    job = Job("accuracy", "ours", 128, 64, "", "", "", 3, "cpu", 1, 0, 0, 60.0, options={"target": 0.93})
    progress = Progress(job, 640, hands)
    hands.time += 61.0
    assert progress.is_late()
    found = progress.result()
    assert (found["reached"], found["out_of_time"], found["train_s"]) == (False, True, 61.0)
    entry = {"contender": "ours", "epochs": 10, "repeat": 0, "result": found}
    assert time_to_accuracy.row_of(entry)[2] == "> 61"


def test_peers_best_schedule_counts() -> None:
    def run(name: str, epochs: int, seconds: float, reached: bool) -> Measurement:
        result = {"reached": reached, "train_s": seconds, "eval_s": 1.0, "images": 10.0 * seconds}
        return {"contender": name, "epochs": epochs, "repeat": 0, "result": result}

    entries = [run("ours", 10, 50, True), run("fastai", 1, 40, False), run("fastai", 3, 150, True)]
    entries += [run("fastai", 5, 250, True), run("timm", 10, 600, False)]
    found = time_to_accuracy.summary(entries)
    assert found["fastai"]["best"]["schedule"] == 3
    assert found["fastai"]["times_ours"] == pytest.approx(3.0)
    assert found["timm"]["best"] is None
    assert found["timm"]["longer_than_s"] == 600
    # a length counts only if every repeat of it arrived
    missed = run("fastai", 3, 150, False) | {"repeat": 1}
    best = time_to_accuracy.best([*entries, missed], "fastai")
    assert best is not None
    assert best["schedule"] == 5


def test_schedules() -> None:
    assert time_to_accuracy.schedules(["fastai=2,4"])["fastai"] == (2, 4)
    for wrong in ("keras=1", "fastai=", "fastai=0", "fastai=1,x"):
        with pytest.raises(ValueError, match="--epochs"):
            time_to_accuracy.schedules([wrong])


# the machine, files, memory


def test_flops_follow_the_network() -> None:
    # 4.1 G multiply-adds forward at 224 pixels; backward takes twice that, less the first layer's inputs
    assert training_flops(64, 1000) == pytest.approx(3 * 2 * 4.09e9 * (64 / 224) ** 2, rel=0.05)


def test_photos_are_made_once_and_look_like_files(tmp_path: Path) -> None:
    root = make_photos(tmp_path, 8, classes=2)
    first = sorted(root.rglob("*.jpg"))
    stamps = [path.stat().st_mtime_ns for path in first]
    assert make_photos(tmp_path, 8, classes=2) == root
    assert [path.stat().st_mtime_ns for path in first] == stamps
    index = read_folder(root)
    assert len(index) == 8
    pixels = index.read(0)
    assert 160 <= pixels.shape[0] <= 240
    assert 20 < pixels.std() < 80
    assert 5_000 < np.mean([path.stat().st_size for path in first]) < 60_000


def test_tree_holds_every_side(photos: Path, tmp_path: Path) -> None:
    index = read_folder(photos)
    chosen = plant(index, tmp_path / "tree", {"train": range(20), "eval": range(20, 30)}, {"eval": 4})
    assert chosen["train"] == list(range(20))
    assert len(chosen["eval"]) == 4
    for side, members in chosen.items():
        files = sorted((tmp_path / "tree" / side).rglob("*.jpg"))
        assert len(files) == len(members)
        assert {int(path.parent.name) for path in files} == {int(index.labels[i]) for i in members}
        assert sorted(p.name for p in (tmp_path / "tree" / side).iterdir()) == ["0000", "0001", "0002"]


def test_memory_knows_its_children() -> None:
    if not usage.memory():
        pytest.skip("no /proc/self/smaps_rollup on this system")
    child = subprocess.Popen([sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in usage.children(os.getpid())
        assert usage.memory()["private_mb"] > 1
    finally:
        child.communicate(b"")
    assert usage.mapped(os.getpid(), ".no-such-suffix") == 0


def test_cache_is_counted_apart(tmp_path: Path) -> None:
    if not usage.memory():
        pytest.skip("no /proc/self/smaps_rollup on this system")
    np.zeros(20_000_000, dtype=np.uint8).tofile(tmp_path / "x.u8")
    mapped = np.memmap(tmp_path / "x.u8", dtype=np.uint8, mode="r")
    assert int(mapped.sum()) == 0  # every page was touched
    assert usage.memory()["mapped_cache_mb"] == pytest.approx(20.0, rel=0.1)


def test_peak_sees_what_came_and_went() -> None:
    """In a process of its own, whose peak earlier tests have not set."""
    code = (
        "import numpy as np\nfrom bench import growth\n"
        "before = growth.peak_mb(reset=True)\nheld = np.ones(60_000_000, dtype=np.uint8)\ndel held\n"
        "print(growth.peak_mb() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 40 < float(done.stdout) < 100


def test_made_up_runs_are_a_study(tmp_path: Path) -> None:
    from bagoftricks.reports.results import read_results
    from bagoftricks.studies.plan import plan_study
    from bagoftricks.studies.study_file import load_study

    out = growth.clean(tmp_path / "study")
    plan = plan_study(load_study("quickstart").adapted({}, seeds=2), "digits", out=out)
    write_json(out / "plan.json", plan.to_dict())
    growth.fill(plan, out)
    assert plan.missing(out) == []
    assert len(read_results(out).done) == 8


def test_last_line() -> None:
    assert last_line("Traceback\n  x\nValueError: no\n\n") == "ValueError: no"
    assert last_line("") == ""


# a GPU's parts


def test_toml_reads_back() -> None:
    table = nest(Recipe().flat()) | {"text": 'a "b" \\ \n\x7f é', "off": False, "list": [1, 2.5]}
    assert tomllib.loads(toml_writer.dumps(table)) == table
    with pytest.raises(TypeError, match="no place"):
        toml_writer.dumps({"x": None})


def test_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    from bagoftricks.reports.results import read_results
    from bagoftricks.studies.design import Study

    changes = {"epochs": 1, "model.tweaks": "A", "model.depth": 10, "input.size": 32, "schedule.warmup_epochs": 0.0}
    study = Study("x", Recipe().with_fields(changes), {"label_smoothing.amount": (0.0, 0.1)})
    photos = make_photos(tmp_path / "made", 160, classes=4)
    images, out = tmp_path / "images", tmp_path / "out"
    out.mkdir()

    def go_on(folder: Path, budget: Budget) -> dict[str, Any]:
        done = gpu_study.read_done([out])
        found = gpu_study.continue_study(study, photos, folder, done, budget, device="cpu", jobs=1, images=images)
        (out / gpu_study.DONE).write_text(json.dumps({"ids": found["ids"]}), encoding="utf-8")
        gpu_study.pack(folder, [out], done)
        return found

    # the first run is as long as all the time there is: a second one is not begun
    class Short(Budget):
        def took(self, kind: str, seconds: float) -> None:
            super().took(kind, 1e9)

    first = go_on(tmp_path / "one", Short(1e4))
    assert (first["runs"], first["done"], first["now"], first["cut_off"]) == (2, 1, 1, True)
    assert first["seeds_complete"] == 0
    second = go_on(tmp_path / "two", Budget(1e4))  # elsewhere: nothing of the first call's folder is there
    assert (second["done"], second["now"], second["cut_off"], second["seeds_complete"]) == (2, 1, False, 1)
    third = go_on(tmp_path / "two", Budget(1e4))
    assert third["now"] == 0
    archives = sorted(out.glob("*.tar.gz"))
    assert [path.name for path in archives] == ["study-000.tar.gz", "study-001.tar.gz"]
    assert gpu_study.unpack(archives, tmp_path / "whole") == 2
    assert len(read_results(tmp_path / "whole").done) == 2
    assert not any((tmp_path / "one" / "cache").parent.glob("cache"))  # decoded images are left where they are


def test_alarm_ends_what_takes_too_long(tmp_path: Path) -> None:
    import time

    with pytest.raises(KeyboardInterrupt), gpu_study.alarm(0.05):
        time.sleep(5)
    with gpu_study.alarm(60.0):
        pass


def test_archives_are_limited(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        folder = tmp_path / "study" / "runs" / name
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}", encoding="utf-8")
        (folder / "predictions.npz").write_bytes(os.urandom(200_000))
    (tmp_path / "study" / "plan.json").write_text("{}", encoding="utf-8")
    (tmp_path / "study" / "runs" / "d.partial").mkdir()
    written = gpu_study.pack(tmp_path / "study", [tmp_path], {"b"}, limit=100_000)
    assert [path.name for path in written] == ["study-000.tar.gz", "study-001.tar.gz"]
    with tarfile.open(written[1]) as archive:
        assert {"plan.json", "runs/c/result.json"} <= set(archive.getnames())
    assert gpu_study.pack(tmp_path / "study", [tmp_path], {"a", "b", "c"}) == []


def test_gpu_runs_from_a_checkout_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    gpu.make_importable(tmp_path)
    code = (
        "import importlib.metadata, tomli_w, tomllib, bagoftricks.errors\n"
        "print(importlib.metadata.version('bagoftricks'), tomllib.loads(tomli_w.dumps({'a': 1}))['a'])"
    )
    # -S: without the installed packages
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert done.stdout.split() == [version, "1"]


def test_marked_tests_are_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "test_a.py").write_text("@pytest.mark.gpu\ndef test_a(): ...", encoding="utf-8")
    (tmp_path / "test_b.py").write_text("import nothing_that_is_installed", encoding="utf-8")
    assert gpu.marked(tmp_path) == [tmp_path / "deep" / "test_a.py"]


def test_parts_are_done_once() -> None:
    assert gpu.is_complete("tests", {"tests": {"status": 0}})
    assert not gpu.is_complete("tests", {"tests": {"status": 5}})
    assert not gpu.is_complete("study", {"study": {"complete": False}})
    assert not gpu.is_complete("throughput", {})


# a smallest run


def test_a_checkpoint_holds_weights_and_two_moments(tmp_path: Path) -> None:
    cost = checkpoint_cost(tmp_path, repeats=1)
    assert cost["mb"] == pytest.approx(3 * 23.7 * 4, rel=0.02)  # millions of parameters, of 4 bytes
    assert cost["waits_s"]["median"] > 0
    assert cost["written_s"]["median"] > 0


def test_prediction_beside_evaluation(tmp_path: Path) -> None:
    photos, out = make_photos(tmp_path / "made", 12, classes=3), tmp_path / "predict.json"
    arguments = ["--data", str(photos), "--size", "32", "--images", "9", "--batch", "4", "--repeats", "2"]
    assert predict.main([*arguments, "--device", "cpu", "--out", str(out)]) == 0
    found = json.loads(out.read_text())["32"]
    assert set(found) == set(predict.WAYS)
    assert all(set(rates) == {"0", "1"} and min(rates.values()) > 0 for rates in found.values())


def test_two_contenders_side_by_side(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "made", 60, classes=3)
    setting = prepare(photos, tmp_path / "work", batch=8)
    assert setting.images["train"] + setting.images["val"] == 60

    def job(task: str, contender: str) -> Job:
        return Job(
            task, contender, 32, 8, str(setting.tree), str(photos), str(setting.work), 3, "cpu", 1, 1, 2, 60.0,
            members=setting.members["eval"][:9], options={"amp": ""},
        )  # fmt: skip

    for contender in ("ours", "torch-fp32"):
        answer = run_job(job("train", contender), setting, contender, patience=120.0)
        assert "result" in answer, answer
        assert answer["result"]["steps"] == 2
        assert answer["result"]["images_per_s"] == pytest.approx(16 / answer["result"]["seconds"])
        if contender == "ours":
            assert 0 < answer["result"]["outside_share"] < 1
    for task in ("data", "evaluate", "step", "loop"):  # the training taken apart
        assert getattr(ours, task)(job(task, "ours"))["images_per_s"] > 0
    broken = run_job(
        Job("train", "nobody", 32, 8, "", "", "", 3, "cpu", 1, 1, 2, 60.0), setting, "nobody", patience=120.0
    )
    assert "ValueError: contender nobody" in broken["error"]
