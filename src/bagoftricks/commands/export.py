"""`tricks export`: a saved model as one file that runs without this package."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.commands import DONE, add_json, new_command

if TYPE_CHECKING:
    from bagoftricks.serving.export import Exported


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "export", run, "write a trained model as an ONNX or torch.export file, checked against the model",
        (
            "tricks export trained --data photos",
            "tricks export trained --data photos --dtype int8 --out shop.onnx",
            "tricks export trained --format torch-export",
        ),
    )  # fmt: skip
    command.add_argument("model", type=Path, help="a run's folder, or that of trainings which kept one model")
    group = command.add_argument_group("export")
    group.add_argument("--format", default="onnx", metavar="FORMAT", help="onnx or torch-export [onnx]")
    about = "fp32; fp16, half the size; or int8, a quarter, calibrated with images of --data, for onnx only [fp32]"
    group.add_argument("--dtype", default="fp32", metavar="DTYPE", help=about)
    about = "labelled images to check the file with, as for tricks evaluate [noise, which tells no accuracy]"
    group.add_argument("--data", metavar="DIR", help=about)
    about = "the file, or a folder for it; what is there is replaced [model.onnx and the like in the model's folder]"
    group.add_argument("--out", type=Path, metavar="PATH", help=about)
    add_json(group)


def run(options: argparse.Namespace) -> int:
    """Exports, and prints how the file compares with the model."""
    from bagoftricks.console import note
    from bagoftricks.serving.export import export_model

    found = export_model(
        options.model, options.format, options.dtype, data=options.data, out=options.out, progress=note
    )
    for warning in found.warnings:
        note(f"Warning: {warning}")
    if options.data is None:
        note("Checked on noise: no accuracy could be measured; --data with labelled images measures it")
    if options.json:
        print(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    else:
        _print(found)
    return DONE


def _print(found: Exported) -> None:
    from bagoftricks.console import print_table, say

    check = found.check
    rows = [["File (MB)", f"{found.model_bytes / 1e6:.1f}", f"{found.bytes / 1e6:.1f}"]]
    if check.top1_model is not None and check.top1_exported is not None:
        rows.append(
            [f"Top-1, of {check.labelled:,} {check.about}", f"{check.top1_model:.3f}", f"{check.top1_exported:.3f}"]
        )
    rows += [
        [f"Batch of {each.batch} (ms), median of {each.runs}", f"{1e3 * each.model:.1f}", f"{1e3 * each.exported:.1f}"]
        for each in found.latency
    ]
    threads = found.latency[0].threads
    caption = f"On the CPU, {threads} thread{'' if threads == 1 else 's'}; the model in fp32 as tricks predict runs it"
    print_table(f"{found.file.name}: {found.file_format}, {found.dtype}", ("", "Model", "Exported"), rows, caption)
    say(
        f"On {check.images:,} {check.about}, logits differ by at most {check.difference:.2g}, {check.relative:.1e} of "
        f"their range; {check.agreement:.1%} of guesses are equal."
    )
    say(f"Written: {found.file}")
    say(f"Written: {found.about}")
