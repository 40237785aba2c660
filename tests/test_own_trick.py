"""The page on how to write a trick, followed to the letter in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_docs import blocks, commands

PAGE = ROOT / "docs" / "how-to" / "own-trick.md"
TRICK, FIELD = "src/bagoftricks/tricks/input_noise.py", "src/bagoftricks/recipe.py"
TEST, CHANGES = "tests/tricks/test_input_noise.py", "CHANGELOG.md"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which the page's four files are as it says."""
    copy = tmp_path_factory.mktemp("copy") / "project"
    unwanted = shutil.ignore_patterns("__pycache__", "_build", "*.so", "results", "images", "work")
    for name in ("src", "tests", "docs", "bench"):
        shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
    for name in ("pyproject.toml", "Makefile", "README.md", CHANGES):
        shutil.copy(ROOT / name, copy / name)
    text = PAGE.read_text(encoding="utf-8")
    for name in (TRICK, FIELD, TEST, CHANGES):
        assert f"`{name}`" in text
    trick, imported, field, test = blocks(PAGE, "python")
    (line,) = blocks(PAGE, "text")
    (copy / TRICK).write_text(trick)
    (copy / TEST).write_text(test)
    insert(copy / FIELD, imported, before="from bagoftricks.tricks.label_smoothing import")
    insert(copy / FIELD, f"    {field}", before="    label_smoothing: LabelSmoothing")
    insert(copy / CHANGES, line, before="- Data: folders of images")
    return copy


def insert(path: Path, line: str, before: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(f"\n{before}") == 1
    path.write_text(text.replace(f"\n{before}", f"\n{line}{before}"), encoding="utf-8")


def run(project: Path, *command: str) -> str:
    here = {**os.environ, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}
    here.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, env=here, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_line_goes_after_the_one_that_the_page_names(project: Path) -> None:
    lines = (project / FIELD).read_text().splitlines()
    place = lines.index("    input_noise: InputNoise = InputNoise()")
    assert lines[place - 1].startswith("    random_erasing: ")


def test_its_tests_and_those_of_all_tricks_pass(project: Path) -> None:
    said = run(
        project, "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", TEST, "tests/tricks/test_every_trick.py",
        "-k", "input_noise",
    )  # fmt: skip
    assert re.search(r"\b6 passed", said)  # four of its own, and two of all


def test_it_has_the_houses_style(project: Path) -> None:
    run(project, "ruff", "check", TRICK, FIELD, TEST)
    run(project, "ruff", "format", "--check", TRICK, FIELD, TEST)


def test_the_commands_of_the_page(project: Path) -> None:
    shown, trained = commands(PAGE, "tricks")
    assert "add Gaussian noise to the normalised images" in run(project, "bagoftricks", *shown[1:])
    run(project, "bagoftricks", *trained[1:])
    (recipe,) = (project / "noisy").glob("runs/*/recipe.toml")
    assert "[input_noise]\nstd = 0.1\n" in recipe.read_text()


def test_the_documentation_knows_it(project: Path) -> None:
    shutil.copytree(ROOT / "docs" / "results", project / "docs" / "results", dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "docs/generate.py"], cwd=project, env={**os.environ, "PYTHONPATH": str(project / "src")},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Bishop 1995" in (project / "docs" / "reference" / "tricks.md").read_text()
