"""Studies, recipes and tables that mean harm: bounded in size, depth and what they multiply to."""

from __future__ import annotations

import csv
import io
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest

from bagoftricks.cli import main
from bagoftricks.data.untrusted import RefusedError, csv_cell, parse_json, parse_toml
from bagoftricks.errors import UserError
from bagoftricks.recipe import Recipe
from bagoftricks.reports.charts import Chart
from bagoftricks.reports.tables import Table, plain_entry
from bagoftricks.studies.csvtable import MOST_BYTES, read_table
from bagoftricks.studies.design import Study
from bagoftricks.studies.study_file import load_study, parse_study

SECONDS = 5
"""Within which everything here is refused, on any machine."""


@pytest.fixture(autouse=True)
def soon() -> Any:
    started = time.process_time()
    yield
    assert time.process_time() - started < SECONDS


def refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_study(text)
    assert len(str(caught.value)) < 1_000


def lists(*counts: int) -> str:
    """Factors with so many levels each, a level a line."""
    names = ("mixup.alpha", "label_smoothing.amount", "optimizer.lr")
    each = (
        f'"{n}" = [{", ".join(f"{0.001 + i / 9000:.5f}" for i in range(c))}]'
        for n, c in zip(names, counts, strict=False)
    )
    return "[factors]\n" + "\n".join(each).replace(", ", ",\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 3_000, "nested too deep"),
        ("a = " + "{a = " * 700, "nested too deep"),
        ("a = " + "[" * 30 + "]" * 30, "nested too deep"),
        ("a" + ".a" * 1_000 + " = 1", "nested too deep"),
        ("a" + ".a" * 130_000 + " = 1", "line 1 has more than 4,000 characters"),
        ("#" * 2**18 + "#", "more than 262,144 characters"),
        ("seeds = " + "9" * 3_999, "line 1 has more|whole number"),
        ("seeds = 0x" + "f" * 3_000, "whole number"),
        ("seeds = [" + ",\n".join(map(str, range(30_000))) + "]", "whole number up to 10000"),
        ("seeds = 1000000000", "up to 10000"),
        ("seeds = -1", "at least one"),
        ("seeds = [1, 1]", "each once"),
        ("seeds = [1.5]", "whole numbers"),
        ("seeds = [true]", "whole numbers"),
        ("name = 1\nname = 2", "no valid TOML"),
        ("[a]\n[a]", "no valid TOML"),
        ("seeds = nan", "whole number"),
        ('name = "../../etc"', "letters, digits"),
        ('name = "a\\nb"', "letters, digits"),
        ('"\\u001b[2J" = 1', "unknown key"),
        ('[factors]\n"\\u001b[2J" = [1]', "unknown recipe field"),
        ('[factors]\n"optimizer.lr" = [inf]', "optimizer.lr"),
        ('[factors]\n"optimizer.lr" = [[1], [2]]', "malformed|list"),
        ("[recipe]\nepochs = 0x" + "f" * 40, "whole number"),
        ("[recipe.a.b.c.d]\ne = 1", "unknown recipe field"),
        ("cells = 7", "malformed"),
        ("tables = [1]", "malformed"),
        ("labels = 7", "malformed"),
    ],
)  # fmt: skip
def test_studies(text: str, message: str) -> None:
    refused(text, message)


def test_the_time_for_dotted_keys() -> None:
    """They take time that grows with the square of a line's length: 64 lines of the greatest, a file of the largest."""
    text = "".join(f"{key}" + ".a" * 1_950 + " = 1\n" for key in "abcdefghijklmnopqrstuvwxyz")
    refused(text, "nested too deep")


def test_factors_that_multiply() -> None:
    refused(lists(1_000, 1_000, 1_000), "1,000,000,000 cells over 1 seeds are too many")
    refused(lists(100, 51), "5,100 cells")
    refused("design = 'ladder'\n" + lists(4_000, 1_002), "5,003 cells")
    refused("seeds = 10000\n" + lists(3, 7), "21 cells over 10,000 seeds")
    refused('design = "cells"\n' + "[[cells]]\n" * 5_001 + lists(2), "5,001 cells")


def test_many_cells_take_no_time_that_grows_with_their_square() -> None:
    """300 cells took 16 seconds."""
    assert len(parse_study(lists(40, 25)).cells) == 1_000


def test_a_study_of_a_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("seeds = 1\n")
    assert load_study(path).seeds == (0,)
    os.truncate(path, 2**30)  # a hole, which takes no disk
    with pytest.raises(UserError, match=r"larger than 0\.25 MiB"):
        load_study(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="no such file"):
        load_study(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="no such file"):
        load_study(path)


