"""The house stands: imports point downward, rooms that need no torch do without it, public names stay."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bagoftricks

PACKAGE = Path(bagoftricks.__file__).parent
FLOORS = (
    ("__init__", "__main__", "cli"),
    ("commands",),
    ("console", "flags", "loggers", "progress"),
    ("reports",),
    ("studies",),
    ("serving",),
    ("training",),
    ("study_folder",),
    ("store",),
    ("catalogue",),
    ("recipe",),
    ("tricks",),
    ("optim",),
    ("models",),
    ("kernels",),
    ("data",),
    ("rng",),
    ("files", "errors", "intervals", "dotted", "terminal"),
)
RANK = {room: rank for rank, rooms in enumerate(FLOORS) for room in rooms}


def arrows() -> list[tuple[str, str, str]]:
    """(file, room it is in, room it imports) of every import inside the package, those within functions too."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: import by the full name"
                names = (
                    [f"{node.module}.{alias.name}" for alias in node.names]
                    if node.module == "bagoftricks"
                    else [str(node.module)]
                )
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                parts = name.split(".")
                if parts[0] == "bagoftricks" and len(parts) > 1 and not parts[1].startswith("__version"):
                    found.append((str(path.relative_to(PACKAGE)), room, parts[1]))
    return found


def test_imports_point_downward() -> None:
    found = arrows()
    assert len(found) > 50
    wrong = [(file, target) for file, room, target in found if RANK[target] < RANK[room]]
    assert wrong == []


def test_every_room_has_a_floor() -> None:
    rooms = {
        path.name.removesuffix(".py")
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms == set(RANK)


@pytest.mark.parametrize(
    "code",
    [
        "import bagoftricks; dir(bagoftricks)",
        "import bagoftricks.recipe as r; r.Recipe().to_toml(); r.field_help()",
        "import bagoftricks.store",
        "import bagoftricks.studies.study_file as d; [d.load_study(p).cells for p in d.PRESETS]",
        "import bagoftricks.studies.run",
        "import bagoftricks.reports.report, bagoftricks.reports.charts, bagoftricks.console",
        "import bagoftricks.data.sources as s; s.open_data('digits').fingerprint",
        "import bagoftricks.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass",
        "import bagoftricks.cli as c\ntry: c.main(['study', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_works_without_torch(code: str) -> None:
    checked = f"{code}\nimport sys\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_training_imports_only_its_dependencies() -> None:
    code = (
        "import sys, bagoftricks.training.train\n"
        "heavy = {'pandas', 'altair', 'vl_convert', 'jinja2', 'rich', 'scipy.stats', 'statsmodels', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_no_python_is_installed_too() -> None:
    """A checkout works without: presets, the report's template and the kernels' source must be named to be packed."""
    named = tomllib.loads((PACKAGE.parent.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {path for pattern in named["bagoftricks"] for path in PACKAGE.glob(pattern)}
    there = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".so")}
    assert {path.suffix for path in there} >= {".toml", ".j2", ".css", ".js", ".c", ".html"}
    assert packed == there


def test_public_names() -> None:
    assert bagoftricks.__all__ == [
        "Classifier",
        "Listener",
        "Prediction",
        "Recipe",
        "ResNet",
        "Result",
        "RunError",
        "Study",
        "UserError",
        "load_model",
        "load_study",
        "open_data",
        "run_study",
        "train",
        "write_report",
    ]
    for name in bagoftricks.__all__:
        assert getattr(bagoftricks, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bagoftricks.nothing  # noqa: B018
