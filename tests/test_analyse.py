from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy import stats

from bagoftricks.cli import main
from bagoftricks.commands import COMMANDS
from bagoftricks.studies import csvtable

GAINS = (1.0, 1.4, 0.8, 1.1, 1.3, 0.9)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bagoftricks.cli.COMMANDS", tuple(dict.fromkeys([*COMMANDS, "analyse"])))


def write(path: Path, *, percent: bool = False, bom: bool = False, extra: str = "") -> Path:
    """Two factors, six seeds: smoothing helps by about a point, mixup does nothing."""
    lines = ["run,model,smoothing,mixup,seed,top1,top5"]
    for seed, gain in enumerate(GAINS):
        for smoothing in (0.0, 0.1):
            for mixup in ("no", "yes"):
                noise = (0.03 if mixup == "yes" else -0.03) * (-1) ** seed * (1 if smoothing else 0.5)
                top1 = 90 + seed / 7 + gain * (smoothing > 0) + noise
                value = f"{top1:.4f}" if percent else f"{top1 / 100:.6f}"
                top5 = 0.98 + seed / 1000 + (smoothing > 0) / 500
                lines.append(f"r{len(lines)},resnet50,{smoothing},{mixup},{seed},{value},{top5}")
    path.write_text(("\ufeff" if bom else "") + "\n".join(lines) + "\n" + extra, encoding="utf-8")
    return path


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(a) for a in ("analyse", *arguments)]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("tricks: ")
    assert error.count("\n") == 1
    return error


def analysed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert main([str(a) for a in ("analyse", *arguments, "--json")]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    return json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} in JSON"))


def test_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = analysed(capsys, write(tmp_path / "r.csv"))
    assert result["factors"] == ["smoothing", "mixup"]
    assert result["left_out"] == {
        "run": "different in every row",
        "model": "the same in every row",
        "top5": "more values than any seed has rows",
    }
    smoothing, mixup, both = result["effects"]
    assert smoothing["levels"] == [["0.1", "0.0"]]
    assert smoothing["estimate"] == pytest.approx(sum(GAINS) / 6, abs=1e-3)
    theirs = stats.ttest_1samp(smoothing["differences"], 0)
    assert smoothing["p"] == pytest.approx(theirs.pvalue)
    assert [e["verdict"] for e in (smoothing, mixup, both)] == ["helps"] + ["practically equivalent"] * 2
    assert result["runs"]["expected"] == result["runs"]["done"] == 24


def test_cells_and_the_secondary_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv")
    result = analysed(capsys, path)
    cells, model = result["cells"], result["secondary"]
    assert cells["baseline"] == "smoothing = 0.0, mixup = no"
    assert cells["best"] == ["smoothing = 0.1, mixup = no", "smoothing = 0.1, mixup = yes"]
    assert [cell["beats"] for cell in cells["cells"]] == ["baseline", "not shown", "better", "better"]
    assert model["method"] == "mixed model (REML)"
    estimates = [effect["estimate"] for effect in result["effects"]]
    assert [effect["estimate"] for effect in model["effects"]] == pytest.approx(estimates, abs=1e-9)
    assert "fit" not in result
    assert main(["analyse", str(path)]) == 0
    text = capsys.readouterr().out
    assert "2 of 4 cells may be the best (Hsu, 95 %, n = 6 seeds): smoothing = 0.1, mixup = no; smoothing" in text
    assert "Against the baseline smoothing = 0.0, mixup = no (Dunnett, 95 % over all 3, n = 6 seeds). Better: " in text
    assert "Worse: none. No difference shown: 1." in text
    assert "Secondary model (mixed model (REML)): agrees with the verdict on all 3 effects." in text


