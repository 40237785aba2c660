"""`tricks compare`: two trained models on one validation set."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.commands import DONE, add_json, new_command
from bagoftricks.data.names import shown
from bagoftricks.errors import UserError, unknown

if TYPE_CHECKING:
    from bagoftricks.store import StoredRun
    from bagoftricks.studies.paired_models import Comparison

CAVEAT = (
    "this compares two trained models on one validation set, not two recipes: another seed gives other models. "
    "Which recipe is better, a study over several seeds tells (tricks study)"
)


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "compare", run, "compare two trained models on the validation set that they share, image by image",
        (
            "tricks compare study --cells B B+c+l --seed 0",
            "tricks compare trained/runs/3f0c9a1be2d47758 other/runs/81d20c7715ab9e34 --csv differ.csv",
        ),
    )  # fmt: skip
    command.add_argument("folder", type=Path, nargs="+", metavar="RUN", help="two runs' folders, or a study's folder")
    group = command.add_argument_group("compare")
    group.add_argument("--cells", nargs=2, metavar=("A", "B"), help="of a study's folder: the cells to compare")
    group.add_argument("--seed", type=int, help="with --cells: the block [the first that both have finished]")
    group.add_argument("--show", type=int, default=10, metavar="N", help="images to show on which they differ [10]")
    group.add_argument("--csv", type=Path, metavar="FILE", help="write all of these images")
    add_json(group)


@dataclass(frozen=True)
class _Side:
    """A run, with its name for people."""

    name: str
    run: StoredRun


def run(options: argparse.Namespace) -> int:
    """Compares, prints what differs, and the images."""
    from bagoftricks.console import note
    from bagoftricks.files import write_text
    from bagoftricks.studies.paired_models import check_pair, compare

    if options.show < 0:
        raise UserError(f"--show {options.show}: must be at least 0")
    first, second = sides = _choose(options)
    arrays = [side.run.predictions() for side in sides]
    _check_same_data(sides, [each["members"].tolist() if "members" in each else [] for each in arrays])
    place = check_pair(*arrays)
    result = compare(arrays[0]["logits"], arrays[1]["logits"][place], arrays[0]["labels"])
    classes = _class_names(first.run, arrays[0]["logits"].shape[1])
    images = _images(result, first.run.names(), arrays[0]["members"].tolist(), classes)
    if options.csv:
        write_text(options.csv, _to_csv(images))
        note(f"wrote {options.csv}: {len(images):,} images")
    if options.json:
        about = [{"name": side.name, "run": side.run.id, "folder": str(side.run.folder)} for side in sides]
        table = {"first": about[0], "second": about[1], **result.to_dict(), "differ": images, "caveat": CAVEAT}
        print(json.dumps(table, indent=2, allow_nan=False))  # ASCII: a name of any bytes can be written
    else:
        _print(first.name, second.name, result, images[: options.show])
    return DONE


def _choose(options: argparse.Namespace) -> tuple[_Side, _Side]:
    """Returns the two runs that are meant."""
    folders: list[Path] = options.folder
    if options.cells:
        if len(folders) != 1:
            raise UserError("--cells: takes one study folder")
        return _of_study(folders[0], options.cells, options.seed)
    if options.seed is not None:
        raise UserError("--seed: says nothing without --cells")
    if len(folders) != 2:
        given = f"{len(folders)} folder{'' if len(folders) == 1 else 's'}"
        raise UserError(f"{given}: name two runs, or one study folder with --cells A B")
    first, second = (_of_folder(folder) for folder in folders)
    if first.run.folder.resolve() == second.run.folder.resolve():
        raise UserError(f"{folders[1]}: the same run twice")
    return first, second


def _of_folder(folder: Path) -> _Side:
    """Returns a run by its folder, or the only one below a folder of trainings."""
    from bagoftricks.store import RESULT, Store, StoredRun
    from bagoftricks.study_folder import read_plan

    found = [folder] if (folder / RESULT).is_file() else Store(folder).finished()
    if not found:
        raise UserError(f"{folder}: holds no finished run; name a run's folder, as study/runs/<id>")
    if len(found) > 1:
        raise UserError(
            f"{folder}: holds {len(found)} runs; name one, as {found[0]}, or two cells of a study (--cells)"
        )
    stored, root = StoredRun(found[0].resolve()), found[0].resolve().parent.parent
    plan = read_plan(root) if Store(root).plan.is_file() else {"runs": ()}
    names = {run["id"]: f"{run['cell']} seed {run['seed']}" for run in plan["runs"]}
    return _Side(names.get(stored.id, str(folder)), stored)


def _of_study(folder: Path, cells: Sequence[str], seed: int | None) -> tuple[_Side, _Side]:
    """Returns the runs of two cells in one block."""
    from bagoftricks.store import Store
    from bagoftricks.study_folder import read_plan

    plan, store = read_plan(folder), Store(folder)
    names = [cell["name"] for cell in plan["cells"]]
    for cell in cells:
        if cell not in names:
            raise unknown("cell", cell, names)
    if cells[0] == cells[1]:
        raise UserError(f"--cells {cells[0]} {cells[1]}: the same cell twice")
    done = {(run["cell"], run["seed"]): found for run in plan["runs"] if (found := store.get(run["id"]))}
    both = sorted(own for cell, own in done if cell == cells[0] and (cells[1], own) in done)
    if not both or seed not in (None, *both):
        block = "any seed" if seed is None else f"seed {seed}"
        hint = f"; they have of {', '.join(map(str, both[:20]))}" if both else ""
        raise UserError(f"study folder {folder}: {cells[0]} and {cells[1]} have no finished pair of {block}{hint}")
    chosen = both[0] if seed is None else seed
    first, second = (_Side(f"{cell} seed {chosen}", done[cell, chosen]) for cell in cells)
    return first, second


def _check_same_data(sides: Sequence[_Side], members: Sequence[Sequence[int]]) -> None:
    """Refuses runs of different data, or of seeds that hold out different images, and says which it is."""
    first, second = (side.run.result for side in sides)
    names = f"{sides[0].name} and {sides[1].name}"
    data = [result.get("data") or {} for result in (first, second)]
    if data[0].get("fingerprint") != data[1].get("fingerprint"):
        each = " and ".join(f"'{about.get('name')}'" for about in data)
        raise UserError(f"{names}: trained on different data ({each}); nothing to compare")
    if first.get("seed") != second.get("seed") and set(members[0]) != set(members[1]):
        raise UserError(
            f"{names}: their seeds differ ({first.get('seed')} and {second.get('seed')}), and with them the "
            "validation sets; compare runs of one seed"
        )


def _class_names(run: StoredRun, count: int) -> list[str]:
    """Returns the names of classes as a kept model, or the study, has them; their numbers where neither does."""
    from bagoftricks.data.untrusted import read_object
    from bagoftricks.store import CONFIG, Store
    from bagoftricks.study_folder import read_plan

    names: Sequence[str] = ()
    if (run.folder / CONFIG).is_file():
        labels = read_object(run.folder / CONFIG, follow=True).get("id2label", {})
        names = [str(labels.get(str(i), f"class {i}")) for i in range(len(labels))]
    elif Store(run.folder.parent.parent).plan.is_file():
        names = read_plan(run.folder.parent.parent)["data"].get("class_names", ())
    return list(names) if len(names) == count else [f"class {i}" for i in range(count)]


def _images(
    result: Comparison, names: Sequence[str] | None, members: Sequence[int], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the images that the models guess differently, by number where the run kept no names."""
    return [
        {
            "image": names[each.place] if names else f"image {members[each.place]}",
            "member": members[each.place],
            "true": classes[each.label],
            "first_guess": classes[each.guesses[0]],
            "second_guess": classes[each.guesses[1]],
            "first_p": each.probabilities[0],
            "second_p": each.probabilities[1],
            "first_p_true": each.true_probabilities[0],
            "second_p_true": each.true_probabilities[1],
        }
        for each in result.disagreements
    ]


