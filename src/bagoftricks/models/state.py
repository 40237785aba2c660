"""Files of weights, read so that they can do no harm: a state dict of tensors, or one line of error.

A `.pth` or `.bin` is read with `weights_only`, so that it cannot execute anything, and no kind of file is believed
about its size. What is taken must be dense, finite numbers.
"""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bagoftricks.data.arrays import check_directory
from bagoftricks.data.names import shown
from bagoftricks.data.untrusted import RefusedError, open_plain
from bagoftricks.errors import UserError, first_line
from bagoftricks.models.keys import renamed
from bagoftricks.models.published import MOST_HEADER

MOST_BYTES = 2**32
"""Of a file of weights: eight times a ResNet-152 with its optimiser's state."""
MOST_TENSORS = 10_000
"""In a file: ten times those of a ResNet-152 with its optimiser's state."""
WRAPPERS = ("state_dict", "model")
"""Names under which training programs keep the weights in a file of more."""


def read_state(path: Path, what: str = "initial weights") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns (state dict, metadata) of a .safetensors, .pth or .pt file; only the first kind has metadata.

    Raises:
        UserError: for a missing, unreadable or foreign file.
    """
    if not path.is_file():
        raise UserError(f"{what} {path}: no such file; pass a .safetensors or .pth, or 'scratch'")
    metadata: dict[str, str] = {}
    try:
        if _is_safetensors(path):
            _check_header(path)
            with safe_open(path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
        else:
            check_archive(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{what} {path}: cannot be read ({shown(first_line(error))})") from error
    except Exception as error:  # torch.load raises pickle's own error for anything that is not plain weights
        raise UserError(
            f"{what} {path}: is damaged or holds more than weights, and is not opened; "
            "save the state dict, or .safetensors"
        ) from error
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise UserError(f"{what} {path}: no state dict of tensors inside")
    if len(state) > MOST_TENSORS:
        raise UserError(f"{what} {path}: holds {len(state):,} tensors, more than {MOST_TENSORS:,}")
    return renamed(state), metadata


def _is_safetensors(path: Path) -> bool:
    """Tells by the name or, since the HF hub's cache names contents by their checksums, by how the file begins."""
    if path.suffix == ".safetensors":
        return True
    with open_plain(path, MOST_BYTES, follow=True) as file:
        start = file.read(9)
    return start[4:] == b"\0\0\0\0{"  # after the header's length, which is small; torch's formats begin otherwise


def check_archive(path: Path, most: int = MOST_BYTES) -> None:
    """Refuses a file of `torch.save` that unpacks to more than it is: torch stores, and compresses nothing.

    The older format, which is no zip, reads no more than there is.

    Raises:
        RefusedError: if it does, since it is compressed or its members overlap, or if it is larger than `most` bytes.
    """
    with open_plain(path, most, follow=True) as file:
        if file.read(4) != b"PK\3\4":
            return
        try:
            check_directory(file, MOST_TENSORS)
            with ZipFile(file) as archive:
                members = archive.infolist()
        except BadZipFile as error:
            raise RefusedError(first_line(error)) from error
        if sum(member.file_size for member in members) > file.seek(0, os.SEEK_END):
            raise RefusedError("is compressed, or its members overlap, as torch writes none; save the state dict again")


def _check_header(path: Path) -> None:
    """Refuses a .safetensors by its size; that offsets and shapes agree with it, its own library checks."""
    with open_plain(path, MOST_BYTES, follow=True) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise RefusedError(f"has a header of {length:,} bytes, more than {MOST_HEADER:,}")


def check_tensor(name: str, tensor: Tensor, *, whole: bool = False) -> None:
    """Refuses what cannot be a network's weights; counters of batches may be whole numbers, and `whole` tensors.

    Raises:
        RefusedError: if it is sparse, quantised, not there, of complex or whole numbers, or holds NaN or infinity.
    """
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    counter = (whole or name.endswith("num_batches_tracked")) and tensor.dtype == torch.int64
    if not dense or not (tensor.is_floating_point() or counter):
        raise RefusedError(f"{shown(name)} holds {tensor.dtype}, {tensor.layout}, and no plain floating-point numbers")
    if not counter and not bool(torch.isfinite(tensor.float()).all()):
        raise RefusedError(f"{shown(name)} holds NaN or infinity: a training that diverged")
