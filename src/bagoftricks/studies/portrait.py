"""What a report shows of a study's data and models, written into its folder: a report reads nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bagoftricks.errors import first_line
from bagoftricks.files import cache_folder, replacing, write_json
from bagoftricks.store import Store
from bagoftricks.studies.mistakes import write_mistakes

if TYPE_CHECKING:
    from bagoftricks.studies.plan import Plan


def portray(plan: Plan, store: Store, *, samples: bool) -> None:
    """Writes the data check, the models' layers and, if asked for, a picture with an image of each class."""
    from bagoftricks.data.check import check
    from bagoftricks.data.index import subset
    from bagoftricks.data.samples import overview_grid
    from bagoftricks.data.split import split
    from bagoftricks.models.structure import describe

    if not store.data_check.exists():
        write_json(store.data_check, check(plan.index, cache=cache_folder() / "hashes").to_dict())
    if samples and not store.samples.exists():
        locked = split(plan.index, plan.study.recipe.split, plan.study.seeds[0]).test
        shown = subset(plan.index, np.setdiff1d(np.arange(len(plan.index)), locked).tolist())
        with replacing(store.samples) as temporary:
            temporary.write_bytes(overview_grid(shown))
    for recipe in {cell.recipe.model.name: cell.recipe for cell in plan.study.cells}.values():
        path = store.structures / f"{recipe.model.name}.json"
        if recipe.model.is_resnet and not path.exists():  # of timm's networks there is no drawing
            write_json(path, dict(describe(recipe.model, plan.index.num_classes, recipe.input.size)))


def picture_mistakes(plan: Plan, store: Store) -> str:
    """Writes the worst mistakes of the best cell; returns a note on why it could not, or ""."""
    try:
        write_mistakes(store, plan.index)
    except Exception as error:  # the runs are done, and worth more than a picture: nothing that fails here undoes them
        return f"The report shows no mistakes as images: {first_line(error)}"
    return ""