def _to_csv(images: Sequence[dict[str, Any]]) -> str:
    from bagoftricks.data.untrusted import csv_cell

    out = io.StringIO()
    columns = ("image", "member", "true", "first_guess", "second_guess")
    chances = ("first_p", "second_p", "first_p_true", "second_p_true")
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*columns, *chances])
    for image in images:
        table.writerow([*(csv_cell(image[c]) for c in columns), *(f"{image[c]:.6f}" for c in chances)])
    return out.getvalue()


def _print(first: str, second: str, result: Comparison, images: Sequence[dict[str, Any]]) -> None:
    """Prints counts, tests, metrics and images."""
    from bagoftricks.console import print_table, say
    from bagoftricks.reports.results import HEADINGS
    from bagoftricks.studies.paired_models import FEW

    say(f"First: {shown(first)}. Second: {shown(second)}. On {result.images:,} validation images.")
    test = result.mcnemar
    say(
        f"Right: both {test.both:,}, only the first {test.only_first:,}, only the second {test.only_second:,}, "
        f"neither {test.neither:,}. McNemar: exact {_p(test.p)}; mid-p version {_p(test.mid_p)}."
    )
    rows = []
    for each in result.differences:
        scale, form = (1, ".3f") if each.metric == "loss" else (100, ".2f")
        span = f"{each.low * scale:+{form}} to {each.high * scale:+{form}}"
        difference = f"{each.difference * scale:+{form}}"
        rows.append([HEADINGS[each.metric], f"{each.first:.3f}", f"{each.second:.3f}", difference, span])
    interval = f"{result.level:.0%} interval"
    caption = f"Second minus first, in points (loss as it is); {result.draws:,} paired bootstrap draws of images"
    print_table("Metrics", ("Metric", "First", "Second", "Difference", interval), rows, caption)
    if images:
        rows = [
            [shown(image["image"]), *(shown(image[name]) for name in ("true", "first_guess", "second_guess")),
             *(f"{image[name]:.3f}" for name in ("first_p", "second_p", "first_p_true", "second_p_true"))]
            for image in images
        ]  # fmt: skip
        head = ("Image", "True", "First says", "Second says", "p first", "p second", "p true, first", "p true, second")
        print_table(f"Images on which they differ: {len(images)} of {len(result.disagreements):,}", head, rows)
    few = [HEADINGS[d.metric] for d in result.differences if d.deciding is not None and d.deciding < FEW]
    if few:
        say(f"Note: fewer than {FEW} images decide {' and '.join(few)}: its interval is too narrow.")
    say(f"Note: {CAVEAT}.")


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
