"""A study folder of somebody else: nothing in it is executed, leads elsewhere, or is obeyed by a terminal."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bagoftricks
from bagoftricks.cli import main
from bagoftricks.errors import RunError
from bagoftricks.reports.report import write_report
from bagoftricks.reports.results import read_results
from tests.security.conftest import SECRET

ESCAPE = "\x1b]0;pwned\x07\x1b[2J\u202e"
Look = Callable[[], dict[str, bytes]]


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_plan(folder: Path, *keys: str | int, to: Any) -> None:
    """Sets what `keys` lead to; a text that is no JSON goes in as it is."""
    plan = json.loads((folder / "plan.json").read_text())
    owner = plan
    for key in keys[:-1]:
        owner = owner[key]
    owner[keys[-1]] = to
    (folder / "plan.json").write_text(json.dumps(plan))


def refused(folder: Path, capsys: pytest.CaptureFixture[str], message: str, commands: str = "status report") -> None:
    """Both commands end with one line that a terminal shows and does not obey, and write nothing."""
    for command in commands.split():
        assert main([command, str(folder)]) in (1, 2)
        said = capsys.readouterr()
        assert message in said.err
        assert said.err.count("\n") == 1
        assert said.err.strip().isprintable()
        assert SECRET not in said.out + said.err
    assert not (folder / "report" / "report.html").exists()


def test_the_folder_is_read_as_it_is(folder: Path) -> None:
    """What is refused below is refused for what was changed."""
    assert len(read_results(folder).done) == 4


# --------------------------------------------------------------------------------------------------- nothing leads out


@pytest.mark.parametrize(
    "name",
    ["../../own/kept", "..", ".", "/etc", "a/b", "a\\b", "C:x", ".hidden", "", "x" * 201, "a\0b", "a\nb", ESCAPE, 7,
     None],
)  # fmt: skip
def test_ids_lead_nowhere(folder: Path, own: Look, capsys: pytest.CaptureFixture[str], name: Any) -> None:
    before = own()
    change_plan(folder, "runs", 0, "id", to=name)
    refused(folder, capsys, "damaged")
    assert own() == before


def test_a_run_elsewhere_is_not_read(folder: Path) -> None:
    """It would be there: this is the id of what the user keeps beside the folder."""
    assert (folder / "runs" / "../../own/kept" / "result.json").is_file()
    change_plan(folder, "runs", 0, "id", to="../../own/kept")
    with pytest.raises(RunError, match="no identity"):
        read_results(folder)


FILES = ["plan.json", "test.json", "data/check.json", "data/mistakes.json", "data/samples.jpg", "models/a.json",
         "runs/0000-0/result.json", "runs/0000-0/environment.json", "runs/0000-0/metrics.jsonl",
         "runs/0000-0/predictions.npz", "failures/0000-0.json", "locks/0000-0"]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_links_to_files_are_not_followed(
    folder: Path, own: Look, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(folder.parent / "own" / "secret.json")
    before = own()
    refused(folder, capsys, "is a link")
    assert own() == before


@pytest.mark.parametrize("name", ["data", "models", "failures", "locks", "runs", "runs/0000-0"])
def test_links_to_folders_are_not_followed(
    folder: Path, own: Look, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (folder / name).rename(folder.parent / "moved")
    (folder / name).symlink_to(folder.parent / "moved")
    before = own()
    refused(folder, capsys, "is a link")
    assert own() == before


@pytest.mark.parametrize("name", ["report", "report/tables", "report/charts"])
def test_a_report_is_not_written_where_a_link_leads(folder: Path, own: Look, name: str) -> None:
    if name == "report":
        (folder / name).rmdir()
    (folder / name).symlink_to(folder.parent / "own")
    before = own()
    with pytest.raises(RunError, match="is a link; remove it, or pass --out"):
        write_report(folder)
    assert own() == before


def test_a_report_may_go_where_its_user_says(folder: Path, own: Look) -> None:
    (folder / "report").rmdir()
    (folder / "report").symlink_to(folder.parent / "own")
    (folder.parent / "link").symlink_to(folder)
    before = own()
    page = write_report(folder.parent / "link", folder.parent / "elsewhere")
    assert page.is_file()
    assert {name: text for name, text in own().items() if "/elsewhere" not in name} == before


def test_the_folder_itself_may_be_a_link(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert len(read_results(link).done) == 4


def test_the_cache_may_be_a_link(folder: Path) -> None:
    (folder / "cache").symlink_to(folder.parent / "own")
    assert len(read_results(folder).done) == 4


@pytest.mark.parametrize("name", FILES)
def test_pipes_are_not_waited_for(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    refused(folder, capsys, "no plain file")


@pytest.mark.parametrize("name", FILES)
def test_giants_are_not_read(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (folder / name).touch()
    os.truncate(folder / name, 2**33)  # a hole, which takes no disk
    refused(folder, capsys, "8,589,934,592 bytes, more than")


# ------------------------------------------------------------------------------------------------------ wrong values


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("study",), [], "study must be a table"),
        (("study", "name"), 7, "study.name must be text"),
        (("study", "seeds"), [1.5], "study.seeds[0] must be a whole number"),
        (("study", "factors"), {"a": "b"}, "study.factors.a must be a list"),
        (("study", "factors"), {"mixup.alpha": [0.0, 0.2]}, "a cell lacks the level of a factor"),
        (("study", "recipe"), {"epochs": [1]}, "study.recipe.epochs must be"),
        (("study", "recipe"), {"optimizer.lr": float("nan")}, "nan"),
        (("study", "tables"), [{"title": "t", "rows": [{"cell": 1}]}], "cell must be text"),
        (("study", "labels"), {"a": "b"}, "study.labels.a must be a table"),
        (("data", "class_names"), "abc", "data.class_names must be a list"),
        (("data", "leaks"), {"0": float("inf")}, "inf"),
        (("hardware", "threads"), True, "hardware.threads must be a whole number"),
        (("hardware",), None, "hardware must be a table"),
        (("cells", 0), "x", "cells[0] must be a table"),
        (("cells", 0, "name"), ["x"], "cells[0].name must be text"),
        (("runs",), {}, "runs must be a list"),
        (("runs", 0, "seed"), "0", "runs[0].seed must be a whole number"),
        (("runs", 0, "seed"), True, "runs[0].seed must be a whole number"),
        (("runs", 0, "cell"), "another", "a run is of none"),
        (("schema",), 2, "later version"),
    ],
)  # fmt: skip
def test_plans(
    folder: Path, capsys: pytest.CaptureFixture[str], keys: tuple[str | int, ...], value: Any, message: str
) -> None:
    change_plan(folder, *keys, to=value)
    assert main(["status", str(folder)]) in (1, 2)
    assert message.lower() in capsys.readouterr().err.lower()


def test_a_plan_of_too_many_cells(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    one = plan["cells"][0]
    change(folder / "plan.json", cells=[*plan["cells"], *({**one, "name": f"c{i}"} for i in range(10_001))])
    refused(folder, capsys, "10,003 cells and 4 runs are too many")


@pytest.mark.parametrize(
    "changes",
    [{"top1": "0.5"}, {"top1": True}, {"top1": None}, {"top1": [1]}, {"top1": float("nan")}, {"loss": float("inf")},
     {"seconds": {}}, {"train_images": 1.5}, {"weights": "x"}],
)  # fmt: skip
def test_results(folder: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]) -> None:
    change(folder / "runs" / "0000-0" / "result.json", **changes)
    refused(folder, capsys, "result.json: damaged")


@pytest.mark.parametrize("text", ["[" * 100_000, "", "[]", "null", '{"top1": 1e999}', '{"top1": ' + "9" * 5_000 + "}"])
@pytest.mark.parametrize("name", ["plan.json", "runs/0000-0/result.json"])
def test_text_that_is_no_object(folder: Path, capsys: pytest.CaptureFixture[str], name: str, text: str) -> None:
    (folder / name).write_text(text)
    refused(folder, capsys, "tricks: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data/check.json", {"name": "n", "findings": ["f"], "counts": {"a": "b"}}),
        ("data/check.json", {"name": "n", "findings": "f", "counts": {}}),
        ("data/mistakes.json", {"cell": "c", "runs": 1, "images": 1, "wrong": 1, "mistakes": [{"jpeg": 1}]}),
        ("data/mistakes.json", {"cell": "c", "runs": 1, "images": "x", "wrong": 1, "mistakes": []}),
        ("models/a.json", {"name": "a", "stages": []}),
        ("models/a.json", {"name": 7}),
        ("test.json", {"looks": [{"run": "a", "cell": "b", "when": "c", "images": 1, "top1": "x"}]}),
    ],
)  # fmt: skip
def test_what_only_a_report_reads(folder: Path, capsys: pytest.CaptureFixture[str], name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value))
    refused(folder, capsys, "damaged", "report")


# ------------------------------------------------------------------------------------------------------ terminals


def test_names_are_shown_and_not_obeyed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cells, data, classes, errors of runs, warnings, titles: whatever the commands print."""
    plan = json.loads((folder / "plan.json").read_text())
    name = f"cell{ESCAPE}"
    old = plan["cells"][0]["name"]
    text = json.dumps(plan).replace(json.dumps(old), json.dumps(name))
    plan = json.loads(text)
    plan["study"] |= {"name": f"s{ESCAPE}", "title": ESCAPE, "about": ESCAPE}
    plan["data"] |= {"name": ESCAPE, "class_names": [f"{ESCAPE}{i}" for i in range(8)]}
    plan["study"]["tables"] = [{"title": ESCAPE, "source": ESCAPE, "rows": [{"cell": name, "top1": 0.5}]}]
    (folder / "plan.json").write_text(json.dumps(plan))
    change(folder / "runs" / "0000-0" / "result.json", weights={"warning": ESCAPE, "source": ESCAPE})
    (folder / "runs" / "0001-1" / "result.json").unlink()
    (folder / "failures" / "0001-1.json").write_text(json.dumps({"error": f"broke {ESCAPE}"}))
    for command in ("status", "report"):
        assert main([command, str(folder)]) == 0
        said = capsys.readouterr()
        assert r"\x1b" in said.out
        assert [line for line in (said.out + said.err).splitlines() if not line.isprintable()] == []
    for path in (folder / "report").rglob("*"):
        if path.suffix in (".csv", ".md", ".tex", ".svg", ".toml"):
            assert "\x1b" not in path.read_text(encoding="utf-8"), path


