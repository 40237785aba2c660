"""A kept run's folder as a model folder: weights, config, and a model card made from what the run has stored."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bagoftricks.errors import RunError, UserError
from bagoftricks.files import write_text
from bagoftricks.models.card import CARD, model_card
from bagoftricks.models.cardfacts import CardFacts, Scores, public_init, scores
from bagoftricks.models.folder import save_model
from bagoftricks.models.network import Network
from bagoftricks.models.saved import UNKNOWN, joined_licences, read_config
from bagoftricks.recipe import PATHS, Recipe
from bagoftricks.store import PARTIAL, RECIPE, StoredRun
from bagoftricks.training.calibration import expected_calibration_error, fit_temperature, softmax
from bagoftricks.training.teacher import taught_by

TESTED_CARD = "README.tested.md"
"""The card with the measures of the test set, beside one that was changed by hand."""
VERSIONS = ("python", "bagoftricks", "torch", "torchvision", "timm", "platform", "device", "precision")
"""Of `environment.json`, what a card repeats."""


def write_model(model: Network, run: StoredRun) -> None:
    """Writes a finished run's model, its config and its card into the run's folder.

    The temperature is fitted on the validation set.
    """
    recipe = Recipe.load(run.folder / RECIPE)
    found = run.predictions()
    weights = run.result["weights"]
    licence = "" if weights is None else weights.get("licence", UNKNOWN)
    temperature = honest_temperature(found["logits"], found["labels"])
    tta = "flip" if recipe.test_time_flip.on else "none"
    save_model(
        model, model.classes, recipe.input, run.folder, temperature=temperature, licence=licence, tta=tta,
        teacher_licence=_teacher_licence(run),
    )  # fmt: skip
    write_text(run.folder / CARD, model_card(card_facts(run)))


def honest_temperature(logits_NK: Any, label_N: Any) -> float | None:
    """Returns the temperature of a validation set, and None where every guess of it is right.

    Then there is no best one: the colder the likelier, which says nothing of images that are harder.
    """
    if (logits_NK.argmax(1) == label_N).all():
        return None
    return fit_temperature(logits_NK, label_N)


def _teacher_licence(run: StoredRun) -> str:
    """Returns the licence of the weights that the run's teacher, or one of its initial weights, comes from."""
    own = run.result.get("teacher", {}).get("licence", "")
    inherited = (run.result["weights"] or {}).get("teacher_licence", "")
    return joined_licences(own, inherited)


def drop_card(run: StoredRun) -> None:
    """Removes the card of a run whose model is to go, if it is still training's own."""
    path = run.folder / CARD
    with suppress(UserError, RunError):  # a run that is damaged has no card to compare it with
        if path.is_file() and path.read_bytes() == model_card(card_facts(run)).encode():
            path.unlink()


def add_test_to_card(run: StoredRun, test: Scores) -> Path | None:
    """Adds test scores to a kept run's card, where training's own is still there.

    A card that somebody has changed is theirs: it stays, and the one with the scores is written beside it.

    Returns:
        the file beside; None where the card was written anew, or there is none.
    """
    path, beside = run.folder / CARD, run.folder / TESTED_CARD
    if not path.is_file():
        return None
    unchanged = path.read_bytes() == model_card(card_facts(run)).encode()
    write_text(path if unchanged else beside, model_card(card_facts(run, test)))
    return None if unchanged else beside


def card_facts(run: StoredRun, test: Scores | None = None) -> CardFacts:
    """Returns what a kept run's folder says of it, for its card."""
    saved, result, recipe = read_config(run.folder), run.result, Recipe.load(run.folder / RECIPE)
    found, data, weights = run.predictions(), result["data"], result["weights"] or {}
    teacher = result.get("teacher", {})
    shown = recipe.with_fields({name: public_init(str(recipe.flat()[name])) for name in PATHS})
    temperature = saved.temperature
    before, after = (
        expected_calibration_error(softmax(found["logits"], t or 1.0), found["labels"]) for t in (1.0, temperature)
    )
    return CardFacts(
        config=saved.config,
        size=saved.inputs.size,
        crop=saved.inputs.crop,
        crop_pct=saved.inputs.crop_pct,
        classes=saved.classes,
        data=data["name"],
        fingerprint=data["fingerprint"],
        given_split=bool(data.get("given_split")),
        trained_size=recipe.training_size((len(run.history) or recipe.epochs) - 1),  # it may have stopped early
        mirrored=saved.tta == "flip",
        teacher=taught_by(teacher["architecture"], teacher["run"]) if teacher else "",
        teacher_licence=_teacher_licence(run),
        knows=tuple(filter(None, (teacher.get("warning", ""), weights.get("leak", "")))),
        groups=data.get("groups"),
        train_images=result["train_images"],
        val_images=result["val_images"],
        test_images=result.get("test_images", 0),
        run_id=run.id.removesuffix(PARTIAL),
        seed=result["seed"],
        recipe=shown.flat(),
        defaults=Recipe().flat(),
        recipe_toml=shown.to_toml(),
        validation=scores(result, found["logits"], found["labels"]),
        init=weights.get("name") or public_init(recipe.init),
        licence=saved.licence,
        init_sha256=weights.get("sha256", ""),
        init_warning=weights.get("warning", ""),
        test=test,
        temperature=temperature,
        calibration_before=before,
        calibration_after=after if temperature else None,
        versions=_versions(run.environment),
        command=_command(data["name"], result["seed"]),
    )


def _versions(environment: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(environment[name]) for name in VERSIONS if environment.get(name)}


def _command(data: str, seed: int) -> str:
    """The command that trains it again from the recipe beside the card."""
    return shlex.join(["tricks", "train", "--data", data, "--recipe", RECIPE, "--seed", str(seed)])
