"""A model card: the `README.md` beside a model's weights, written from the facts of its run. Imports no torch.

Front matter and headings are those of cards on the HF hub (Mitchell et al. 2019, arXiv:1810.03993). Shares come with
Wilson's 95 % interval, and limits follow from counts. Whatever others had a say in goes through `cardtext`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from bagoftricks.errors import UserError
from bagoftricks.intervals import wilson
from bagoftricks.models.cardfacts import CardFacts as CardFacts
from bagoftricks.models.cardfacts import Scores as Scores
from bagoftricks.models.cardfacts import public_init as public_init
from bagoftricks.models.cardfacts import scores as scores
from bagoftricks.models.cardlicence import SCRATCH, licence
from bagoftricks.models.cardtext import fenced, hub_fields, markdown, table, yaml
from bagoftricks.models.config import ADAPT
from bagoftricks.models.published import find, is_name
from bagoftricks.models.timm_names import timm_architecture

CARD = "README.md"
FEW = 30
"""Images of a class below which its accuracy says little: at 27 right of 30 the interval runs from 74 to 97 %."""
FEW_TO_FIT = 200
"""Images below which a fitted temperature is mostly chance."""
SHOWN_CLASSES, WEAKEST = 20, 5
NAMES = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "mean_class_acc": "mean per-class accuracy",
    "macro_f1": "macro F1",
    "loss": "cross-entropy, nats",
}
COUNTED = ("top1", "top5")
"""Shares of images, which have an interval."""
HUB_METRICS = {"top1": "accuracy", "macro_f1": "f1"}


def model_card(facts: CardFacts) -> str:
    """Returns the card as Markdown with YAML front matter, as the HF hub reads it: the text of a `README.md`."""
    parts = (_front_matter, _summary, _data, _recipe, _results, _calibration, licence, _limits, _usage, _provenance)
    return "\n\n".join(part(facts) for part in parts) + "\n"


def _front_matter(facts: CardFacts) -> str:
    in_timm = timm_architecture(facts.config) is not None
    lines = ["---", f"library_name: {'timm' if in_timm else 'bagoftricks'}", "pipeline_tag: image-classification"]
    lines += [f"{name}: {yaml(value)}" for name, value in hub_fields(facts.licence).items()]
    if hub_id := _base(facts.init):
        lines += ["base_model:", f"- {hub_id}"]
    lines += [
        "tags:",
        "- image-classification",
        *(["- resnet"] if facts.config.is_resnet else []),
        "- bagoftricks",
        *(["- timm"] if in_timm else []),
    ]
    lines += ["metrics:", *(f"- {name}" for name in HUB_METRICS.values())]
    lines += ["model-index:", f"- name: {yaml(facts.config.name)}", "  results:"]
    for split, one in (("validation", facts.validation), ("test", facts.test)):
        if one is not None:
            lines += _index_entry(facts.data, split, one)
    return "\n".join([*lines, "---"])


def _base(init: str) -> str:
    """Returns the hub's repository of the initial weights, adapted or not; "" where there is none, or none is known."""
    name = init.removeprefix(ADAPT)
    try:
        return find(name).hub_id if is_name(name) else ""
    except UserError:  # of another version of timm
        return ""


def _index_entry(data: str, split: str, one: Scores) -> list[str]:
    """One entry of the hub's `model-index`; `imagefolder` is its name for images that are no data set of the hub's."""
    lines = ["  - task:", "      type: image-classification", "    dataset:"]
    lines += [f"      name: {yaml(data)}", "      type: imagefolder", f"      split: {split}", "    metrics:"]
    for name, hubs in HUB_METRICS.items():
        value = one.measures.get(name, math.nan)
        if math.isfinite(value):
            lines += [f"    - type: {hubs}", f"      value: {value:.4f}", f"      name: {yaml(NAMES[name])}"]
    return lines


def _summary(facts: CardFacts) -> str:
    top1, n = facts.validation.measures["top1"], facts.validation.images
    low, high = wilson(top1 * n, n)
    start = "from scratch" if facts.init == SCRATCH else f"from the weights {markdown(facts.init)}"
    if facts.teacher:
        start += f" and by the guesses of a teacher, {markdown(facts.teacher)},"
    trained = facts.trained_size or facts.size
    larger = f", and evaluated on {facts.size} x {facts.size}" if trained != facts.size else ""
    mirrored = " Its logits are averaged with those of the mirror image." if facts.mirrored else ""
    return (
        f"# {facts.config.name} for {markdown(facts.data)}\n\n"
        f"An image classifier with {len(facts.classes)} classes: a {facts.config.name} ({_origin(facts)}), trained "
        f"{start} on images of {trained} x {trained} pixels{larger}.{mirrored} On the validation set it "
        f"is right in {_percent(top1)} of {n:,} images (95 % interval {_percent(low)} to {_percent(high)})."
    )


