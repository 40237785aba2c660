"""`tricks …`: parse, call the API, print. No logic."""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TextIO

from bagoftricks import __version__
from bagoftricks.commands import COMMANDS, DONE, FAILED, INTERRUPTED, WITH_RECIPE, WRONG
from bagoftricks.data.names import shown
from bagoftricks.errors import RunError, UserError
from bagoftricks.flags import Parser, add_recipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 a wrong request, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _take_any_text(sys.stdout)
    debug = "--debug" in arguments
    try:
        options = parser(arguments).parse_args([a for a in arguments if a != "--debug"])
        with _terminating_as_interrupt():
            status = int(options.command(options))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        _say_error("interrupted; what is finished is kept")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if debug:
            raise
        if isinstance(error, UserError | RunError | OSError):
            _say_error(str(error))
        else:
            _say_error(f"unexpected {type(error).__name__}: {error}; --debug shows where")
        return WRONG if isinstance(error, UserError) else FAILED


def _take_any_text(stream: TextIO) -> None:
    """Readies a stream whose encoding lacks characters for names of files and classes, which may have any: what is no
    terminal gets UTF-8, a terminal escapes.
    """
    if not isinstance(stream, io.TextIOWrapper) or codecs.lookup(stream.encoding).name == "utf-8":
        return
    if stream.isatty():
        stream.reconfigure(errors="backslashreplace")
    else:
        stream.reconfigure(encoding="utf-8")


@contextmanager
def _terminating_as_interrupt() -> Iterator[None]:
    """Treats SIGTERM and SIGHUP like Ctrl-C: processes at work are ended, and the terminal is left in order.

    Where they are ignored, as SIGHUP is under nohup, or handled by who calls us, that stays.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _say_error(text: str) -> None:
    with suppress(OSError):  # the terminal may have gone
        print(f"tricks: {_one_line(text)}", file=sys.stderr)


def _one_line(text: str) -> str:
    return shown(" ".join(text.split()))


def parser(arguments: Sequence[str] = ()) -> Parser:
    """The whole command line; the recipe's flags are added only to the command that `arguments` name, for speed."""
    root = Parser(prog="tricks", description="Which training tricks actually help on your images?", allow_abbrev=False)
    root.add_argument("--version", action="version", version=f"bagoftricks {__version__}")
    root.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = root.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name in COMMANDS:
        import_module(f"bagoftricks.commands.{name}").add(commands)
    named = next((a for a in arguments if not a.startswith("-")), None)
    if named in WITH_RECIPE:
        add_recipe(commands.choices[named])
    return root


if __name__ == "__main__":
    sys.exit(main())