def test_shipped_studies_are_far_from_the_bounds() -> None:
    for name in ("he2019", "paper", "quickstart"):
        assert len(load_study(name).cells) < 100


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "[" * 30 + "]" * 30, "NaN", "[-Infinity]", "1e999", "-1e999", "9" * 41,
     "9" * 5_000, '{"a": 1e400}'],
)  # fmt: skip
def test_json(text: str) -> None:
    with pytest.raises(RefusedError):
        parse_json(text)
    assert parse_json("[" * 20 + "1.5" + "]" * 20)
    assert parse_toml("a = " + "[" * 20 + "1" + "]" * 20)


# ------------------------------------------------------------------------------------------------------ tables read


def table(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'seed,top1\n1,"0.5\n' + b"2,0.5\n" * 10_000, "is no CSV|fields where"),
        (b'seed,top1\n1,"' + b"x" * 200_000 + b'"\n', "field larger than"),
        (b'seed,top1\n1,"0.5"x\n', "is no CSV"),
        (b"seed,top1\n1,\xff\n", "no UTF-8"),
        (b"seed,top1\n1,2,3\n", "3 fields where"),
        (b"," * 2_000_000 + b"\n", "columns, more than 1,000"),
        (b"," * 999 + b"\n" + (b"," * 999 + b"\n") * 20_001, "two columns|20,000,000 fields"),
        (b",".join(b"c%d" % i for i in range(1000)) + b"\n" + (b"," * 999 + b"\n") * 20_001, "20,000,000 fields"),
    ],
    ids=["open quote", "long field", "quote", "bytes", "fields", "columns", "unnamed", "cells"],
)
def test_tables(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_table(table(tmp_path, content))
    assert str(caught.value).isprintable()


def test_a_table_of_a_gigabyte(tmp_path: Path) -> None:
    path = table(tmp_path, b"seed,top1\n1,0.5\n")
    assert len(read_table(path)) == 1
    os.truncate(path, 2**30)
    with pytest.raises(UserError, match=f"larger than {MOST_BYTES // 2**20} MiB"):
        read_table(path)


def test_nulls_and_escapes_in_a_table_are_spelled_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        f"{seed},{name},0.{seed + i}"
        for seed in range(1, 4)
        for i, name in enumerate(("\x1b[2J\x1b]0;x\x07", "\0\u202eb"))
    ]
    path = table(tmp_path, ("seed,tr\x1b[31mick,top1\n" + "\n".join(rows) + "\n").encode())
    assert list(read_table(path).columns) == ["seed", r"tr\x1b[31mick", "top1"]
    assert main(["analyse", str(path)]) == 0
    out = "".join(capsys.readouterr())
    assert r"\x1b[2J" in out
    assert [line for line in out.splitlines() if not line.isprintable()] == []


# ------------------------------------------------------------------------------------------------------ tables written

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(A1)", "=HYPERLINK(\"http://a.example\")", " =1+1", "\t=1+1",
            "\r=1", "= 1", "-x.jpg", "+c", "@home"]  # fmt: skip
FIGURES = ["-0.5", "+0.5", "-1e-05", "-inf", "0.5", "-", "–", "", "B+c", "mixup.alpha=0.2", "a@b"]


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_is_a_formula(name: str) -> None:
    """A spreadsheet computes what begins with = + - or @, also after blanks."""
    import altair as alt
    import pandas as pd

    frame = pd.DataFrame({"class": [name], name: [1.0]})
    chart = Chart("k", "t", "n", alt.Chart(frame).mark_bar().encode(x="class:N"))
    made = Table("k", "t", "n", ("Class", name), ((plain_entry(name), plain_entry("0.5")),))
    written = [*cells(made.to_csv()), *cells(chart.to_csv())]
    assert len(written) == 4
    assert not [cell for row in written for cell in row if cell.lstrip()[:1] in ("=", "+", "-", "@")]
    assert any(name.strip() in cell for row in written for cell in row)


@pytest.mark.parametrize("text", FIGURES)
def test_figures_and_plain_names_stay(text: str) -> None:
    assert csv_cell(text) == text
    made = Table("k", "t", "n", ("A",), ((plain_entry(text),), (plain_entry("0"),)))
    assert cells(made.to_csv())[1:][:1] in ([[text]], [[]])


def test_names_do_not_break_a_markdown_table() -> None:
    """No image is asked for, no tag is opened, no column added."""
    evil = "![x](http://a.example/t.png) <img src=x> a|b `c` \n| d"
    text = Table("k", evil, evil, ("A", evil), ((plain_entry(evil), plain_entry("0.5")),)).to_markdown()
    title, blank, *rows = text.splitlines()
    assert blank == ""
    assert len(rows) == 3
    for line in (title, rows[0], rows[2]):
        assert "](" not in line.replace("\\](", "")
        assert "<" not in line
    assert [row.count("|") - row.count("\\|") for row in rows] == [3, 3, 3]


def test_finite_numbers_alone() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(UserError):
            Recipe().with_fields({"optimizer.lr": value})
    assert isinstance(Study("x"), Study)
