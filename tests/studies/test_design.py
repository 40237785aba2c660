from __future__ import annotations

from pathlib import Path

import pytest

from bagoftricks.commands import STUDIES
from bagoftricks.errors import UserError
from bagoftricks.studies.design import PRESETS, Study
from bagoftricks.studies.study_file import load_recipe, load_study, parse_study, study_from_dict, study_to_dict

LEVELS = "[" + ",\n".join(map(str, range(1, 1003))) + "]"
FACTORS = """
[factors]
"model.tweaks" = ["A", "B", "BC"]
"mixup.alpha" = [0.0, 0.2]
"""


def names(text: str) -> list[str]:
    return [cell.name for cell in parse_study(text).cells]


def test_full() -> None:
    assert names(f"design = 'full'\n{FACTORS}") == [
        "baseline",
        "mixup.alpha=0.2",
        "model.tweaks=B",
        "model.tweaks=B+mixup.alpha=0.2",
        "model.tweaks=BC",
        "model.tweaks=BC+mixup.alpha=0.2",
    ]


def test_one_at_a_time() -> None:
    assert names(f"design = 'one-at-a-time'\n{FACTORS}") == [
        "baseline",
        "model.tweaks=B",
        "model.tweaks=BC",
        "mixup.alpha=0.2",
    ]


def test_ladder_keeps_each_step() -> None:
    study = parse_study(f"design = 'ladder'\n{FACTORS}")
    steps = [(cell.recipe.model.tweaks, cell.recipe.mixup.alpha) for cell in study.cells]
    assert steps == [("A", 0), ("B", 0), ("BC", 0), ("BC", 0.2)]


def test_listed_cells_take_names_and_first_levels() -> None:
    text = f"design = 'cells'\n{FACTORS}\n[[cells]]\nname = 'mine'\n'mixup.alpha' = 0.2\n[[cells]]\n"
    (mine, base) = parse_study(text).cells
    assert (mine.name, mine.recipe.model.tweaks, mine.recipe.mixup.alpha) == ("mine", "A", 0.2)
    assert base.name == "baseline"


def test_a_level_is_the_factors_own_however_a_cell_spells_it() -> None:
    study = Study("s", factors={"mixup.alpha": [0.0, 0.2], "epochs": [1, 2]}, design="cells", listed=(
        {"mixup.alpha": 0}, {"mixup.alpha": 0.2, "epochs": 2.0},
    ))  # fmt: skip
    assert [[repr(level) for level in cell.levels.values()] for cell in study.cells] == [["0.0", "1"], ["0.2", "2"]]


def test_the_paper_is_its_eighteen_cells() -> None:
    study = load_study("paper")
    cells = {cell.name: cell.recipe for cell in study.cells}
    combinations = ("c", "l", "m", "c+l", "c+m", "l+m", "c+l+m")
    assert list(cells) == [*"ABCD", *(f"A+{x}" for x in combinations), *(f"B+{x}" for x in combinations)]
    recipe = cells["B+c+l+m"]
    assert (recipe.model.tweaks, recipe.schedule.decay) == ("B", "cosine")
    assert (recipe.label_smoothing.amount, recipe.mixup.alpha) == (0.1, 0.2)
    plain = cells["A"]
    assert (plain.schedule.decay, plain.label_smoothing.amount, plain.mixup.alpha) == ("constant", 0, 0)
    for recipe in cells.values():
        assert (recipe.batch_size, recipe.epochs, recipe.input.size) == (64, 10, 224)
        assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.split.val_fraction) == ("adam", 0.001, 0.2)
    published = {row.cell: (row.top1, row.top5) for table in study.tables for row in table.rows}
    assert set(published) == set(cells)
    assert published["B"] == (0.79, 0.95)
    assert published["A+c+l"] == (0.93, 0.99)
    opened = " ".join(item["what"].lower() for item in study.assumptions)
    for question in ("optimiser", "rate", "image size", "alpha", "initial weights", "contain b"):
        assert question in opened


@pytest.mark.parametrize("preset", PRESETS)
def test_every_shipped_study_parses_and_survives_its_plan(preset: str) -> None:
    study = load_study(preset)
    assert study_from_dict(study_to_dict(study)) == study
    cells = {cell.name for cell in study.cells}
    assert {row.cell for table in study.tables for row in table.rows} <= cells
    assert study.about
    assert study.title


def test_he2019_is_a_ladder() -> None:
    cells = load_study("he2019").cells
    names = ["A", "s+A", "s+w+A", "s+w+z+A", *(f"s+w+z+n+{rest}" for rest in ("A", "B", "BC", "BCD"))]
    names += [f"s+w+z+n+BCD+{rest}" for rest in ("c", "c+l", "c+l+m")]
    assert [cell.name for cell in cells] == names
    plain, last = cells[0].recipe, cells[-1].recipe
    assert (plain.batch_size, plain.schedule.decay, plain.schedule.warmup_epochs) == (32, "step", 0.0)
    assert list(plain.tricks) == ["lr_scaling"]
    assert not plain.model.zero_init_gamma
    assert list(last.tricks) == ["label_smoothing", "mixup", "lr_scaling", "no_bias_decay"]
    assert (last.batch_size, last.schedule.decay, last.schedule.warmup_epochs) == (128, "cosine", 1.25)
    assert last.lr_scaling.on_lr(last.optimizer.lr, last.batch_size) == pytest.approx(0.05)
    assert last.model.zero_init_gamma