def _origin(facts: CardFacts) -> str:
    """Says whose its architecture is."""
    if not facts.config.is_resnet:
        return "a network of timm's, Wightman, github.com/huggingface/pytorch-image-models"
    parts = ["tweaks of He et al. 2019, arXiv:1812.01187"] if set(facts.config.tweaks) & set("BCD") else []
    parts += ["squeeze-and-excitation of Hu et al. 2018, arXiv:1709.01507"] if "E" in facts.config.tweaks else []
    parts += ["BlurPool of Zhang 2019, arXiv:1904.11486"] if "F" in facts.config.tweaks else []
    return "; ".join(parts) or "as in He et al. 2015, arXiv:1512.03385"


def _data(facts: CardFacts) -> str:
    names = ", ".join(markdown(name) for name in facts.classes[:SHOWN_CLASSES])
    more = len(facts.classes) - SHOWN_CLASSES
    if more > 0:
        names += f" and {more:,} more, all in `config.json`"
    origin = "the data set brings its own" if facts.given_split else f"drawn from each class, seed {facts.seed}"
    rows = [
        ["data set", markdown(facts.data)],
        ["fingerprint of its content", markdown(facts.fingerprint)],
        ["training images", f"{facts.train_images:,}"],
        ["validation images", f"{facts.val_images:,}"],
        ["test images, locked away", f"{facts.test_images:,}" if facts.test_images else "none"],
        ["split", origin],
        *([["groups kept on one side", f"{facts.groups:,}"]] if facts.groups else []),
        [f"{len(facts.classes):,} classes", names],
    ]
    return f"## Data\n\n{table(['fact', 'value'], rows)}"


def _recipe(facts: CardFacts) -> str:
    changed = [
        [f"`{name}`", markdown(_plain(value)), markdown(_plain(facts.defaults[name]))]
        for name, value in facts.recipe.items()
        if name in facts.defaults and value != facts.defaults[name]
    ]
    differs = "Every field is at its default."
    if changed:
        differs = "Fields that differ from the defaults:\n\n" + table(["field", "here", "default"], changed)
    whole = f"<details>\n<summary>The whole recipe.toml</summary>\n\n{fenced(facts.recipe_toml, 'toml')}\n\n</details>"
    return f"## Recipe\n\n{differs}\n\n{whole}"


def _results(facts: CardFacts) -> str:
    groups = " Images of one group are not independent, so that it is too narrow here." if facts.groups else ""
    parts = [
        "## Results",
        "### Validation set",
        _measures(facts.validation),
        f"The interval is Wilson's; it counts every image as independent.{groups} The weights are those of the last "
        "epoch, and none was chosen by these figures; but whatever else was chosen on the validation set (a recipe, a "
        "learning rate, this run among others) makes them flattering: what nothing was chosen on, a test set, says how "
        "good the model is.",
        "### Test set",
        "Measured on images that were locked away from training and choices.\n\n" + _measures(facts.test)
        if facts.test
        else "Not measured."
        if facts.test_images
        else "There is none: no images were locked away.",
        "### Weakest classes, on the validation set",
        _weakest(facts),
    ]
    return "\n\n".join(parts)


def _measures(one: Scores) -> str:
    rows = []
    for name, label in NAMES.items():
        if (value := one.measures.get(name)) is None:
            continue
        low, high = wilson(value * one.images, one.images) if name in COUNTED else (math.nan, math.nan)
        interval = f"{_percent(low)} to {_percent(high)}" if name in COUNTED else ""
        rows.append([label, f"{value:.3f}" if name == "loss" else _percent(value), interval, f"{one.images:,}"])
    return table(["measure", "value", "95 % interval", "images"], rows)


def _weakest(facts: CardFacts) -> str:
    one = facts.validation
    seen = [k for k, images in enumerate(one.class_images) if images]
    seen.sort(key=lambda k: (one.class_correct[k] / one.class_images[k], -one.class_images[k], k))
    rows = []
    for k in seen[:WEAKEST]:
        right, images = one.class_correct[k], one.class_images[k]
        low, high = wilson(right, images)
        interval = f"{_percent(low)} to {_percent(high)}"
        rows.append([markdown(facts.classes[k]), f"{right:,} of {images:,}", _percent(right / images), interval])
    return table(["class", "right", "accuracy", "95 % interval"], rows)


