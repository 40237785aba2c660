"""A run's initial weights: none, a file's, or those of a file made to fit the run's architecture (`adapt:FILE`)."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from bagoftricks.data.batches import Batches
from bagoftricks.data.cache import open_images
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.input import InputConfig
from bagoftricks.data.resident import resident
from bagoftricks.data.soundness import ALLOWED, sound
from bagoftricks.data.sources import open_data
from bagoftricks.data.split import SplitConfig, split
from bagoftricks.data.untrusted import conform, parse_json
from bagoftricks.errors import UserError
from bagoftricks.files import check_output, file_digest, replacing, waiting_for
from bagoftricks.models.build import build
from bagoftricks.models.config import ADAPT, RESNET, ModelConfig
from bagoftricks.models.folder import to_safetensors
from bagoftricks.models.hub import WeightsFile, sha256_of, weights_file
from bagoftricks.models.mismatch import ADAPTATION, architecture_of
from bagoftricks.models.published import TEACHER_LICENCE, licence_of
from bagoftricks.models.resnet import ResNet
from bagoftricks.models.state import read_state
from bagoftricks.models.weights import classes_of, load_initial
from bagoftricks.recipe import Recipe
from bagoftricks.training.adapt import Adaptation, AdaptConfig, adapt
from bagoftricks.training.hardware import Hardware, cores, detect

SCRATCH = "scratch"
OPEN = ("imagenet", f"{ADAPT}imagenet")
"""Of a study that needs ImageNet weights, and leaves it to the command to name them."""
SHAPE = {"source": str, "target": str, "before": {"*": float}, "after": {"*": float}}
BATCH = 64
"""Images a step while weights are adapted; fewer where there are fewer."""
HELD = 256
"""Validation images on which it is measured how close adapted weights come; fewer where there are fewer."""


def initial_identity(recipe: Recipe) -> str:
    """Returns what stands for the initial weights in a run's identity: the hash of their file, or "scratch".

    Weights that need no adapting count as the file itself, so that such a run is shared with one that names the file.

    Raises:
        UserError: if the file is missing.
    """
    if recipe.init == SCRATCH:
        return SCRATCH
    digest = weights_digest(recipe.init)
    if not needs_adapting(recipe):
        return digest
    source = source_tweaks(initial_file(recipe))  # which a file's name may tell, and its content not
    return hashlib.sha256(f"{digest} {source} {AdaptConfig().identity()}".encode()).hexdigest()


def weights_digest(init: str) -> str:
    """Returns the hash of the file that initial weights come from, `adapt:` or not.

    Raises:
        UserError: if it is missing.
    """
    return sha256_of(_file(init).path)


def check_initial(recipe: Recipe, num_classes: int) -> None:
    """Refuses initial weights that a run could not start from.

    Raises:
        UserError: if they are missing, unreadable, or do not fit.
    """
    if recipe.init in OPEN:
        raise UserError(
            f"init = {recipe.init}: pass --init with a file of ImageNet weights, or --init scratch to do without"
        )
    if recipe.init != SCRATCH:
        file = initial_file(recipe)
        check_weights(recipe.model, num_classes, file)
        if needs_adapting(recipe):
            check_adaptable(file)


def initial_file(recipe: Recipe) -> WeightsFile:
    """Returns the file that the initial weights come from, `adapt:` or not."""
    return _file(recipe.init)


def needs_adapting(recipe: Recipe) -> bool:
    """Whether the initial weights have to be carried over to another architecture first."""
    return recipe.init.startswith(ADAPT) and source_tweaks(initial_file(recipe)) != recipe.model.tweaks


def adapted_file(
    recipe: Recipe,
    index: ImageIndex,
    train: Batches,
    val: Batches,
    hardware: Hardware,
    folder: Path,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    waiting: Callable[[], None] = lambda: None,
) -> Path:
    """Returns a file with the initial weights adapted to the recipe's architecture; makes it in `folder` if need be.

    Args:
        recipe: whose `init` is `adapt:FILE`.
        index: the data set.
        train: the training side; adapting sees its images and no labels.
        val: the validation side; how close the adapted weights come is measured on some of its images.
        hardware: where to compute.
        folder: of files that can be made again.
        on_step: told of the batches done and their total.
        waiting: called about each second while another process makes the same file.

    Raises:
        UserError: if the weights do not fit.
        RunError: if adapting fails.
    """
    source = initial_file(recipe)
    members = hashlib.sha256(train.members.astype("<i8").tobytes()).hexdigest()
    material = [
        initial_identity(recipe), recipe.model.name, index.content, members, train.seed, vars(train.config),
        vars(hardware), str(torch.__version__),
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"adapted-{key}.safetensors"
    if not path.exists():
        with waiting_for(path.with_suffix(".lock"), waiting):
            if not path.exists():  # nobody has made it while we waited
                write_adapted(source, recipe.model, train, val, hardware, path, on_step=on_step)
    return path


def write_adapted(
    source: WeightsFile,
    model: ModelConfig,
    train: Batches,
    val: Batches,
    hardware: Hardware,
    path: Path,
    *,
    config: AdaptConfig | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Adaptation:
    """Writes the weights of `source` as adapted to `model`, and returns how close they come, on images of `val`.

    The file says what it was made from, how far it is from that, and under which licence it stands.

    Raises:
        UserError: if `source` holds no ResNet of the same depth.
        RunError: if adapting fails.
    """
    network, metadata = network_of(source)
    fresh = ModelConfig(model.tweaks, model.depth)
    target = build(fresh, network.fc.out_features, train.seed)
    network, target = (net.to(hardware.device, memory_format=torch.channels_last) for net in (network, target))  # type: ignore[call-overload]
    spread = np.linspace(0, len(val.members) - 1, min(HELD, len(val.members))).astype(int)  # over all classes
    held = replace(val, members=val.members[spread], batch_size=BATCH)
    lessons = replace(train, batch_size=min(BATCH, len(train.members)))
    result = adapt(network, target, lessons, held, hardware, config, on_step)
    digest = file_digest(source.path)
    kept = {name: metadata[name] for name in ("classes", TEACHER_LICENCE) if name in metadata}
    licence = licence_of(source.path, source.item)
    about = {"format": "pt", "architecture": target.config.name, "license": licence, **kept}
    about[ADAPTATION] = json.dumps({"file": source.path.name, "sha256": digest, **vars(result)})
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in target.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(to_safetensors(state, about))
    return result


def adapt_weights(
    source: str,
    tweaks: str,
    data: str | Path | ImageIndex,
    out: str | Path,
    *,
    size: int = 224,
    seed: int = 0,
    allow_corrupt: float = ALLOWED,
    hardware: Hardware | None = None,
    on_look: Callable[[int], None] = lambda done: None,
    on_image: Callable[[int], None] = lambda done: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    **steps: int,
) -> Adaptation:
    """Writes weights that were trained in one architecture as they fit another, learnt from a folder's training images.

    Args:
        source: a file of weights, or a published name.
        tweaks: the architecture to fit: A, or letters of B to F.
        data: a folder of images or an index; labels are not used.
        out: the .safetensors to write.
        size: pixels.
        seed: of the split and of the order of images.
        allow_corrupt: largest share of images that may be left out because they cannot be used, from 0 to 1.
        hardware: where to compute.
        on_look: called with the number of images looked at for faults.
        on_image: called with the number of images decoded.
        on_step: called with the batches done and their total.
        **steps: part_steps and whole_steps of `AdaptConfig`.

    Raises:
        UserError: if the request makes no sense, or the weights already are of that architecture.
        RunError: if adapting fails.
    """
    out, hardware = Path(out), hardware or detect()
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: must end in .safetensors")
    config = AdaptConfig(**steps)
    file = _file(source)
    model = ModelConfig(tweaks, network_of(file)[0].config.depth)
    if source_tweaks(file) == model.tweaks:
        raise UserError(f"--to {tweaks}: {file.path.name} was trained in {model.name}; there is nothing to adapt")
    index, _ = sound(open_data(data), workers=cores(), on_look=on_look, allow=allow_corrupt)
    check_output(out.parent, index.folders)
    inputs = InputConfig(size)
    hardware.prepare()
    with tempfile.TemporaryDirectory(prefix="bagoftricks-") as folder:
        images = open_images(index, size, Path(folder), workers=hardware.threads, progress=on_image)
        sides = split(index, SplitConfig(), seed)
        images = resident(images, hardware.device, deterministic=hardware.deterministic)
        train = Batches(images, index.labels, sides.train, inputs, BATCH, seed, hardware.device)
        val = replace(train, members=sides.val)
        return write_adapted(file, model, train, val, hardware, out, config=config, on_step=on_step)


def network_of(file: WeightsFile) -> tuple[ResNet, dict[str, str]]:
    """Returns the network that a file of weights was trained in, with these weights and its metadata.

    Raises:
        UserError: if the file holds no ResNet, or not all of one.
    """
    path = file.path
    state, metadata = read_state(path)
    tweaks, depth = architecture_of(state, metadata, file.item)
    if depth is None or "fc.bias" not in state:
        what = f"{file.item.backbone} is no ResNet" if file.item and file.item.backbone != RESNET else "no ResNet"
        raise UserError(f"initial weights {path}: {what} that could be adapted")
    network = ResNet(tweaks, depth, len(state["fc.bias"]))
    network.classes = classes_of(metadata) or network.classes
    report = load_initial(network, path, file.item)
    if report.random or report.replaced:
        raise UserError(f"initial weights {path}: lack {(report.random + report.replaced)[0]}, so cannot be adapted")
    return network, metadata


def adaptation_of(path: Path) -> Adaptation | None:
    """Returns how far a file of adapted weights is from its source; None if it was not adapted."""
    about = read_state(path)[1].get(ADAPTATION)
    if about is None:
        return None
    try:
        found = conform(parse_json(about), SHAPE)
        return Adaptation(*(found[name] for name in ("source", "target", "before", "after")))
    except (ValueError, KeyError) as error:
        raise UserError(f"initial weights {path}: what they say of their adapting is damaged") from error


@cache
def check_weights(config: ModelConfig, num_classes: int, file: WeightsFile) -> None:
    """Refuses a file of weights that `load_initial` would refuse; one version of a file is read once in a process."""
    with torch.device("meta"):
        load_initial(build(config, num_classes), file.path, file.item)


@cache
def check_adaptable(file: WeightsFile) -> None:
    """Refuses a file of weights that `network_of` would refuse; one version of a file is read once in a process."""
    with torch.device("meta"):
        network_of(file)


@cache
def source_tweaks(file: WeightsFile) -> str:
    """Returns the architecture that a file's weights were trained in, as well as can be told."""
    return architecture_of(*read_state(file.path), file.item)[0]


def _file(init: str) -> WeightsFile:
    """Returns which version of which file the initial weights come from, `adapt:` or not."""
    return weights_file(init.removeprefix(ADAPT))
