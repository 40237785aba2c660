"""`tricks bench`: it measures, and its figures hang together."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bagoftricks.cli import main
from bagoftricks.commands.bench import study_hours
from bagoftricks.studies.study_file import load_study
from bagoftricks.training.hardware import Hardware, cores
from bagoftricks.training.speed import Rates, Sharing, Speed, median_seconds


def test_measures_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    command = "bench --sizes 32 --batch-size 4 --seconds 5 --precision fp32 --device cpu --json"
    assert main(command.split()) == 0
    table = json.loads(capsys.readouterr().out)
    threads = table["hardware"]["threads"]
    assert table["hardware"] == {
        "device": "cpu",
        "precision": "fp32",
        "threads": threads,
        "deterministic": False,
        "kernels": "torch",
    }
    (rates,) = table["rates"]
    assert rates["size"] == 32
    assert rates["steps"] >= 1
    assert rates["evaluate"] > rates["train"] > 0  # forward alone against forward and backward
    assert rates["batch_share"] == pytest.approx(rates["train"] / rates["batches"])
    assert 0 < rates["matmul_share"] < 1.5
    assert table["decode"] > 0
    assert table["matmul_gflops"] > 0
    if cores() > 1:
        assert table["sharing"]["jobs"] == cores()
        assert table["sharing"]["together"] > 0
        assert table["sharing"]["alone"] > 0
    study = load_study("paper")
    speed = Speed(Hardware("cpu", "fp32", 1), 1, 1.0, 1.0, (), None)
    rate = rates["train"] * max(1.0, table["sharing"]["together"] / table["sharing"]["alone"] if cores() > 1 else 1.0)
    assert table["hours"]["32"] == pytest.approx(study_hours(study, 8677, rate, speed))


def test_prints_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(sizes: tuple[int, ...], hardware: Hardware, **options: Any) -> Speed:
        options["progress"]("training at 32 pixels")
        rates = tuple(Rates(size, 100.0, 300.0, 5000.0, 0.25, 3) for size in sizes)
        return Speed(hardware, 2, 321.0, 123.0, rates, Sharing(32, 100.0, 150.0, 2))

    monkeypatch.setattr("bagoftricks.training.speed.measure_speed", measured)
    command = "bench --sizes 32 64 --batch-size 2 --seconds 5 --precision fp32 --device cpu --study quickstart"
    assert main(command.split()) == 0
    shown = capsys.readouterr()
    assert "quickstart: 20 runs" in shown.out
    assert "Measuring training at 32 pixels" in shown.err
    assert "Decoding: 123 JPEG photographs a second" in shown.out
    assert "321 GFLOP/s" in shown.out
    (row,) = (line for line in shown.out.splitlines() if " 64 " in line)
    assert all(figure in row for figure in ("100.0", "300.0", "25%", "2.0% of the time"))


def test_hours_by_hand() -> None:
    study = replace(load_study("paper"), seeds=(0, 1))
    runs = len(study.cells) * 2
    epochs = study.cells[0].recipe.epochs
    alone = Speed(Hardware("cpu", "fp32", 1), 1, 1.0, 1.0, (Rates(64, 10.0, 30.0, 100.0, 0.5, 3),), None)
    # 80 of 100 images train, 20 are evaluated at 0.35 of the cost
    assert study_hours(study, 100, 10.0, alone) == pytest.approx(runs * epochs * 87 / 10 / 3600)
    shared = replace(alone, sharing=Sharing(64, 10.0, 12.0, 2))
    assert study_hours(study, 100, 10.0, shared) == pytest.approx(study_hours(study, 100, 10.0, alone) / 1.2)
    slower = replace(alone, sharing=Sharing(64, 10.0, 8.0, 2))
    assert study_hours(study, 100, 10.0, slower) == study_hours(study, 100, 10.0, alone)


def test_median_of_as_many_as_there_is_time_for() -> None:
    times = iter([3.0, 1.0, 2.0, 9.0])
    assert median_seconds(lambda: next(times), most=3, seconds=100) == (2.0, 3)
    times = iter([3.0, 1.0, 2.0, 9.0])
    assert median_seconds(lambda: next(times), most=4, seconds=2.5) == (3.0, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--sizes 16", "--sizes 16: must be from 32 to 1024 pixels"),
        ("--seconds 1", "--seconds 1: must be from 5 to 3600"),
        ("--images 0", "--images 0: must be at least 2"),
        ("--study nothing", "unknown preset 'nothing'"),
    ],
)
def test_refuses(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments.split()]) == 2
    assert said in capsys.readouterr().err
