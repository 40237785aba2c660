"""`tricks predict`: what a saved model says of images."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bagoftricks.commands import DONE, add_json, add_machine, new_command
from bagoftricks.errors import RunError, StorageError, UserError

if TYPE_CHECKING:
    from bagoftricks.data.reading import BadImageError
    from bagoftricks.serving.classifier import Prediction
    from bagoftricks.serving.table import Writer

MOST_LISTED = 100
"""Bad images that are named."""
BY_SUFFIX = {".csv": "csv", ".jsonl": "jsonl", ".txt": "table"}
"""Formats that the name of --out says."""


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "predict", run, "say what a trained model takes images for",
        (
            "tricks predict trained photos",
            "tricks predict trained photos 'more/*.png' --out predictions.csv",
            "tricks predict trained photos --top-k 5 --format jsonl",
            "tricks predict trained - --abstain-below 0.8     # paths from standard input",
        ),
    )  # fmt: skip
    about = "a run's folder, or that of trainings which kept one model"
    command.add_argument("folder", type=Path, metavar="MODEL", help=about)
    about = "files, folders (searched to the bottom), patterns, or - for paths on standard input, one a line"
    command.add_argument("paths", nargs="+", metavar="PATH", help=about)
    group = command.add_argument_group("predict")
    about = (
        "table; jsonl (an object a line: filename, predictions, abstained; of a bad image filename, error); or csv "
        "(filename,index,label,prob: a row an image; with --top-k a row for each class, and its rank) [by the suffix "
        "of --out: .csv, .jsonl or .txt; else table]"
    )
    group.add_argument("--format", metavar="FORMAT", help=about)
    about = "write there rather than to standard output"
    group.add_argument("--out", dest="file", type=Path, metavar="FILE", help=about)
    group.add_argument("--top-k", type=int, default=1, metavar="K", help="the K most probable classes [1]")
    group.add_argument("--tta", help="flip: average with the mirror image, at twice the time; or none [as measured]")
    about = "abstain where the best class has a lower probability, which is calibrated if the model is [0]"
    group.add_argument("--abstain-below", type=float, default=0.0, metavar="P", help=about)
    group.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at once [64]")
    group.add_argument("-0", "--null", action="store_true", help="with -: paths end with NUL, as of find -print0")
    add_json(group)
    add_machine(command)


def run(options: argparse.Namespace) -> int:
    """Predicts, and lists what could not be read."""
    from bagoftricks.console import note
    from bagoftricks.serving.classifier import load_model
    from bagoftricks.serving.table import Writer

    kind = options.format or _by_name(options.file)
    _check(options, kind)
    paths = named_images(options.paths, nul=options.null)
    model = load_model(
        options.folder, device=options.device, precision=options.precision, deterministic=options.deterministic
    )
    outcomes = model.predict_each(
        paths,
        top_k=options.top_k,
        batch_size=options.batch_size,
        tta=options.tta,
        abstain_below=options.abstain_below,
    )
    if options.abstain_below and not model.calibrated:
        note("This model has no temperature: its probabilities are as trained, often too high.")
    started = time.perf_counter()
    entries: list[dict[str, Any]] = []
    with _output(options.file) if options.file or not options.json else nullcontext() as stream:
        writer = Writer.of(kind, stream, paths, model.classes, options.top_k) if stream else None
        bad = _write(paths, outcomes, writer, entries)
        if len(bad) == len(paths):
            named = f"the first: {bad[0][1]}" if len(bad) > 1 else str(bad[0][1])
            raise RunError(f"none of {len(paths):,} images could be read; {named}")
    _list_bad(bad, len(paths))
    if options.json:
        report = {"model": str(model.folder), "calibrated": model.calibrated, "images": len(paths), "bad": len(bad)}
        where = {"out": str(options.file)} if options.file else {"predictions": entries}
        print(json.dumps({**report, "seconds": round(time.perf_counter() - started, 3), **where}, indent=2))
    elif options.file:
        note(f"Written: {options.file}, {len(paths) - len(bad):,} images")
    return DONE


def _by_name(path: Path | None) -> str:
    """Returns the format that the name of a file says."""
    from bagoftricks.data.folder import is_image

    if path is None or path.is_dir() or is_image(path):  # `_check` has words of its own for these
        return "table"
    found = BY_SUFFIX.get(path.suffix.lower())
    if found is None:
        raise UserError(f"--out {path}: its name says no format; name it *{', *'.join(BY_SUFFIX)}, or pass --format")
    return found


def _check(options: argparse.Namespace, kind: str) -> None:
    from bagoftricks.data.folder import is_image
    from bagoftricks.errors import unknown
    from bagoftricks.files import check_output
    from bagoftricks.serving.table import FORMATS

    if kind not in FORMATS:
        raise unknown("--format", kind, FORMATS)
    if options.json and options.format and not options.file:
        raise UserError("--json and --format both want standard output; pass --out with a file, or one of them")
    if options.null and "-" not in options.paths:
        raise UserError("--null is about paths on standard input: pass - among the paths")
    if options.file:
        special = (options.file.exists() and not options.file.is_file()) or options.file.parent == Path("/dev")
        if special or is_image(options.file):
            kind = "a folder" if options.file.is_dir() else "a device" if special else "an image's name"
            raise UserError(f"--out {options.file}: is {kind}; name a file for the predictions")
        check_output(options.file.parent)


def named_images(paths: Sequence[str], *, nul: bool = False) -> list[Path]:
    """Returns the images that arguments name, standard input's where one is `-`, each once."""
    from bagoftricks.serving.inputs import find_images, listed_images

    found: dict[Path, None] = {}
    for path in paths:
        if path == "-":
            images = listed_images(sys.stdin.buffer.read(), nul=nul)
            if not images:
                raise UserError("standard input names no image; one path a line is expected")
        else:
            images = find_images([path])
        found.update(dict.fromkeys(images))
    return list(found)