# --------------------------------------------------------------------------------------------------- nothing executes

SOURCES = sorted(Path(bagoftricks.__file__).parent.rglob("*.py"))
FORBIDDEN = {"pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "marshal.load", "shelve.open",
             "joblib.load", "pandas.read_pickle", "pd.read_pickle", "yaml.load", "yaml.unsafe_load", "os.system",
             "os.popen", "runpy.run_path", "torch.jit.load", "torch.hub.load",
             "importlib.util.module_from_spec"}  # fmt: skip


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def given(call: ast.Call, name: str) -> object:
    found = [word.value for word in call.keywords if word.arg == name]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_nothing_executes_what_it_reads(path: Path) -> None:
    """No pickle is read, no text is run as code or as a command, no shell is started, in any module."""
    for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
        assert name not in FORBIDDEN
        assert name not in ("eval", "exec", "compile", "__import__")
        if name == "torch.load":
            assert given(call, "weights_only") is True
        if name in ("np.load", "numpy.load", "np.lib.format.read_array"):
            assert given(call, "allow_pickle") in (None, False)
        assert given(call, "shell") is not True


def test_that_test_sees_calls() -> None:
    found = [name for path in SOURCES for name, _ in calls(ast.parse(path.read_text(encoding="utf-8")))]
    assert found.count("torch.load") >= 1
    assert len(SOURCES) > 80
