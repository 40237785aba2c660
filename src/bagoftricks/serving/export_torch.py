"""torch.export files: a graph with its weights, which torch runs without our code.

Shapes: N images, C channels, S x S pixels, K classes.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

from bagoftricks.serving.export_network import BATCH, Deployed
from bagoftricks.serving.export_onnx import Floats, Run

ABOUT = "about.json"
"""Name of the description in the file, for `torch.export.load(…, extra_files=…)`."""


def to_program(network: Deployed, size: int) -> torch.export.ExportedProgram:
    """Returns the network as a graph with a batch dimension of any size."""
    example = (torch.zeros(2, 3, size, size),)
    program = torch.export.export(network, example, dynamic_shapes=({0: torch.export.Dim(BATCH)},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names paths of this computer
    return program


def to_bytes(program: torch.export.ExportedProgram, about: dict[str, Any]) -> bytes:
    """Returns the file, with `about` inside as `about.json`."""
    file = io.BytesIO()  # written by Python, so that a full disk is an OSError
    torch.export.save(program, file, extra_files={ABOUT: json.dumps(about)})
    return file.getvalue()


def open_program(path: Path, threads: int) -> Run:
    """Returns a function that runs a `.pt2` file on the CPU.

    Args:
        path: of the file.
        threads: that compute, in all of this process.
    """
    torch.set_num_threads(threads)
    network = torch.export.load(io.BytesIO(path.read_bytes())).module()

    @torch.inference_mode()
    def run(images_NCHW: Floats) -> tuple[Floats, Floats]:
        logits_NK, probs_NK = network(torch.from_numpy(images_NCHW))
        return logits_NK.numpy(), probs_NK.numpy()

    return run
