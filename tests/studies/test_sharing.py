"""Several processes on one study folder: no run twice, none lost, and nobody waits for what nobody does."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bagoftricks.data import cache
from bagoftricks.data.sources import open_data
from bagoftricks.errors import UserError
from bagoftricks.files import is_locked
from bagoftricks.recipe import Recipe
from bagoftricks.store import Store, StoredRun
from bagoftricks.studies.design import Study
from bagoftricks.studies.engine import Event, run_all
from bagoftricks.studies.plan import plan_study
from bagoftricks.studies.run import execute_plan
from bagoftricks.study_folder import read_plan
from tests.conftest import ROOT
from tests.studies import stub
from tests.studies.test_engine import alive, running, told, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks")


def share(out: Path, count: int, on_event: Callable[[Event], None] = lambda event: None) -> list[tuple[str, str]]:
    events: list[Event] = []

    def hear(event: Event) -> None:
        events.append(event)
        on_event(event)

    run_all(stub.make_tasks(out, count), 1, hear, trainer=stub.train)
    return told(events)


def test_a_run_that_another_process_holds_is_left_to_it(tmp_path: Path) -> None:
    """Its process is never started here, others go first, and waiting costs nothing."""
    stub.write_script(tmp_path, {})
    store, (held, *_) = Store(tmp_path), stub.make_tasks(tmp_path, 3)
    free = threading.Event()

    def hold() -> None:
        with store.claim(held.id):
            free.wait(60)
            with store.writing(held.id) as writer:
                writer.result({})

    def let_go_later(event: Event) -> None:
        if event.kind == "done" and event.task.name == "run 2":
            spent.append(resource.getrusage(resource.RUSAGE_SELF))
            threading.Timer(3, free.set).start()
        if event.kind == "found":
            spent.append(resource.getrusage(resource.RUSAGE_SELF))

    spent: list[resource.struct_rusage] = []
    holder = threading.Thread(target=hold)
    holder.start()
    wait_for(lambda: is_locked(store.locks / held.id))
    events = share(tmp_path, 3, let_go_later)
    holder.join()
    assert events == [
        ("busy", "run 0"),
        ("started", "run 1"),
        ("done", "run 1"),
        ("started", "run 2"),
        ("done", "run 2"),
        ("found", "run 0"),
    ]
    assert [run for run, _ in stub.journal(tmp_path, "began")] == [task.id for task in stub.make_tasks(tmp_path, 3)[1:]]
    assert spent[1].ru_utime + spent[1].ru_stime - spent[0].ru_utime - spent[0].ru_stime < 0.3  # of three seconds


def test_a_run_that_is_published_between_two_looks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way it is looked at, it is held or there; no process is started for it."""
    stub.write_script(tmp_path, {})
    store, (task,) = Store(tmp_path), stub.make_tasks(tmp_path, 1)
    ended: list[bool] = []

    def end_once() -> None:
        if not ended:
            ended.append(True)
            with store.writing(task.id) as writer:
                writer.result({})

    def get(self: Store, run_id: str) -> StoredRun | None:
        found = real_get(self, run_id)
        end_once()
        return found

    real_get = Store.get
    monkeypatch.setattr(Store, "get", get)
    monkeypatch.setattr("bagoftricks.studies.engine.is_locked", lambda path: not ended)
    assert share(tmp_path, 1) == [("busy", "run 0"), ("found", "run 0")]
    assert stub.journal(tmp_path, "began") == []


@pytest.mark.parametrize("act", ["hang", "freeze"])
def test_the_run_of_a_process_that_was_killed_is_taken_over(tmp_path: Path, act: str) -> None:
    """Even where native code hangs in it: the claim goes with the process."""
    stub.write_script(tmp_path, {"run 0": [act]})
    with running(tmp_path, "--runs", "1") as process:
        ((_, pid),) = stub.journal(tmp_path, "began")
        events: list[tuple[str, str]] = []

        def kill_it(event: Event) -> None:
            if event.kind == "busy":
                process.kill()

        events = share(tmp_path, 1, kill_it)
        assert not alive(pid)
    assert events == [("busy", "run 0"), ("started", "run 0"), ("done", "run 0")]