def test_another_baseline(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv")
    cells = analysed(capsys, path, "--baseline", "smoothing=0.1", "--baseline", "mixup=yes")["cells"]
    assert cells["baseline"] == "smoothing = 0.1, mixup = yes"
    assert [cell["beats"] for cell in cells["cells"]] == ["worse", "worse", "not shown", "baseline"]
    assert analysed(capsys, path, "--reference", "mixup=yes")["cells"]["baseline"] == "smoothing = 0.0, mixup = yes"
    assert "--baseline smoothing: must be COLUMN=LEVEL" in fails(capsys, path, "--baseline", "smoothing")
    assert "unknown level of smoothing '1'" in fails(capsys, path, "--baseline", "smoothing=1")
    lines = [line for line in path.read_text().splitlines() if ",0.1,yes," not in line]
    path.write_text("\n".join(lines))
    message = fails(capsys, path, "--baseline", "smoothing=0.1", "--baseline", "mixup=yes")
    assert "baseline smoothing = 0.1, mixup = yes: has too few finished runs; choose another cell" in message


def test_few_seeds_are_exploratory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv")
    lines = [line for line in path.read_text().splitlines() if line.split(",")[4] in ("seed", "0", "1", "2")]
    path.write_text("\n".join(lines))
    assert main(["analyse", str(path)]) == 0
    text = capsys.readouterr().out
    assert "(Hsu, 95 %, n = 3 seeds, exploratory below 5)" in text
    assert ": below 5 seeds it is exploratory." in text
    path.write_text("\n".join(lines[:5]))
    result = analysed(capsys, path)
    assert (result["cells"], result["secondary"]) == (None, None)


def test_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["analyse", str(write(tmp_path / "r.csv"))]) == 0
    text = capsys.readouterr().out
    assert "Factors: smoothing, mixup; not run (different in every row); not model (the same in every row)" in text
    assert "Runs: 24 expected, 24 done, 0 failed, 0 missing" in text
    assert "Smoothing (0.1 against 0.0) helps: +1.08 points (95 % interval " in text
    assert "Declared effects on top1" in text
    row = next(line for line in text.splitlines() if "smoothing: 0.1 - 0.0 " in line)
    assert [cell.strip() for cell in row.split("│")[5:7]] == ["6", "<0.001"]
    assert "0.031 (0.031)" in row
    assert "1.00 (0.61 to 1.00)" in row
    assert "…" not in text


