"""What `prepare` promises, and what is asked of a GPU that must give the same bits twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bagoftricks.cli import main
from bagoftricks.training import hardware
from bagoftricks.training.hardware import Hardware, detect, environment, keep_memory

LOOKS = """
import os, sys, torch
from bagoftricks.training.hardware import detect
detect("cpu", "fp32", int(sys.argv[1])).prepare()
print(torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
"""


@pytest.fixture
def torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes back what `only_deterministic` sets for a whole process, and the threads."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    cudnn, threads = torch.backends.cudnn, torch.get_num_threads()
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    cudnn.deterministic, cudnn.benchmark = before[1:]
    torch.set_num_threads(threads)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_prepare_pins_the_threads_whatever_the_environment_says(threads: int) -> None:
    """In a new process, as each run of a study is, whose environment asks for other threads; nothing else is set."""
    environment = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    command = [sys.executable, "-c", LOOKS, str(threads)]
    done = subprocess.run(
        command, env=environment | {"OMP_NUM_THREADS": "4"}, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(threads), "False", "None"]


@pytest.mark.usefixtures("torch_as_it_was")
def test_prepare_may_be_called_again_with_other_threads() -> None:
    for threads in (2, 1):
        Hardware("cpu", "fp32", threads).prepare()
        assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("torch_as_it_was")
@pytest.mark.parametrize(("device", "times"), [("cpu", 1), ("cuda", 0)])
def test_memory_is_kept_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch, device: str, times: int) -> None:
    """On a GPU the host's malloc is not what a step waits for."""
    calls: list[bool] = []
    monkeypatch.setattr(hardware, "keep_memory", lambda: calls.append(True))
    Hardware(device, "fp32", 1).prepare()
    assert len(calls) == times


def test_malloc_takes_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    if hardware.platform.libc_ver()[0] != "glibc":
        pytest.skip("no glibc")
    assert keep_memory()
    monkeypatch.setattr(hardware.platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not keep_memory()


@pytest.mark.usefixtures("torch_as_it_was")
@pytest.mark.parametrize(("before", "after"), [(None, ":4096:8"), (":16:8", ":16:8"), (":0:0", ":4096:8")])
def test_deterministic_is_all_that_torch_asks_for(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    if before:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    detect("cpu", "fp32", 1, deterministic=True).prepare()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == after


@pytest.mark.usefixtures("torch_as_it_was")
def test_what_a_caller_asked_for_stays() -> None:
    torch.use_deterministic_algorithms(True)
    Hardware("cpu", "fp32", 1).prepare()
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("torch_as_it_was")
@pytest.mark.parametrize("flags", [[], ["--deterministic"]])
def test_the_flag_is_recorded(photos: Path, tmp_path: Path, flags: list[str]) -> None:
    small = ["--size", "32", "--model.depth", "10", "--model", "A", "--epochs", "1", "--batch-size", "8"]
    where = ["--data", str(photos), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["train", *where, *small, *flags]) == 0
    (path,) = (tmp_path / "out" / "runs").glob("*/environment.json")
    assert json.loads(path.read_text(encoding="utf-8"))["deterministic"] is bool(flags)
    assert torch.are_deterministic_algorithms_enabled() is bool(flags)


def test_it_is_off_unless_asked_for() -> None:
    assert detect("cpu", "fp32", 1) == Hardware("cpu", "fp32", 1, deterministic=False)


def test_the_environment_names_what_changes_results() -> None:
    told = environment()
    assert {"python", "torch", "numpy", "platform", "cpu", "gpu"} <= set(told)
    assert told["torch"] == torch.__version__.partition("+")[0] or told["torch"] == torch.__version__
