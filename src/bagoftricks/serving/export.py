"""A saved model as one file that runs without this package: ONNX, or torch.export.

Every file is checked against the model before it gets its name: one that differs by more than is accepted is not left
behind. See `export_check` for what is accepted, `export_network` for what the file computes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bagoftricks.errors import RunError, UserError, unknown
from bagoftricks.files import check_output, expanded, replacing, storage_errors, write_json
from bagoftricks.models.folder import load_model as load_network
from bagoftricks.models.network import Network
from bagoftricks.models.saved import WEIGHTS
from bagoftricks.serving import export_onnx, export_torch
from bagoftricks.serving.classifier import Classifier, load_model
from bagoftricks.serving.export_check import Check, Latency, compare, time_both
from bagoftricks.serving.export_images import Samples, draw, noise
from bagoftricks.serving.export_network import Deployed, describe
from bagoftricks.store import RESULT, StoredRun

SUFFIX = {"onnx": ".onnx", "torch-export": ".pt2"}
"""Of each format's files."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "int8": torch.float32}
"""What the network computes in before it is quantised."""
MIRRORED = (
    "the model averages its logits with those of the mirror image, the file does not; average two calls to get the "
    "accuracy it was measured with"
)


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how it compares with its model."""

    file: Path
    about: Path
    """The JSON beside it: classes, how to prepare images, licence, where it comes from."""
    file_format: str
    dtype: str
    bytes: int
    model_bytes: int
    """Of the model's .safetensors."""
    check: Check
    latency: tuple[Latency, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "file": str(self.file),
            "about": str(self.about),
            "format": self.file_format,
            "dtype": self.dtype,
            "bytes": self.bytes,
            "model_bytes": self.model_bytes,
            "check": self.check.to_dict(),
            "latency": [each.to_dict() for each in self.latency],
            "warnings": list(self.warnings),
        }


def export_model(
    model: str | Path,
    file_format: str = "onnx",
    dtype: str = "fp32",
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Writes a saved model as one file, with its description beside it, once it agrees with the model.

    Input and outputs are float32 in any case: `images` (N, 3, S, S), RGB in [0, 1], with N of any size; `logits` and
    `probabilities` (N, K). The file normalises the images itself.

    Args:
        model: a model's folder, or one of trainings or of a study that kept a single model.
        file_format: "onnx" or "torch-export".
        dtype: "fp32"; "fp16", weights and activations in half precision; or "int8", quantised, for ONNX only.
        data: labelled images to check with, and for int8 to calibrate with; by default the check is on noise.
        out: the file, or a folder for it; by default `model.onnx`, `model-fp16.onnx`, `model.pt2`, … in the model's
            folder. What is there is replaced.
        progress: told what is being done.

    Raises:
        UserError: for what cannot be asked for, or if the extra for ONNX is not installed.
        RunError: if the file differs from the model by more than is accepted; it is not left then.
        StorageError: if it cannot be written.
    """
    _check_request(file_format, dtype, data)
    classifier = load_model(model, device="cpu", precision="fp32")
    target = _target(classifier.folder, file_format, dtype, out)
    network = load_network(classifier.folder)
    checked, calibrating, folders = _images(classifier, data, dtype)
    check_output(target.parent, folders)
    about = describe(classifier, network.config, file_format, dtype)
    progress(f"writing {target.name}" + (f", calibrated with {len(calibrating)} images" if calibrating else ""))
    content = _content(network, classifier, calibrating, about)
    with storage_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            temporary.write_bytes(content)
            opening = export_onnx.open_onnx if file_format == "onnx" else export_torch.open_program
            run = opening(temporary, classifier.hardware.threads)
            progress(f"checking it against the model, on {len(checked)} {checked.about}")
            check = compare(network, run, checked, classifier.temperature)
            if refusal := check.refusal(dtype):
                raise RunError(f"export {target}: {refusal}; the file is not kept, try another --dtype or --format")
            latency = time_both(classifier, run, checked)
            described = target.with_name(f"{target.name}.json")
            digest = {"file": target.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            write_json(described, about | digest | {"check": check.to_dict()})
    return Exported(
        target, described, file_format, dtype, len(content), (classifier.folder / WEIGHTS).stat().st_size, check,
        tuple(latency), tuple(_warnings(classifier, check, dtype, 0 if data is None else checked.strangers)),
    )  # fmt: skip


def _warnings(classifier: Classifier, check: Check, dtype: str, strangers: int) -> Iterator[str]:
    if text := check.warning(dtype):
        yield text
    if classifier.tta == "flip":
        yield MIRRORED
    if strangers:
        yield f"{strangers:,} of the images are of classes that the model does not know, and count in no accuracy"


def _check_request(file_format: str, dtype: str, data: str | Path | None) -> None:
    """Refuses what can be refused before anything is loaded."""
    if file_format not in SUFFIX:
        raise unknown("--format", file_format, SUFFIX)
    if dtype not in DTYPES:
        raise unknown("--dtype", dtype, DTYPES)
    if dtype == "int8" and file_format != "onnx":
        raise UserError(f"--dtype int8: is for --format onnx; {file_format} has fp32 and fp16")
    if dtype == "int8" and data is None:
        raise UserError("--dtype int8: needs images to calibrate with; pass --data with the folder of your images")
    if file_format == "onnx":
        export_onnx.need_extra()


def _target(folder: Path, file_format: str, dtype: str, out: str | Path | None) -> Path:
    """Returns the file's path.

    Raises:
        UserError: for a name of another suffix, which could be that of the model itself.
    """
    suffix = SUFFIX[file_format]
    name = f"model{'' if dtype == 'fp32' else f'-{dtype}'}{suffix}"
    if out is None:
        return folder / name
    path = expanded(out)
    if path.is_dir() or not path.suffix:
        return path / name
    if path.suffix.lower() != suffix:
        raise UserError(f"--out {path}: a file of --format {file_format} is named *{suffix}")
    return path


def _images(
    classifier: Classifier, data: str | Path | None, dtype: str
) -> tuple[Samples, Samples | None, tuple[Path, ...]]:
    """Returns the images to check with and to calibrate with, and the user's folders that they come from."""
    if data is None:
        return noise(classifier), None, ()
    is_run = (classifier.folder / RESULT).is_file()
    seed = StoredRun(classifier.folder).result.get("seed") if is_run else 0
    checked, calibrating, index = draw(
        classifier, data, seed if isinstance(seed, int) else 0, calibrate=dtype == "int8"
    )
    return checked, calibrating, index.folders


def _content(network: Network, classifier: Classifier, calibrating: Samples | None, about: dict[str, Any]) -> bytes:
    """Returns the file's bytes; what is known only here goes into `about`."""
    size, onnx = classifier.inputs.size, about["format"] == "onnx"
    deployed = Deployed(network, classifier.temperature, DTYPES[about["dtype"]], channels_last=not onnx)
    if not onnx:
        return export_torch.to_bytes(export_torch.to_program(deployed, size), about)
    about["opset"] = export_onnx.OPSET
    about["versions"] |= export_onnx.versions()
    model = export_onnx.to_onnx(deployed, size)
    if calibrating is not None:
        about["calibrated_with"] = f"{len(calibrating)} {calibrating.about}"
        model = export_onnx.quantise(model, (batch.images_NCHW for batch in calibrating.batches()))
    return export_onnx.to_bytes(model, about)
