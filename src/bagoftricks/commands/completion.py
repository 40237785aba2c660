"""`tricks completion`: a script that lets a shell complete commands, flags and paths."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bagoftricks import commands as every
from bagoftricks.commands import DONE, new_command
from bagoftricks.errors import UserError, first_line, install
from bagoftricks.flags import Parser, add_recipe

SHELLS = ("bash", "zsh", "tcsh")
FOLDERS = ("folder", "out", "data", "cache", "pilot")
"""Arguments that name a folder; other paths are files."""


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "completion", run, "print a script for bash, zsh or tcsh that completes commands, flags and paths",
        (
            "tricks completion bash > ~/.tricks.bash    # then, in ~/.bashrc: source ~/.tricks.bash",
            "tricks completion zsh > ~/.zfunc/_tricks   # then, in ~/.zshrc before compinit: fpath=(~/.zfunc $fpath)",
            "tricks completion tcsh > ~/.tricks.tcsh    # then, in ~/.tcshrc: source ~/.tricks.tcsh",
        ),
    )  # fmt: skip
    command.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or tcsh")


def run(options: argparse.Namespace) -> int:
    """Prints the script.

    Raises:
        UserError: if shtab is not installed.
    """
    try:
        shtab = import_module("shtab")
    except ImportError as error:
        raise UserError(f"completion: {first_line(error)}; run: {install('completion')}") from error
    print(shtab.complete(whole_parser(), options.shell))
    return DONE


def whole_parser() -> Parser:
    """Returns the command line with every command's flags and marks that say which arguments are paths.

    It is for describing, not for parsing: `cli.parser` adds the recipe's flags to one command only, and sets no marks.
    """
    root = Parser(prog="tricks", description="Which training tricks actually help on your images?", allow_abbrev=False)
    root.add_argument("--version", action="version", version="", help="show the version")
    root.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = root.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name in every.COMMANDS:
        import_module(f"bagoftricks.commands.{name}").add(commands)
    for name, command in commands.choices.items():
        if name in every.WITH_RECIPE:
            add_recipe(command)
        for action in command._actions:
            _mark(action)
    return root


def _mark(action: Any) -> None:
    """Sets what shtab completes an argument with: its attribute `complete`, or its choices."""
    from bagoftricks.recipe import field_types
    from bagoftricks.studies.design import PRESETS

    name = action.dest.removeprefix("recipe:")
    if action.dest == "study":
        action.complete = _words_or_paths("study", PRESETS, "*.toml")
    elif action.dest == "recipe":
        action.complete = _words_or_paths("recipe", PRESETS, "*.toml")
    elif action.dest == "data":
        action.complete = _words_or_paths("data", ("digits",), None)
    elif action.dest == "recipe:init" or (action.type is Path and action.dest not in FOLDERS):
        action.complete = "file"
    elif action.type is Path:
        action.complete = "directory"
    elif action.dest.startswith("recipe:") and field_types()[name] is bool:
        action.choices = ("true", "false")


def _words_or_paths(name: str, words: Sequence[str], pattern: str | None) -> dict[str, Any]:
    """Returns shtab's description of an argument that is one of `words`, a folder, or a file that fits `pattern`."""
    function, some = f"_tricks_file_or_{name}", " ".join(words)
    files = f"compgen -f -X '!{pattern}' -- \"$1\"\n  " if pattern else ""
    zsh_files = f'_files -g \\"{pattern}\\"' if pattern else "_files -/"
    return {
        "bash": function,  # its name tells shtab to have bash add the slash of a folder
        "zsh": function,
        "tcsh": f"f:{pattern}" if pattern else "d",
        "preamble": {
            "bash": f'{function}() {{\n  compgen -W "{some}" -- "$1"\n  {files}compgen -d -- "$1"\n}}',
            "zsh": f'{function}() {{\n  _alternative "words:{name}:({some})" "files:path:{zsh_files}"\n}}',
        },
    }
