"""A saved model: a folder with `model.safetensors` and `config.json` (see `saved`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bagoftricks.data.input import InputConfig
from bagoftricks.data.untrusted import RefusedError
from bagoftricks.errors import UserError
from bagoftricks.files import replacing, write_json
from bagoftricks.models.published import TEACHER_LICENCE
from bagoftricks.models.saved import CONFIG, WEIGHTS, model_config, read_config, refusal, require

if TYPE_CHECKING:
    from torch import Tensor

    from bagoftricks.models.network import Network


def save_model(
    model: Network,
    classes: tuple[str, ...],
    inputs: InputConfig,
    folder: Path,
    *,
    temperature: float | None = None,
    licence: str = "",
    tta: str = "none",
    teacher_licence: str = "",
) -> None:
    """Writes the model's folder. Architecture, class names and licence go into the weights' metadata too, so that the
    file alone says what it is.

    Args:
        model: whose weights and architecture are kept.
        classes: names, in the order of the logits.
        inputs: how evaluation prepares images.
        folder: created if it is not there; a model in it is replaced.
        temperature: as in `SavedModel`.
        licence: as in `SavedModel`.
        tta: as in `SavedModel`.
        teacher_licence: as in `SavedModel`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {
        "format": "pt",
        "architecture": model.config.name,
        "classes": json.dumps(classes),
        "license": licence,
        **({TEACHER_LICENCE: teacher_licence} if teacher_licence else {}),
    }
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.weights().items()}
    if not model.config.is_resnet:  # some of timm's networks use a tensor twice
        state = {key: tensor.clone() for key, tensor in state.items()}
    with replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(to_safetensors(state, metadata))  # by Python, so that a full disk is an OSError
    write_json(folder / CONFIG, model_config(model.config, classes, inputs, temperature, licence, tta, teacher_licence))


def to_safetensors(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Returns a .safetensors file with its metadata in order: equal models give equal files, and so equal hashes.

    Args:
        state: tensors by name, on the CPU and contiguous.
        metadata: what the file says of itself.
    """
    from safetensors.torch import save

    raw = save(dict(state), dict(metadata))
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]


def load_model(folder: str | Path) -> Network:
    """Returns a saved model in eval mode, on the CPU; its class names are in `model.classes`.

    Raises:
        UserError: if the folder holds no model, or one that does not fit its config.
    """
    import torch

    from bagoftricks.models.build import build
    from bagoftricks.models.state import check_tensor, read_state

    folder = Path(folder)
    require(folder, CONFIG, WEIGHTS)
    saved = read_config(folder)
    try:
        state, metadata = read_state(folder / WEIGHTS, "model")
        with torch.device("meta"):  # before memory is asked for by a config that lies
            known = build(saved.config, len(saved.classes))
        wanted = known.weights()
        for name, tensor in state.items():
            check_tensor(name, tensor, whole=name in wanted and not wanted[name].is_floating_point())
        kept = len(state[known.classifier_keys[0]])
        if len(saved.classes) != kept:
            raise RefusedError(f"{kept} classes in {WEIGHTS}, {len(saved.classes)} in {CONFIG}")
        if {name: tensor.shape for name, tensor in state.items()} != {name: t.shape for name, t in wanted.items()}:
            raise RefusedError(f"{WEIGHTS} does not hold the tensors of {saved.config.name}")
        trained = metadata.get("architecture", saved.config.name)
        if trained != saved.config.name:  # A and B have the same tensors
            raise RefusedError(f"{trained[:60]} in {WEIGHTS}, {saved.config.name} in {CONFIG}")
        model = build(saved.config, len(saved.classes))
        model.load_weights(state)
    except (UserError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise refusal(folder, error) from error
    model.classes = saved.classes
    return model.eval().to(memory_format=torch.channels_last)