def _calibration(facts: CardFacts) -> str:
    if facts.temperature is None:
        return "## Calibration\n\nNo temperature was fitted: take its probabilities for an order, not for frequencies."
    text = f"Divide the logits by the temperature {facts.temperature:.3f} before the softmax (Guo et al. 2017)"
    if facts.calibration_before is not None and facts.calibration_after is not None:
        text += (
            f": the expected calibration error is {facts.calibration_before:.3f} without and "
            f"{facts.calibration_after:.3f} with it, on the validation set"
        )
    few = "; so few fix it badly, and others would give another one" if facts.val_images < FEW_TO_FIT else ""
    return (
        f"## Calibration\n\n{text}. The temperature was fitted on the same {facts.val_images:,} images, which flatters "
        f"it{few}; on images of another kind it does not hold. `tricks predict` applies it."
    )


def _limits(facts: CardFacts) -> str:
    lines = "\n".join(f"- {line}" for line in _limit_lines(facts))
    return (
        f"## Intended use and limits\n\nFor sorting images of the kind it was trained on into its "
        f"{len(facts.classes):,} classes, and for comparing ways of training.\n\n" + lines
    )


def _limit_lines(facts: CardFacts) -> Iterator[str]:
    yield "Every image gets one of these classes, whatever it shows; `--abstain-below` holds unsure answers back."
    yield (
        f"It has seen {facts.train_images:,} images of one source. Other cameras, places or times were not tested, and "
        "accuracy may be lower there."
    )
    few = sum(images < FEW for images in facts.validation.class_images)
    if few:
        least = min(facts.validation.class_images)
        yield (
            f"{few:,} of {len(facts.classes):,} classes have fewer than {FEW} validation images (the least: {least}), "
            "so that accuracies of single classes are uncertain."
        )
    if facts.validation.confusions:
        pairs = ", ".join(
            f"{markdown(facts.classes[true])} taken for {markdown(facts.classes[guess])} ({images:,})"
            for true, guess, images in facts.validation.confusions
        )
        yield f"Confused most often: {pairs}."
    cut = {
        "center": f"The middle {_percent(facts.crop_pct)} of the short side is looked at, what lies outside is not.",
        "pad": "The whole image is looked at, on a square of one colour.",
        "squash": "The whole image is looked at, its aspect ratio given up.",
    }[facts.crop]
    yield f"Images are reduced to {facts.size} x {facts.size} pixels: details smaller than that are lost. {cut}"
    if facts.init_warning:
        yield f"At the start, {markdown(facts.init_warning)}."
    for why in facts.knows:
        yield f"Measures on the validation set may flatter it: {markdown(why)}."
    yield (
        "Not for decisions about people (work, credit, health, law, policing), nor for others where a mistake does "
        "harm, without a test on images of that use and a person who decides."
    )
    yield "Weights may reveal something of the images they were trained on."


def _usage(facts: CardFacts) -> str:
    python = 'import bagoftricks\n\nmodel = bagoftricks.load_model("MODEL")\nprint(model.predict("photo.jpg"))'
    parts = [
        "## How to use it",
        "`MODEL` is the folder that this file is in.",
        fenced("tricks predict MODEL photo.jpg", "sh"),
        fenced(python, "python"),
    ]
    if timm_architecture(facts.config) is None:
        blur = "F" in facts.config.tweaks
        why = "of F it has a few combinations only" if blur else "its bottlenecks are all of tweak B"
        parts.append(f"timm has no {facts.config.name} ({why}), and refuses the folder.")
        return "\n\n".join(parts)
    timm = (
        'import timm\n\nmodel = timm.create_model("local-dir:MODEL", pretrained=True).eval()\n'
        "prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
    )
    parts += [
        fenced(timm, "python"),
        "timm's network gives the same logits for the same pixels; its transform resizes by another method, so that "
        "pixels, and with them probabilities, differ a little. It does not divide by the temperature"
        + (", nor average with the mirror image." if facts.mirrored else "."),
    ]
    return "\n\n".join(parts)


def _provenance(facts: CardFacts) -> str:
    rows = [["run", markdown(facts.run_id)], ["seed", str(facts.seed)]]
    rows += [[markdown(name), markdown(value)] for name, value in facts.versions.items() if value]
    made = f"\n\nThe command:\n\n{fenced(facts.command, 'sh')}" if facts.command else ""
    return f"## Where it comes from\n\n{table(['fact', 'value'], rows)}{made}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _plain(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
