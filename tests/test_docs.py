"""The documentation is held to the program: pages are current, commands run, code works, links lead somewhere."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch
from safetensors.torch import save_file

from bagoftricks.cli import main, parser
from bagoftricks.commands import COMMANDS, DONE, FAILED, INTERRUPTED, WRONG
from bagoftricks.data.sources import open_data
from bagoftricks.files import write_json
from bagoftricks.models.resnet import ResNet
from bagoftricks.recipe import Recipe
from bagoftricks.studies.design import PRESETS, Study
from bagoftricks.studies.inference import detectable
from bagoftricks.studies.study_file import study_to_dict
from bagoftricks.training.adapt import AdaptConfig
from bagoftricks.training.train import train
from tests.conftest import ROOT, make_photos
from tests.reports.test_report import make_study
from tests.tricks.teachers import write_teacher

DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts),
]
SMALL = ["--size", "32", "--epochs", "1", "--batch-size", "8"]
ELSEWHERE = DOCS / "how-to" / "results-made-elsewhere.md"


def blocks(page: Path, language: str) -> list[str]:
    """Every block of a page in a language, those inside lists too."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    return [textwrap.dedent(block) for block in found]


def commands(page: Path, first: str) -> list[list[str]]:
    """Every command of a page's shell blocks that starts with a word, its comment left out."""
    lines = [line.strip().replace(".venv/bin/", "") for block in blocks(page, "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.split()[:1] == [first]]


TRICKS = {  # what several pages say runs once, but for what a page's own mine.toml decides
    " ".join(command) + (f" ({page.name})" if "mine.toml" in command else ""): (page, command)
    for page in PAGES
    if page.name != "own-trick.md"
    for command in commands(page, "tricks")
}
PYTHON = [(page, block) for page in PAGES for block in blocks(page, "python")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the documentation's commands name."""
    top = tmp_path_factory.mktemp("desk")
    desk, shared = top / "main", top / "shared"
    make_photos(desk / "photos")
    make_photos(shared / "data" / "caltech-101" / "101_ObjectCategories")
    make_photos(desk / "caltech-101" / "101_ObjectCategories")
    make_study(desk / "study", seeds=1)
    make_study(desk / "study-quickstart", preset="quickstart", seeds=5, missing="")
    for seed in range(5):
        write_teacher(desk / "teachers" / str(seed), open_data(desk / "photos").classes, seed)
    make_kept_study(desk / "study-photos", desk / "photos", "mixup.alpha=0.2")
    kept = min((desk / "study-photos" / "runs").iterdir())
    shutil.copytree(kept, desk / "trained" / "runs" / kept.name)  # as after one training
    write_manifest(desk / "photos" / "images.csv", desk / "photos")
    (desk / "results.csv").write_text(blocks(ELSEWHERE, "text")[0], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        (convert,) = blocks(ELSEWHERE, "python")
        exec(convert, {})  # writes quickstart.csv
    state = {key: value.to(torch.float16) for key, value in ResNet("B", num_classes=3).state_dict().items()}
    (shared / "weights").mkdir()
    for path in (desk / "resnet50.safetensors", shared / "weights" / "resnet50_imagenet.safetensors"):
        save_file(state, path)
    return desk


def make_kept_study(root: Path, photos: Path, cell: str) -> None:
    """Writes a study folder of two seeds, truly trained, with their models and images locked away for a test."""
    small = {"epochs": 1, "batch_size": 8, "model.depth": 10, "model.tweaks": "A", "input.size": 32}
    recipe = Recipe().with_fields({**small, "mixup.alpha": 0.2, "split.test_fraction": 0.2})
    runs = [{"id": train(recipe, photos, seed=seed, out=root).id, "cell": cell, "seed": seed} for seed in (0, 1)]
    study = study_to_dict(Study("made", recipe))
    rest = {"data": {}, "hardware": {}, "cells": [{"name": cell, "levels": {}}]}
    write_json(root / "plan.json", {"schema": 1, "study": study, "runs": runs, **rest})


def write_manifest(path: Path, photos: Path) -> None:
    """Lists images in folders, two of each class to a group."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split", "group"])
        for image in sorted(photos.rglob("*.jpg")):
            patient = f"{image.parent.name}-{int(image.stem) // 2}"
            table.writerow([image.relative_to(path.parent), image.parent.name, "", patient])


@pytest.mark.parametrize(("page", "command"), TRICKS.values(), ids=TRICKS.keys())
def test_commands_run(page: Path, command: list[str], desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, but small: images of 32 pixels, one epoch, one batch to adapt by; studies are planned, and downloads
    parsed only."""
    monkeypatch.chdir(desk)
    monkeypatch.setattr(AdaptConfig.__init__, "__defaults__", (1, 3e-3, 1, 5e-4, 1))
    for text in blocks(page, "toml"):
        Path("mine.toml").write_text(text)
    arguments = command[1:]
    if arguments[:2] == ["data", "fetch"] or arguments == ["bench"]:  # tests/test_bench_command.py measures, but less
        parser(arguments).parse_args(arguments)
        return
    if arguments[0] == "serve":
        check_serves(arguments[1:])
        return
    if any(":" in part and not part.startswith("adapt:") for part in arguments) or "--download" in arguments:
        parser(arguments).parse_args(arguments)  # published weights: nothing is downloaded here
        return
    if arguments[0] == "train":
        own = "--out" in arguments and arguments[arguments.index("--out") + 1] != "trained"
        arguments = [*arguments, *SMALL, *([] if own else ["--out", "elsewhere-trained"])]  # "trained" holds one model
    if arguments[0] == "lr-find":
        arguments = [*arguments, *SMALL, "--steps", "40"]
    if arguments[0] == "adapt":
        arguments = [*arguments, "--size", "32", "--part-steps", "1", "--whole-steps", "1"]
    if arguments[0] == "study":
        named = arguments[1] in (*PRESETS, "mine.toml")
        study = arguments[1] if named else str(ROOT / arguments[1])  # a file of the checkout's
        arguments = ["study", study, *arguments[2:], *SMALL, "--dry-run", "--out", "elsewhere"]
        # what a step costs is measured once, by the README's
        if page.name != "README.md":
            monkeypatch.setattr("bagoftricks.studies.cost._probe", lambda run, plan: (100.0, 2**30))
    assert main(arguments) == 0


def check_serves(arguments: list[str]) -> None:
    """Serves as the page says, but on a port that is free and without a browser, and asks whether it is there."""
    rest = [part for part in arguments if part != "--open"]
    command = [sys.executable, "-m", "bagoftricks", "serve", *rest, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            port = json.loads(process.stdout.readline())["url"].rstrip("/").rpartition(":")[2]
            with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
                assert json.load(answer) == {"status": "ok"}
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


def test_there_are_commands() -> None:
    assert len(TRICKS) > 30
    found = {command[1] for _, command in TRICKS.values()}
    assert found >= {name.replace("_", "-") for name in COMMANDS} - {"completion"}
    assert commands(ROOT / "README.md", "make") == [["make", "study"], ["make", "test"]]


@pytest.mark.parametrize("target", ["study", "test", "check", "docs"])
def test_make_targets_exist(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_python_names_exist() -> None:
    import bagoftricks as bot

    (block,) = blocks(ROOT / "README.md", "python")
    used = set(re.findall(r"bot\.(\w+)", block))
    assert used == {"run_study", "write_report", "Recipe", "train", "load_model"}
    assert used <= set(bot.__all__)


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[f"{page.name}-{i}" for i, (page, _) in enumerate(PYTHON)])
def test_python_compiles(page: Path, block: str) -> None:
    compile(block, page.name, "exec")


def test_the_analysis_says_what_the_page_says(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = blocks(ELSEWHERE, "text")[1].strip()
    assert main(["analyse", str(desk / "results.csv")]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


def test_the_written_table_holds_the_study(desk: Path) -> None:
    rows = list(csv.DictReader((desk / "quickstart.csv").read_text(encoding="utf-8").splitlines()))
    plan = json.loads((desk / "study-quickstart" / "plan.json").read_text())
    assert len(rows) == len(plan["runs"]) == 20
    assert set(rows[0]) == {*plan["study"]["factors"], "seed", "top1"}
    by_levels = {(r["schedule.decay"], r["label_smoothing.amount"], r["seed"]): float(r["top1"]) for r in rows}
    names = [cell["name"] for cell in plan["cells"]]
    assert by_levels["cosine", "0.1", "2"] == pytest.approx(0.5 + 0.02 * names.index("c+l") + 0.002)


def test_seeds_and_what_they_find() -> None:
    """The table in the explanation of verdicts is what the planner computes."""
    text = (DOCS / "explanation" / "verdicts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", text, flags=re.M)
    assert len(rows) == 5
    for seeds, alone, of_twelve in rows:
        assert float(alone) == pytest.approx(detectable(int(seeds)), abs=0.005)
        assert float(of_twelve) == pytest.approx(detectable(int(seeds), tests=12), abs=0.005)


def test_exit_statuses() -> None:
    text = (DOCS / "reference" / "exit-status.md").read_text(encoding="utf-8")
    assert [int(status) for status in re.findall(r"^\| (\d+) \|", text, flags=re.M)] == [
        DONE,
        FAILED,
        WRONG,
        INTERRUPTED,
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def load_generator() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return generate


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_placeholder_is_left(page: Path) -> None:
    assert re.findall(r"\bMEASURED_[A-Z]+|\bTODO\b|\bTBD\b", page.read_text(encoding="utf-8")) == []


def test_generated_pages_are_current() -> None:
    generate = load_generator()
    for page, write in generate.PAGES.items():
        assert (DOCS / page).read_text(encoding="utf-8") == write(), f"run `make docs`: {page}"


def test_the_reference_names_everything() -> None:
    import bagoftricks as bot

    api = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    assert re.findall(r"^## `(\w+)`$", api, flags=re.M) == bot.__all__
    page = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    headings = {name.split()[0] for name in re.findall(r"^## `tricks ([\w -]+)`$", page, flags=re.M)}
    assert headings == {name.replace("_", "-") for name in COMMANDS}


def test_examples_in_the_help_are_valid() -> None:
    """Each is parsed; redirections are the shell's."""
    lines = [line for block in blocks(DOCS / "reference" / "commands.md", "text") for line in block.splitlines()]
    examples = [shlex.split(line.partition(" > ")[0], comments=True) for line in lines if "[FLAGS]" not in line]
    assert len(examples) > 10
    for _, *arguments in examples:
        parser(arguments).parse_args(arguments)


@pytest.mark.skipif(importlib.util.find_spec("myst_parser") is None, reason="sphinx is not installed: make docs")
def test_the_site_builds(tmp_path: Path) -> None:
    """Without a warning, so that every link inside, anchors too, leads somewhere, and no page is left out."""
    pages = shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("_build", "__pycache__"))
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", pages, tmp_path / "html"]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "reference" / "api.html").is_file()
