"""`tricks serve`: a page to try a model on, and an HTTP endpoint, on this computer."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from bagoftricks.commands import DONE, add_json, add_machine, new_command
from bagoftricks.errors import UserError, first_line, install

EXTRA = ("starlette", "uvicorn", "python_multipart", "captum")
"""What the extra installs."""
MOST_MIB = 256
"""Of an image file; the largest that is decoded."""


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "serve", run, "serve a model: a page to drop images on, and an HTTP endpoint, on this computer",
        (
            "tricks serve trained --open          # the page; Ctrl-C ends it",
            "tricks serve trained --port 0 --json # any port that is free, told to a program",
        ),
    )  # fmt: skip
    command.add_argument("folder", type=Path, metavar="MODEL", help="a model's folder, as of a run that was kept")
    group = command.add_argument_group("server")
    about = "address to listen on; any but this computer's own lets others in, without a password [127.0.0.1]"
    group.add_argument("--host", default="127.0.0.1", help=about)
    group.add_argument("--port", type=int, default=8000, help="0 takes one that is free [8000]")
    group.add_argument("--open", action="store_true", help="open the page in the browser")
    group.add_argument("--max-upload", type=float, default=20.0, metavar="MIB", help="largest image file [20]")
    add_json(group)
    add_machine(command)


def run(options: argparse.Namespace) -> int:
    """Serves until it is told to end, which is no failure: Ctrl-C, SIGTERM or SIGHUP.

    Raises:
        UserError: if the extra is not installed, or there is no such model, host or port.
        RunError: if the port is taken.
    """
    if not 0 < options.max_upload <= MOST_MIB:
        raise UserError(f"--max-upload {options.max_upload:g}: must be above 0 and at most {MOST_MIB} MiB")
    for name in EXTRA[:-1]:
        _check(name)
    from bagoftricks.console import note, say
    from bagoftricks.serving.server import address, is_private, listen, serve
    from bagoftricks.serving.web import make_app

    with listen(options.host, options.port) as listener:
        _check(EXTRA[-1])  # imports torch, and takes seconds
        from bagoftricks.serving.classifier import load_model
        from bagoftricks.serving.uploads import Limits

        model = load_model(
            options.folder, device=options.device, precision=options.precision, deterministic=options.deterministic
        )
        app = make_app(model, options.host, Limits(file_bytes=int(options.max_upload * 2**20)))
        name, url = model.network.config.name, address(listener, options.host)
        if not is_private(listener):
            note("Warning: no password is asked for; whoever reaches this address can use the model.")
        if options.json:
            print(json.dumps({"url": url, "architecture": name, "classes": len(model.classes)}), flush=True)
        else:
            say(f"{name} with {len(model.classes)} classes at {url} (Ctrl-C ends it)")
        if options.open:  # a browser in this terminal ends before it says so, and wants its page first
            Thread(target=_open, args=(url,), daemon=True).start()
        serve(app, listener)
    return DONE


def _open(url: str) -> None:
    from bagoftricks.console import note
    from bagoftricks.serving.server import in_browser

    if not in_browser(url):
        note(f"No browser could be started; open {url}")


def _check(name: str) -> None:
    try:
        import_module(name)
    except ImportError as error:
        raise UserError(f"serve: {first_line(error)}; run: {install('serve')}") from error
