"""The bag: every trick with what it does, costs, interacts with, and where it comes from, read from its own docstring.

A method card is a docstring of a fixed form: a title ("Mixup: train on …"), an explanation, then paragraphs that begin
with Source, Cost and Interacts. What is no file of `tricks/` (schedules, tweaks of the architecture, precision) has its
card here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from bagoftricks.dotted import Value
from bagoftricks.errors import unknown
from bagoftricks.recipe import Recipe, field_help
from bagoftricks.tricks.base import Trick

LABELS = ("Source", "Cost", "Interacts", "Shapes")
BUILT_IN: Mapping[str, tuple[tuple[str, ...], str]] = {
    "cosine": (
        ("schedule.decay",),
        """Cosine decay: let the learning rate fall to zero along half a cosine.

        lr_t = lr * (1 + cos(pi t / T)) / 2 over the T steps after the warm-up

        Source: Loshchilov and Hutter 2017, arXiv:1608.03983; He et al. 2019, arXiv:1812.01187, section 5.1.
        Cost: none.
        Interacts: the training must be as long as it was planned; a cosine that is cut off has not come to rest.
        """,
    ),
    "step": (
        ("schedule.decay", "schedule.step_epochs", "schedule.step_factor"),
        """Step decay: multiply the learning rate by a factor every few epochs.

        Source: He et al. 2019, arXiv:1812.01187, section 5.1 (by 0.1, every 30 epochs of 120), as the usual way before.
        Cost: none.
        Interacts: in a short training set `schedule.step_epochs` to about a third of it.
        """,
    ),
    "onecycle": (
        ("schedule.decay",),
        """One cycle: let the learning rate rise over the first 30 % of the training, then fall to almost nothing.

        From 1 / 25 of the rate up, and down to 1 / 250,000, both along a cosine; momentum stays as it is.

        Source: Smith and Topin 2018, arXiv:1708.07120; torch's OneCycleLR without its cycle of momentum.
        Cost: none.
        Interacts: has a rise of its own, so that `schedule.warmup_epochs` does nothing. Bears a higher rate.
        """,
    ),
    "warmup": (
        ("schedule.warmup_epochs",),
        """Warm-up: let the learning rate rise linearly from almost nothing over the first steps.

        Source: Goyal et al. 2017, arXiv:1706.02677, section 2.2; He et al. 2019, arXiv:1812.01187, section 3.1.
        Cost: none; those steps learn little.
        Interacts: matters with large batches and rates, and where a new classifier meets weights that are good.
        """,
    ),
    "zero_init_gamma": (
        ("model.zero_init_gamma",),
        """Zero gamma: start every residual block as the identity, its last batch-norm's scale at zero.

        Source: Goyal et al. 2017, arXiv:1706.02677, section 5.1; He et al. 2019, arXiv:1812.01187, section 3.1.
        Cost: none.
        Interacts: for training from scratch; loaded weights replace it.
        """,
    ),
    "low_precision": (
        (),
        """Low precision: compute in bf16, keep the weights in fp32 (`--precision`).

        Source: Micikevicius et al. 2018, arXiv:1710.03740; He et al. 2019, arXiv:1812.01187, section 3.2 (there fp16).
        Cost: saves most of the time where there are units for it (docs: what makes it fast); needs no loss scaling.
        Interacts: chosen by the machine, the same for all runs of a study, and part of each run's identity.
        """,
    ),
    "B": (
        ("model.tweaks",),
        """Tweak B: move the stride of a bottleneck from its first 1x1 to its 3x3, so that no input is skipped.

        Source: Gross and Wilber 2016 (Torch's ResNet); He et al. 2019, arXiv:1812.01187, section 4.2.
        Cost: 7 % more arithmetic than A.
        Interacts: published weights of a ResNet-50 are nearly all B; in A they are a mismatch (see `tricks adapt`).
        """,
    ),
    "C": (
        ("model.tweaks",),
        """Tweak C, deep stem: three 3x3 convolutions in place of the 7x7.

        Source: Szegedy et al. 2016, arXiv:1512.00567; He et al. 2019, arXiv:1812.01187, section 4.2.
        Cost: the largest of the three tweaks, all of it at the highest resolution.
        Interacts: weights of a network without it leave the stem random (see `tricks adapt`).
        """,
    ),
    "D": (
        ("model.tweaks",),
        """Tweak D: pool before a shortcut's 1x1 in place of striding over three of four positions.

        Source: He et al. 2019, arXiv:1812.01187, section 4.2.
        Cost: next to none.
        Interacts: weights of a network without it fit by shape, and are a mismatch all the same (see `tricks adapt`).
        """,
    ),
    "E": (
        ("model.tweaks",),
        """Tweak E, squeeze-and-excitation: weigh the channels of each block's branch by what their means say.

        x' = relu(shortcut + branch * sigmoid(W2 relu(W1 mean(branch))))

        Source: Hu et al. 2018, arXiv:1709.01507; timm's `seresnet50`.
        Cost: 10 % more parameters and hardly any arithmetic, but two more passes over each branch: a fifth more time
        (1.21 times B's step, 128 pixels, bf16 on a CPU).
        Interacts: weights of a network without it leave the gates random, near one half (see `tricks adapt`).
        """,
    ),
    "F": (
        ("model.tweaks",),
        """Tweak F, BlurPool: blur before each halving, so that a shift of the image by a pixel changes less.

        Source: Zhang 2019, arXiv:1904.11486; timm's `resnetblur50`, whose shortcuts are as they were.
        Cost: convolutions with stride 2 run over all positions: a quarter more arithmetic on B, and a third more time
        (1.31 times B's step, 128 pixels, bf16 on a CPU).
        Interacts: weights of a network without it fit by shape, and are a mismatch all the same (see `tricks adapt`).
        """,
    ),
}


@dataclass(frozen=True)
class Card:
    """One trick's method card."""

    name: str
    """As in a recipe: "mixup"; of what is no part of its own, a short name: "cosine"."""
    title: str
    """One sentence: "Mixup: train on convex blends of …"."""
    about: str
    """Formulas and explanation; may be empty."""
    source: str
    cost: str
    interacts: str
    """May be empty."""
    fields: dict[str, Value]
    """The recipe fields that set it, with their defaults."""
    on_by_default: bool

    @property
    def summary(self) -> str:
        """What it does, without the trick's name."""
        return self.title.partition(": ")[2].rstrip(".") or self.title

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        texts = {f: {"default": value, "meaning": field_help()[f]} for f, value in self.fields.items()}
        return {**vars(self), "fields": texts}


def cards() -> dict[str, Card]:
    """Returns the card of every trick, by name: those of `tricks/` in the order in which they act, then the rest."""
    recipe = Recipe()
    flat = recipe.flat()
    found = {}
    for field in fields(recipe):
        part = getattr(recipe, field.name)
        if isinstance(part, Trick):
            own = {name: value for name, value in flat.items() if name.startswith(f"{field.name}.")}
            found[field.name] = read_card(
                field.name, import_module(type(part).__module__).__doc__ or "", own, part.active
            )
    on = {
        "cosine": recipe.schedule.decay == "cosine",
        "warmup": recipe.schedule.warmup_epochs > 0,
        "low_precision": True,
    }
    for name, (names, text) in BUILT_IN.items():
        is_on = on.get(name, name in recipe.model.tweaks)
        found[name] = read_card(name, text, {n: flat[n] for n in names}, is_on)
    return found


def card(name: str) -> Card:
    """Returns one card.

    Raises:
        UserError: for a name that is none, with the nearest.
    """
    known = cards()
    wanted = {other.lower(): other for other in known}.get(name.lower().replace("-", "_"))
    if wanted is None:
        raise unknown("trick", name, list(known))
    return known[wanted]


def read_card(name: str, text: str, own: dict[str, Value], on: bool) -> Card:
    """Reads a card from a docstring.

    Raises:
        ValueError: if it lacks its title, source or cost.
    """
    title, _, rest = inspect.cleandoc(text).partition("\n\n")
    parts = re.split(rf"^({'|'.join(LABELS)}): ", rest, flags=re.MULTILINE)
    labelled = {label: " ".join(body.split()) for label, body in zip(parts[1::2], parts[2::2], strict=True)}
    if not title or "Source" not in labelled or "Cost" not in labelled:
        raise ValueError(f"the method card of {name} lacks a title, a source or a cost")
    return Card(
        name,
        " ".join(title.split()),
        parts[0].strip(),
        labelled["Source"],
        labelled["Cost"],
        labelled.get("Interacts", ""),
        own,
        on,
    )