def test_a_failure_elsewhere_counts_here(tmp_path: Path) -> None:
    """What fails would fail again; a failure of before this process began does not count."""
    stub.write_script(tmp_path, {})
    first, second = stub.make_tasks(tmp_path, 2)
    store = Store(tmp_path)
    store.record_failure(first.id, first.name, "an earlier one")

    def fail_elsewhere(event: Event) -> None:
        if event.kind == "done":
            store.record_failure(second.id, second.name, "the loss became nan")

    assert share(tmp_path, 2, fail_elsewhere) == [("started", "run 0"), ("done", "run 0"), ("failed", "run 1")]
    assert store.failure(first.id) is None
    assert store.failure(second.id) == "the loss became nan"


def test_plans_are_joined_one_after_the_other(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four processes bring a seed each at the same moment: none is lost."""
    from bagoftricks.studies import engine, run

    study = Study("tiny", recipe, {"mixup.alpha": [0.0, 0.2]})
    merged = run.merged

    def slowly(plan: run.Plan, store: Store) -> dict[str, object]:
        result = merged(plan, store)
        time.sleep(0.3)
        return result

    monkeypatch.setattr(run, "merged", slowly)
    monkeypatch.setattr(run, "portray", lambda *_, **__: None)
    monkeypatch.setattr(engine, "run_all", lambda *_, **__: None)
    plans = [
        plan_study(Study(study.name, study.recipe, study.factors, seeds=(seed,)), "digits", out=tmp_path)
        for seed in range(4)
    ]
    threads = [
        threading.Thread(target=execute_plan, args=(plan, tmp_path), kwargs={"samples": False}) for plan in plans
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    plan = read_plan(tmp_path)
    assert sorted(plan["study"]["seeds"]) == [0, 1, 2, 3]
    assert {one["id"] for one in plan["runs"]} == {one.id for each in plans for one in each.runs}

    other = plan_study(Study("tiny", recipe.with_fields({"epochs": 1})), "digits", out=None)
    with pytest.raises(UserError, match="with other settings"):  # begun by another process since it was planned
        execute_plan(other, tmp_path)


def test_one_builds_the_cache_and_the_others_wait(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, built, waited, opened = open_data(photos), [], [], []
    build = cache._build

    def slowly(*arguments: object) -> None:
        built.append(threading.get_ident())
        time.sleep(2.5)
        build(*arguments)  # type: ignore[arg-type]

    def open_it() -> None:
        me = threading.get_ident()
        progress = lambda done: waited.append(me) if done == 0 else None  # noqa: E731
        opened.append(cache.open_images(index, 32, tmp_path / "cache", progress=progress))

    monkeypatch.setattr(cache, "_build", slowly)
    threads = [threading.Thread(target=open_it) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert len(opened) == 3
    assert len(set(waited) - set(built)) == 2  # and were told so
    assert built[0] not in waited
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".npz", ".u8"]


def test_a_builder_that_is_killed_leaves_the_cache_to_others(photos: Path, tmp_path: Path) -> None:
    index, folder = open_data(photos), tmp_path / "cache"
    stem = f"{index.content[:16]}-{cache.cached_side(32)}"
    code = (
        "import sys, time; from pathlib import Path; from bagoftricks.files import locked, replacing\n"
        "stem = Path(sys.argv[1])\n"
        "with locked(stem.with_suffix('.lock')), replacing(stem.with_suffix('.u8')) as half:\n"
        "    half.write_bytes(b'half'); print('ready', flush=True); time.sleep(3600)"
    )
    builder = subprocess.Popen([sys.executable, "-c", code, str(folder / stem)], stdout=subprocess.PIPE)
    assert builder.stdout is not None
    assert builder.stdout.readline() == b"ready\n"
    assert any(path.suffix == ".tmp" for path in folder.iterdir())
    waited = []

    def kill_it(done: int) -> None:
        if done == 0:
            waited.append(done)
            builder.kill()

    images = cache.open_images(index, 32, folder, progress=kill_it)
    builder.wait()
    assert waited
    assert images.many(cache.np.arange(3))[0].shape[2] == 3
    assert sorted(path.suffix for path in folder.iterdir()) == [".npz", ".u8"]  # nor half a file


def share_and_kill(out: Path, workers: int, runs: int, kills: int, seconds: float) -> list[str]:
    """Has processes share runs, kills some at random moments; returns what the others said."""
    stub.write_script(out, {"*": [f"slow {seconds}"] * 9})
    command = [sys.executable, "-m", "tests.studies.stub", str(out), "--runs", str(runs)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(workers)]
    wait_for(lambda: len(stub.journal(out, "began")) >= workers, 180)
    draw = random.Random(0)
    for process in started[:kills]:
        time.sleep(draw.uniform(0, 3 * seconds))
        os.kill(process.pid, signal.SIGKILL)
    said = [process.communicate(timeout=600)[0] for process in started]
    assert [process.returncode for process in started] == [-signal.SIGKILL] * kills + [0] * (workers - kills)
    return said[kills:]


def check_once(out: Path, runs: int, kills: int) -> None:
    """Every run is there, and was computed to its end once."""
    tasks, store = stub.make_tasks(out, runs), Store(out)
    published = stub.journal(out, "published")
    counts = Counter(run for run, _ in published)
    assert max(counts.values()) == 1
    assert len(counts) >= runs - kills  # a process may be killed between a publication and its line
    tokens = dict(published)  # type: ignore[arg-type]
    for task in tasks:
        run = store.get(task.id)
        assert run is not None, f"{task.name} is lost"
        assert tokens.get(task.id, run.result["token"]) == run.result["token"]
    assert not list(store.runs.glob("*.partial"))
    assert not any(alive(pid) for _, pid in stub.journal(out, "began"))
    assert len(stub.journal(out, "began")) <= runs + kills  # only what was killed had to begin again


def test_processes_share_runs_and_one_is_killed(tmp_path: Path) -> None:
    said = share_and_kill(tmp_path, 3, 9, 1, 0.2)
    check_once(tmp_path, 9, 1)
    for text in said:
        ends = [line.split(maxsplit=1) for line in text.splitlines() if line.split()[0] in ("done", "found")]
        assert len(ends) == 9  # each was told of every run once
        assert len({name for _, name in ends}) == 9


@pytest.mark.torture
def test_eight_processes_share_forty_runs_and_three_are_killed(tmp_path: Path) -> None:
    share_and_kill(tmp_path, 8, 40, 3, 1.0)
    check_once(tmp_path, 40, 3)


@pytest.mark.torture
def test_real_studies_share_a_folder(tmp_path: Path) -> None:
    """Three `tricks study` on real training, one killed: eight results, each said to be done by one of them."""
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "bagoftricks.cli", "study", "quickstart", "--out", str(out), "--seeds", "2",
        "--epochs", "2", "--split.val-fraction", "0.8", "--jobs", "1",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    store = Store(out)
    wait_for(lambda: len(list(store.runs.glob("*/result.json"))) >= 2, 300)
    stamps = {path: path.stat() for path in store.runs.glob("*/result.json") if ".partial" not in str(path)}
    started[0].kill()
    said = [process.communicate(timeout=600)[1] for process in started]
    assert [process.returncode for process in started[1:]] == [0, 0], said
    results = sorted(path for path in store.runs.glob("*/result.json"))
    assert len(results) == 8
    for path, stamp in stamps.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)
    done = Counter(
        line.split("] ")[1].split(": done in")[0] for text in said for line in text.splitlines() if ": done in" in line
    )
    assert set(done.values()) == {1}, said
    assert len(done) >= 7  # the one that was killed may have been killed before it could say so