def test_percent_margin_reference_and_byte_order_mark(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = write(tmp_path / "r.csv", percent=True, bom=True)
    assert "top1 holds 89.985; pass --percent" in fails(capsys, file)
    result = analysed(capsys, file, "--percent", "--margin", "3", "--reference", "smoothing=0.1")
    assert result["effects"][0]["estimate"] == pytest.approx(-sum(GAINS) / 6, abs=1e-3)
    assert result["effects"][0]["verdict"] == "negligible"
    assert result["settings"]["margin"] == pytest.approx(3)
    assert "drop --percent" in fails(capsys, write(tmp_path / "s.csv"), "--percent")


def test_raw_metrics_and_lower_is_better(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = write(tmp_path / "r.csv", percent=True)
    arguments = [file, "--unit", "raw", "--lower-is-better", "--factors", "smoothing", "mixup"]
    assert "say with --margin" in fails(capsys, *arguments)
    assert "--percent and --unit raw" in fails(capsys, *arguments, "--margin", "0.5", "--percent")
    result = analysed(capsys, *arguments, "--margin", "0.5")
    assert result["effects"][0]["verdict"] == "hurts"
    assert result["effects"][0]["estimate"] == pytest.approx(sum(GAINS) / 6, abs=1e-3)


def test_missing_and_failed_runs_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = ["a,seed,status,top1"]
    for seed in range(6):
        rows += [f"x,{seed},done,0.{50 + seed}", f"y,{seed},done,0.{52 + seed + seed % 2}"]
    rows[2], rows[4], rows[6] = "y,0,failed,", "y,1,done,NaN", "y,2,running,0.5"
    (tmp_path / "r.csv").write_text("\n".join(rows) + "\n\n")
    result = analysed(capsys, tmp_path / "r.csv")
    assert (result["status"], result["factors"]) == ("status", ["a"])
    runs = result["runs"]
    assert (runs["expected"], runs["done"], runs["failed"], runs["missing"]) == (12, 9, 1, 2)
    assert result["effects"][0]["n"] == 3
    assert main(["analyse", str(tmp_path / "r.csv")]) == 0
    text = capsys.readouterr().out
    assert "Failed: a = y, seed 0" in text
    assert "verdict withheld" in text
    assert "needs the runs that 2 seeds lack" in text
    assert "3 of 6 blocks left out" in text


def test_a_factor_that_repeats_in_no_block_is_a_result(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = ["a,seed,top1,loss"] + [f"{a},{s},0.{5 + s}{i},{s}.{i // 2}" for s in range(4) for i, a in enumerate("uvwx")]
    (tmp_path / "r.csv").write_text("\n".join(rows))
    result = analysed(capsys, tmp_path / "r.csv")
    assert result["factors"] == ["a"]
    assert "more values than any seed has rows" in result["left_out"]["loss"]
    rows = ["a,seed,top1,loss"] + [f"{a},{s},0.{5 + s}{i},{s}.5" for s in range(4) for i, a in enumerate("uvwx")]
    (tmp_path / "r.csv").write_text("\n".join(rows))
    assert "in one seed only" in analysed(capsys, tmp_path / "r.csv")["left_out"]["loss"]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("", [], "has no rows"),
        ("a,seed,top1\n", [], "has no rows"),
        ("a,seed,acc\nx,0,0.5\n", [], "no column 'top1'; pass --metric with one of a, seed, acc"),
        ("a,fold,top1\nx,0,0.5\n", [], "no column 'seed'; pass --block with one of a, fold, top1"),
        ("a,a,seed,top1\nx,y,0,0.5\n", [], "two columns are named 'a'"),
        ("a,seed,top1\nx,0\n", [], "line 2: 2 fields where the head has 3"),
        ('a,seed,top1\n"x,0,0.5\n', [], "is no CSV"),
        ("a,seed,top1\nx,0,high\n", ["--factors", "a"], "row 1: top1 = 'high' is no number"),
        ("a,seed,top1\nx,0,0.5\nx,1,0.5\n", [], "no column looks like a factor (a: the same in every row)"),
        ("seed,top1\n0,0.5\n", [], "no column looks like a factor (there is no other column)"),
        ("a,seed,top1\nx,0,0.5\nx,0,0.6\ny,0,0.5\n", [], "two rows for a = x, seed 0: one row a run"),
        ("a,seed,top1\nx,0,0.5\n,0,0.6\ny,1,0.5\nx,1,0.5", ["--factors", "a"], "column 'a' is empty in 1 rows"),
        ("a,seed,top1\nx,0,0.5\ny,0,0.6\n", ["--factors", "b"], "no column 'b'; there are: a, seed, top1"),
        ("a,seed,top1\nx,0,0.5\ny,0,1.6\n", ["--factors", "a"], "top1 holds 1.6; pass --percent"),
        ("a,seed,top1\nx,0,0.5\ny,0,0.6\n", ["--factors", "a", "--margin", "-1"], "margin -0.01: must be above 0"),
        ("a,seed,top1\nx,0,0.5\ny,0,0.6\n", ["--factors", "a", "--reference", "a"], "must be COLUMN=LEVEL"),
        ("a,seed,top1\nx,0,0.5\ny,0,0.6\n", ["--factors", "a", "--reference", "a=z"], "unknown level of a 'z'"),
        ("a,seed,top1\nx,0,0.5\ny,0,0.6\n", ["--factors", "a", "--reference", "b=x"], "unknown factor in --reference"),
        ("a,seed,top1\nx,0,0.5\ny,0,0.6\n", ["--factors", "a", "--family", "one"], "unknown family 'one'"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, arguments: list[str], message: str
) -> None:
    (tmp_path / "r.csv").write_text(text)
    assert message in fails(capsys, tmp_path / "r.csv", *arguments)


def test_files_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such file" in fails(capsys, tmp_path / "none.csv")
    (tmp_path / "r.csv").write_bytes(b"a,seed,top1\n\xff\xfe,0,0.5\n")
    assert "no UTF-8 text" in fails(capsys, tmp_path / "r.csv")
    write(tmp_path / "r.csv")
    monkeypatch.setattr(csvtable, "MOST_ROWS", 23)
    assert "more than 23 rows" in fails(capsys, tmp_path / "r.csv")
    monkeypatch.setattr(csvtable, "MOST_BYTES", 100)
    assert "larger than" in fails(capsys, tmp_path / "r.csv")


def test_markup_in_a_level_is_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    levels = ("[red]x", "[/]")
    rows = ["a,seed,top1", *(f"{a},{s},0.{5 + i}{s + i * s}" for s in range(5) for i, a in enumerate(levels))]
    (tmp_path / "r.csv").write_text("\n".join(rows))
    assert main(["analyse", str(tmp_path / "r.csv")]) == 0
    assert "A ([/] against [red]x) helps" in capsys.readouterr().out
