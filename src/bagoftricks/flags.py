"""Command-line flags: one for every recipe field, and a parser whose errors are one line."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from bagoftricks.errors import UserError, unknown

SHORT = {
    "--init": "init",
    "--epochs": "epochs",
    "--batch-size": "batch_size",
    "--size": "input.size",
    "--crop": "input.crop",
    "--test-fraction": "split.test_fraction",
    "--model": "model.tweaks",
    "--opt": "optimizer.name",
    "--lr": "optimizer.lr",
    "--weight-decay": "optimizer.weight_decay",
    "--smoothing": "label_smoothing.amount",
    "--mixup": "mixup.alpha",
}
"""Short flags, named as in timm, and the recipe fields that they set."""


class Parser(argparse.ArgumentParser):
    """Errors are one line that names the nearest valid flag, and exit status 2."""

    def error(self, message: str) -> NoReturn:
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            flag = message.removeprefix(prefix).strip().partition(" ")[0].partition("=")[0]
            if flag.startswith("--"):
                raise unknown("flag", flag, [name for name in self._option_string_actions if name.startswith("--")])
        raise UserError(f"{message}; see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses what it does not know itself, so that the error comes from the command and knows its flags."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return known, rest


def add_recipe(command: Parser) -> None:
    """Adds a flag for each recipe field, its help text taken from the field's own docstring."""
    from bagoftricks.recipe import Recipe, field_help

    group = command.add_argument_group("recipe", "what each training does; a study's own factors cannot be set")
    short = {name: flag for flag, name in SHORT.items()}
    defaults = Recipe().flat()
    for name, text in field_help().items():
        flags = [f"--{name.replace('_', '-')}"]
        if name in short and short[name] not in flags:
            flags.append(short[name])
        shown = text.replace("%", "%%") + f" [{defaults[name]}]"
        group.add_argument(*flags, dest=f"recipe:{name}", metavar=name.rpartition(".")[2].upper(), help=shown)


def recipe_changes(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the recipe fields that were given as flags, by their dotted names."""
    from bagoftricks.models.config import RESNET, TIMM
    from bagoftricks.recipe import parse_value

    given = {
        k.removeprefix("recipe:"): v for k, v in vars(options).items() if k.startswith("recipe:") and v is not None
    }
    if "model.tweaks" in given and "model.backbone" not in given:  # --model names either, whatever the recipe had
        if given["model.tweaks"].startswith(TIMM):
            given["model.backbone"] = given.pop("model.tweaks")
            given = {"model.tweaks": "B", "model.depth": "50", "model.zero_init_gamma": "false"} | given
        else:
            given["model.backbone"] = RESNET
    return {name: parse_value(name, text) for name, text in given.items()}