def _write(
    paths: Sequence[Path],
    outcomes: Iterator[Prediction | BadImageError],
    writer: Writer | None,
    entries: list[dict[str, Any]],
) -> list[tuple[Path, BadImageError]]:
    """Writes every prediction, or appends it to `entries` where there is no writer; returns the bad images."""
    from bagoftricks.data.reading import BadImageError
    from bagoftricks.serving.table import entry

    bad: list[tuple[Path, BadImageError]] = []
    # results on a terminal are their own progress, and a bar would be drawn through them
    quiet = writer is not None and writer.stream is sys.stdout and sys.stdout.isatty()
    with counting("predicting", quiet=quiet) as count:
        for done, (path, outcome) in enumerate(zip(paths, outcomes, strict=True), 1):
            if isinstance(outcome, BadImageError):
                bad.append((path, outcome))
            if writer is None:
                entries.append(entry(str(path), outcome))
            else:
                writer.add(path, outcome)
            count(done, len(paths))
    return bad


@contextmanager
def counting(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yields what is told of (images done, of all): it moves a bar, or off a terminal says a line now and then.

    Both are on standard error. A bar takes standard output for itself: who writes there keeps the stream from before.
    """
    from bagoftricks.console import note
    from bagoftricks.progress import SECONDS_BETWEEN_LINES, _Bar

    if quiet:
        yield lambda done, total: None
        return
    said = time.monotonic()
    with _Bar(what) as bar:

        def count(done: int, total: int) -> None:
            nonlocal said
            left, now = bar.move(done, total), time.monotonic()
            if not bar.console.is_terminal and now - said > SECONDS_BETWEEN_LINES:
                said = now
                note(f"{what}: {done:,} of {total:,} images, {done / (now - bar.started):.0f}/s, {left} left")

        yield count


def _list_bad(bad: Sequence[tuple[Path, BadImageError]], of: int) -> None:
    from bagoftricks.console import note

    if not bad:
        return
    note(f"{len(bad):,} of {of:,} images could not be read:")
    for path, error in bad[:MOST_LISTED]:
        note(f"  {path}: {error.reason}")
    if len(bad) > MOST_LISTED:
        note(f"  and {len(bad) - MOST_LISTED:,} more; --format jsonl has them all")


@contextmanager
def _output(path: Path | None) -> Iterator[IO[str]]:
    """Yields standard output, or a file that appears when the block ends without error."""
    from bagoftricks.files import STORAGE, replacing

    if path is None:
        yield sys.stdout
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise StorageError(f"{path}: {STORAGE.get(error.errno or 0, error.strerror or error)}") from error
