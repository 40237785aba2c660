"""ONNX files: written by torch, quantised and run by ONNX Runtime.

Shapes: N images, C channels, S x S pixels, K classes.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bagoftricks.errors import UserError, first_line, install
from bagoftricks.serving.export_network import BATCH, IMAGES, LOGITS, PROBABILITIES, Deployed

Floats = npt.NDArray[np.float32]
Run = Callable[[Floats], tuple[Floats, Floats]]
"""Images (N, 3, S, S) in [0, 1] to logits and probabilities (N, K)."""

EXTRA = ("onnx", "onnxscript", "onnxruntime")
"""What the extra installs."""
OPSET = 20
"""Version of ONNX's operators; read by ONNX Runtime from 1.18 on (2024)."""
QUANTISED = ("Conv", "Gemm", "Add", "Relu", "MaxPool", "AveragePool")
"""Operators that compute in 8 bits; normalisation, the mean over pixels, temperature and softmax stay in float32."""


def need_extra() -> None:
    """Refuses to go on where the extra is not installed.

    Raises:
        UserError: with the command that installs it.
    """
    for name in EXTRA:
        try:
            import_module(name)
        except ImportError as error:
            raise UserError(f"export: {first_line(error)}; run: {install('export')}") from error


def to_onnx(network: Deployed, size: int) -> Any:
    """Returns an `onnx.ModelProto` with a batch dimension of any size, weights inside."""
    with _quiet():
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, size, size),),
            dynamo=True,
            input_names=[IMAGES],
            output_names=[LOGITS, PROBABILITIES],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # as it is with dynamo
    return program.model_proto


def quantise(model: Any, batches: Iterable[Floats]) -> Any:
    """Returns the model with weights and activations in int8, as QuantizeLinear and DequantizeLinear around them.

    Weights have a scale for each output channel, activations one each, from the least and largest value that they take
    on the calibration images (Jacob et al. 2018, arXiv:1712.05877). Activations are unsigned and weights signed, the
    pair that processors of x86 and ARM multiply fastest. Weights take 7 of the 8 bits: processors of x86 without VNNI
    add two products in 16 bits, where 8 by 8 bits overflow in silence.

    Args:
        model: from `to_onnx`, in float32.
        batches: calibration images, (N, 3, S, S) in [0, 1] each.
    """
    onnx, quantization = import_module("onnx"), import_module("onnxruntime.quantization")
    prepare = import_module("onnxruntime.quantization.shape_inference").quant_pre_process
    with tempfile.TemporaryDirectory(prefix="bagoftricks-") as name, _quiet():
        plain, prepared, done = (str(Path(name) / file) for file in ("plain.onnx", "prepared.onnx", "done.onnx"))
        onnx.save_model(model, plain)
        prepare(plain, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            done,
            _Reader(batches),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=list(QUANTISED),
        )
        return onnx.load_model(done)


class _Reader:
    """Hands calibration images to ONNX Runtime, which asks for its own class only by this method."""

    def __init__(self, batches: Iterable[Floats]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> dict[str, Floats] | None:
        batch = next(self.batches, None)
        return None if batch is None else {IMAGES: batch}


def to_bytes(model: Any, about: dict[str, Any]) -> bytes:
    """Returns the file: the model with `about` as its metadata, checked by ONNX's own checker.

    Each key of `about` is one of `metadata_props`; what is no text is JSON. What the exporter noted at each node is
    dropped: it holds paths of this computer.
    """
    onnx = import_module("onnx")
    for held in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info,
                 *model.graph.initializer):  # fmt: skip
        held.ClearField("metadata_props")
        if hasattr(held, "doc_string"):
            held.ClearField("doc_string")
    used = {node.domain for node in model.graph.node}
    kept = [each for each in model.opset_import if each.domain in used]
    model.ClearField("opset_import")  # of many, which ONNX Runtime adds when it prepares quantisation
    model.opset_import.extend(kept)
    onnx.helper.set_model_props(model, {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()})
    model.graph.name = str(about["architecture"])
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def versions() -> dict[str, str]:
    """Returns the versions of the extra's packages."""
    return {name: str(import_module(name).__version__) for name in EXTRA}


def open_onnx(path: Path, threads: int) -> Run:
    """Returns a function that runs an ONNX file on the CPU.

    Args:
        path: of the file.
        threads: that compute.
    """
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = runtime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def run(images_NCHW: Floats) -> tuple[Floats, Floats]:
        logits_NK, probs_NK = session.run([LOGITS, PROBABILITIES], {IMAGES: images_NCHW})
        return logits_NK, probs_NK

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps libraries' talk off both streams: standard output holds our own document, and errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