def test_strikes_back_leaves_out_one_part_at_a_time() -> None:
    cells = {cell.name: cell.recipe for cell in load_study("strikes-back").cells}
    whole = set(cells["A2"].tricks)
    parts = {"bce", "mixup", "cutmix", "rand_augment", "repeated_augmentation", "stochastic_depth"}
    assert whole == parts | {"no_bias_decay"}
    left_out = {name: whole - set(recipe.tricks) for name, recipe in cells.items() if name.startswith("without")}
    assert sorted(map(tuple, left_out.values())) == sorted((part,) for part in parts)
    assert set(cells["plain"].tricks) == {"label_smoothing", "no_bias_decay"}


def test_best_stands_beside_the_papers_own_cell() -> None:
    """Their difference is that of the recipes: A+c+l is the paper's in every field but how copies are split."""
    cells = {cell.name: cell.recipe for cell in load_study("best").cells}
    (papers,) = (cell.recipe for cell in load_study("paper").cells if cell.name == "A+c+l")
    assert cells["A+c+l"] == papers.with_fields({"split.duplicates": "together"})
    assert cells["best"] == load_study("best").recipe == load_recipe("best")
    assert (cells["best"].epochs, cells["best"].batch_size) == (papers.epochs, papers.batch_size)


def test_commands_name_every_preset() -> None:
    assert f"{', '.join(PRESETS)}, or a TOML file" == STUDIES


def test_adapted() -> None:
    study = load_study("paper").adapted({"epochs": 2, "input.size": 64, "batch_size": 64}, seeds=3)
    assert study.changes == {"epochs": 2, "input.size": 64}
    assert study.seeds == (0, 1, 2)
    assert all((cell.recipe.epochs, cell.recipe.input.size) == (2, 64) for cell in study.cells)
    with pytest.raises(UserError, match=r"mixup\.alpha is a factor of study 'paper'"):
        study.adapted({"mixup.alpha": 0.5})
    with pytest.raises(UserError, match="--seeds 0"):
        study.adapted({}, seeds=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("desing = 'full'", "unknown key in a study file 'desing': did you mean 'design'"),
        ("design = 'fulll'", "unknown design 'fulll': did you mean 'full'"),
        ("[factors]\n'mixup.alfa' = [0]", "did you mean 'mixup.alpha'"),
        ("[factors]\n'mixup.alpha' = [0, -1]", "mixup.alpha = -1"),
        ("[factors]\n'mixup.alpha' = 0.2", "must be a list of levels"),
        ("[factors]\n'mixup.alpha' = [0.2, 0.2]", "stands in it twice"),
        ("[factors]\n'split.val_fraction' = [0.2, 0.3]", "all cells of a seed share one split"),
        ("[recipe]\nepoch = 3", "did you mean 'epochs'"),
        ("seeds = []", "at least one"),
        ("seeds = [1, 1]", "each once"),
        ("seeds = 'many'", "seeds = 'many'"),
        ("seeds = '12'", "seeds = '12'"),
        ("seeds = true", "seeds = True"),
        ("seeds = [1.5]", "seeds = \\[1.5\\]"),
        ("seeds = 100000", "seeds = 100000"),
        ("data = 3", "data = 3 must be text"),
        ("name = '../x'", "letters, digits"),
        (f"{FACTORS}\n[[cells]]", "are for design 'cells', not 'full'"),
        ("[labels]\n'mixup.alfa' = { '0' = 'x' }", "unknown factor in \\[labels\\]"),
        (
            f"{FACTORS}\n[labels]\n'mixup.alpha' = {{ '0.20' = 'x' }}",
            "unknown level in \\[labels\\] of mixup.alpha '0.20'",
        ),
        ("[factors]\n'model.tweaks' = ['BC', 'CB']", "are the same recipe"),
        ("[[tables]]\ntitle = 't'\nrows = []", "has no rows"),
        ("[[tables]]\ntitle = 't'\nrows = [{ cell = 'baseline', top1 = '0.6' }]", "must be a number from 0 to 1"),
        ("[[tables]]\ntitle = 't'\nrows = [{ cell = 'B', top1 = 0.6 }]", "unknown cell in \\[\\[tables\\]\\] 'B'"),
        ("design = 'cells'", "needs \\[\\[cells\\]\\]"),
        (f"design = 'cells'\n{FACTORS}\n[[cells]]\n'mixup.alpha' = 0.3", "has no level 0.3"),
        (f"design = 'cells'\n{FACTORS}\n[[cells]]\n[[cells]]", "two cells are named 'baseline'"),
        (f"design = 'one-at-a-time'\n[factors]\nepochs = {LEVELS}", "1,001 effects of single factors"),
        ("design = ", "no valid TOML"),
        ("factors = 3", "malformed"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_study(text).cells  # noqa: B018


def test_load(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(FACTORS)
    assert load_study(tmp_path / "mine.toml").name == "mine"
    with pytest.raises(UserError, match="unknown preset 'papr': did you mean 'paper'"):
        load_study("papr")
    with pytest.raises(UserError, match="no such file"):
        load_study(tmp_path / "none.toml")


def test_levels_need_to_fit_only_in_their_cells() -> None:
    text = """
design = "cells"
[factors]
"model.depth" = [50, 18]
"model.tweaks" = ["B", "A"]
[[cells]]
[[cells]]
"model.depth" = 18
"model.tweaks" = "A"
"""
    assert [cell.recipe.model.name for cell in parse_study(text).cells] == ["ResNet-50-B", "ResNet-18-A"]


def test_study_is_a_value() -> None:
    assert Study("x") == Study("x")
