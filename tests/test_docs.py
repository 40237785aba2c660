"""The documentation is held to the program: generated pages are current, commands run, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bagoftricks.cli import main
from bagoftricks.models.resnet import ResNet
from bagoftricks.studies.design import PRESETS
from tests.conftest import ROOT, make_photos
from tests.reports.test_report import make_study

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SMALL = ["--size", "32", "--epochs", "1", "--batch-size", "8"]


def commands(page: Path, first: str) -> list[list[str]]:
    """Every command of a page's shell blocks that starts with a word, its comment left out."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.strip().replace(".venv/bin/", "") for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.split()[:1] == [first]]


TRICKS = [(page, command) for page in PAGES for command in commands(page, "tricks")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the documentation's commands name."""
    top = tmp_path_factory.mktemp("desk")
    desk, shared = top / "main", top / "shared"
    make_photos(desk / "photos")
    make_photos(shared / "data" / "caltech-101" / "101_ObjectCategories")
    make_photos(desk / "caltech-101" / "101_ObjectCategories")
    make_study(desk / "study", seeds=1)
    make_study(desk / "study-quickstart", seeds=1, preset="quickstart", missing="")
    state = {key: value.to(torch.float16) for key, value in ResNet("B", num_classes=3).state_dict().items()}
    (shared / "weights").mkdir()
    for path in (desk / "resnet50.safetensors", shared / "weights" / "resnet50_imagenet.safetensors"):
        save_file(state, path)
    return desk


@pytest.mark.parametrize(("page", "command"), TRICKS, ids=[" ".join(command) for _, command in TRICKS])
def test_commands_run(page: Path, command: list[str], desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, but small: images of 32 pixels, one epoch, and studies planned rather than run."""
    monkeypatch.chdir(desk)
    for text in re.findall(r" *```toml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        Path("mine.toml").write_text(textwrap.dedent(text))
    arguments = command[1:]
    if arguments[0] == "train":
        arguments = [*arguments, *SMALL]
    if arguments[0] == "study":
        assert arguments[1] in (*PRESETS, "mine.toml")
        arguments = [*arguments, *SMALL, "--dry-run", "--out", "elsewhere"]
    assert main(arguments) == 0


def test_there_are_commands() -> None:
    assert len(TRICKS) > 10
    assert commands(ROOT / "README.md", "make") == [["make", "study"], ["make", "test"]]


@pytest.mark.parametrize("target", ["study", "test", "check", "docs"])
def test_make_targets_exist(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_python_names_exist() -> None:
    import bagoftricks as bot

    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    used = set(re.findall(r"bot\.(\w+)", block))
    assert used == {"run_study", "write_report", "Recipe", "train", "load_model"}
    assert used <= set(bot.__all__)
    compile(block, "README.md", "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def test_generated_pages_are_current() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for page, write in generate.PAGES.items():
        assert (generate.REFERENCE / page).read_text(encoding="utf-8") == write(), f"run `make docs`: {page}"
    assert {"label_smoothing", "mixup"} <= set(generate.TRICKS)
