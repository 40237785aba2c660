"""Published weights, by the architecture that they were trained in: names, licences, checksums, accuracy. No torch.

Weights fit the architecture that they were trained in. B at 50 layers and more is torchvision's and timm's ResNet; BC
and BCD are timm's `resnet50c` and `resnet50d`. Below 50 layers there is no bottleneck: the same sources are A and CD.

A at 50 layers and more, the original with its stride in the first 1x1, has one source that can be loaded as it was
trained: pytorchcv's `resnet50`, whose `resnet50b` is B from the same training. Not listed, though A too: MSRA's of 2015
in detectron2's form (a pickle, batch norms folded into scales, which cannot be trained on), and Keras's (HDF5, pictures
as BGR with another mean). No source is known for D without C, nor for C or D without B at 50 layers and more:
`tricks adapt` carries weights over.

Sources of the figures: torchvision's and timm's own metadata, to which a test holds this table; Top-1 of timm's from
`results/results-imagenet.csv` of huggingface/pytorch-image-models at 7479d451; pytorchcv's from its package 0.0.74;
whole checksums from the HF hub's pages of the files. Left out: weights for another normalisation of images than
ImageNet's usual mean and deviation (timm's `ra4_*`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bagoftricks.data.input import MEAN, STD
from bagoftricks.data.names import shown
from bagoftricks.data.untrusted import RefusedError, open_plain, parse_json
from bagoftricks.errors import UserError, install, unknown
from bagoftricks.models.config import RESNET, TIMM, ModelConfig

UNKNOWN = "unknown"
"""The licence of a file that nobody has stated one for."""
TEACHER_LICENCE = "teacher_license"
"""What a .safetensors and a model's config call the licence of the weights that a teacher comes from."""
MOST_LICENCE = 100
"""Characters of a licence that a file states."""
MOST_HEADER = 2**22
"""Bytes of a .safetensors header."""
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Of a repository of the HF hub, the better one first."""
TORCHVISION = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Published:
    """Weights that somebody has published."""

    name: str
    """What a recipe's `init` says: "timm:resnet50d.ra2_in1k"."""
    tweaks: str
    """Of the architecture that they were trained in."""
    depth: int
    source: str
    """Who trained them, and how."""
    licence: str
    """SPDX identifier in small letters."""
    top1: float | None
    """On ImageNet's validation set, in %, as published; None where that is not known here."""
    size: int
    """Pixels of the images that this was measured with."""
    file: str
    """Name in torch hub's cache, or in pytorchcv's."""
    sha256: str = ""
    """Of `file`: its first eight digits, which is what its name publishes; "" where `sha1` is."""
    sha1: str = ""
    """Of `file`, whole."""
    hub_id: str = ""
    """Repository on the HF hub; "" where there is none."""
    hub_sha256: str = ""
    """Of the repository's model.safetensors, as the hub's page shows it; "" where that page was not to be had."""

    backbone: str = RESNET
    """As in `ModelConfig`; of another one than a ResNet, tweaks and depth say nothing."""
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    """What the images were normalised by that they were trained on."""

    @property
    def architecture(self) -> str:
        """For people: "ResNet-50-BCD"."""
        return ModelConfig(self.tweaks, self.depth).name if self.backbone == RESNET else self.backbone

    @property
    def url(self) -> str:
        """Where `file` is downloaded from; "" where it is not: timm's come from the HF hub, pytorchcv gets its own."""
        return TORCHVISION + self.file if self.name.startswith("torchvision:") else ""


def _torchvision(depth: int, version: int, top1: float, sha256: str) -> Published:
    how = "a simple recipe" if version == 1 else "its new recipe (vision#3995)"
    return Published(
        f"torchvision:resnet{depth}.IMAGENET1K_V{version}", "B" if depth >= 50 else "A", depth,
        f"torchvision, {how}", "bsd-3-clause", top1, 224, f"resnet{depth}-{sha256}.pth", sha256,
    )  # fmt: skip


RECIPES = {
    "a1": "timm, ResNet strikes back A1 (arXiv:2110.00476)",
    "a1h": "timm, ResNet strikes back A1, regularised more (arXiv:2110.00476)",
    "a2": "timm, ResNet strikes back A2 (arXiv:2110.00476)",
    "a3": "timm, ResNet strikes back A3, trained at 160 pixels (arXiv:2110.00476)",
    "ra": "timm, RandAugment RA",
    "ra2": "timm, RandAugment RA2, recipe B of ResNet strikes back (arXiv:2110.00476)",
    "gluon": "GluonCV, Bag of tricks (arXiv:1812.01187)",
    "tv": "torchvision, IMAGENET1K_V1, as timm holds it",
    "tv2": "torchvision, IMAGENET1K_V2, as timm holds it",
    "fb_swsl_ig1b_ft": "Facebook, a billion tagged pictures, then ImageNet (arXiv:1905.00546)",
}
LICENCES = {"tv": "bsd-3-clause", "tv2": "bsd-3-clause", "fb_swsl_ig1b_ft": "cc-by-nc-4.0"}


def _timm(name: str, tweaks: str, top1: float, size: int, file: str, hub_sha256: str = "") -> Published:
    model, _, tag = name.partition(".")
    recipe = tag.removesuffix("_in1k")
    sha256 = file.removesuffix(".pth").rpartition("-")[2]
    return Published(
        f"timm:{name}", tweaks, int(model.removeprefix("resnet").rstrip("cd")), RECIPES[recipe],
        LICENCES.get(recipe, "apache-2.0"), top1, size, file, sha256, "", f"timm/{name}", hub_sha256,
    )  # fmt: skip


def _pytorchcv(model: str, top1: float, top5_error: str, sha1: str) -> Published:
    tweaks = "B" if model.endswith("b") else "A"
    return Published(
        f"pytorchcv:{model}", tweaks, int(model.removeprefix("resnet").rstrip("b")),
        "pytorchcv's author in MXNet Gluon, converted", "mit", top1, 224, f"{model}-{top5_error}-{sha1[:8]}.pth",
        sha1=sha1,
    )  # fmt: skip


_ENTRIES = (
    _torchvision(18, 1, 69.758, "f37072fd"),
    _timm("resnet18.a1_in1k", "A", 73.164, 288, "resnet18_a1_0-d63eafa0.pth",
          "80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612"),
    _timm("resnet18d.ra2_in1k", "CD", 73.794, 288, "resnet18d_ra2-48a79e06.pth",
          "0ad5d924c4269ad863590b6ccdd19f5fb48d0bae695c1dd6751de0b0282d8361"),
    _torchvision(34, 1, 73.314, "b627a593"),
    _timm("resnet34.a1_in1k", "A", 77.938, 288, "resnet34_a1_0-46f8f793.pth"),
    _timm("resnet34d.ra2_in1k", "CD", 78.440, 288, "resnet34d_ra2-f8dcfcaf.pth"),
    _pytorchcv("resnet50", 77.72, "0633", "b00d1c8e52aa7a2badc705b1545aaf6ccece6ce9"),
    _torchvision(50, 1, 76.130, "0676ba61"),
    _torchvision(50, 2, 80.858, "11ad3fa6"),
    _pytorchcv("resnet50b", 77.61, "0638", "8a5473ef985d65076a3758117ad5700d726bd952"),
    _timm("resnet50.a1_in1k", "B", 81.240, 288, "resnet50_a1_0-14fe96d1.pth",
          "773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb"),
    _timm("resnet50.a2_in1k", "B", 80.780, 288, "resnet50_a2_0-a2746f79.pth",
          "f531f9aca4dde1b89e9a465c5b9e3b916a2d1b20a216acf3b9473d1e1212ecf6"),
    _timm("resnet50.a3_in1k", "B", 78.052, 224, "resnet50_a3_0-59cae1ef.pth"),
    _timm("resnet50.ra_in1k", "B", 79.860, 288, "resnet50_ra-85ebb6e5.pth",
          "c49195c94e4fe19545a332e706f998d836f63b5d9892cc54526df3ee9b92ba18"),
    _timm("resnet50.gluon_in1k", "B", 77.580, 224, "gluon_resnet50_v1b-0ebe02e2.pth"),
    _timm("resnet50.tv_in1k", "B", 76.156, 224, "resnet50-0676ba61.pth",
          "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888"),
    _timm("resnet50.tv2_in1k", "B", 80.844, 224, "resnet50-11ad3fa6.pth"),
    _timm("resnet50.fb_swsl_ig1b_ft_in1k", "B", 81.146, 224, "semi_weakly_supervised_resnet50-16a12f1b.pth"),
    _timm("resnet50c.gluon_in1k", "BC", 78.016, 224, "gluon_resnet50_v1c-48092f55.pth"),
    _timm("resnet50d.ra2_in1k", "BCD", 81.350, 288, "resnet50d_ra2-464e36ba.pth"),
    _timm("resnet50d.a1_in1k", "BCD", 81.444, 288, "resnet50d_a1_0-e20cff14.pth",
          "0b4f757b0732eb4c6584d2c3692923c3b92efe116b8a383fd4b5eb62fda660cb"),
    _timm("resnet50d.a2_in1k", "BCD", 81.168, 288, "resnet50d_a2_0-a3adc64d.pth"),
    _timm("resnet50d.a3_in1k", "BCD", 78.742, 224, "resnet50d_a3_0-403fdfad.pth"),
    _timm("resnet50d.gluon_in1k", "BCD", 79.080, 224, "gluon_resnet50_v1d-818a1b1b.pth"),
    _pytorchcv("resnet101", 79.21, "0540", "65faf44721096a75fa72b875efb416513f864078"),
    _torchvision(101, 1, 77.374, "63fe2227"),
    _torchvision(101, 2, 81.886, "cd907fc2"),
    _pytorchcv("resnet101b", 79.41, "0530", "f059ba3c7fa4a65f2da6e17f3718662d59836637"),
    _timm("resnet101.a1_in1k", "B", 82.322, 288, "resnet101_a1_0-cdcb52a9.pth",
          "1ba5b660e7c175b3c27c557fc7dc8b2815be830c516815b0155f61b403f27380"),
    _timm("resnet101.a1h_in1k", "B", 82.802, 288, "resnet101_a1h-36d3f2aa.pth",
          "1a076c0384295e7d3704f201c5711ff245507db934230bab72ff3014a95f90fe"),
    _timm("resnet101.gluon_in1k", "B", 79.306, 224, "gluon_resnet101_v1b-3b017079.pth"),
    _timm("resnet101c.gluon_in1k", "BC", 79.542, 224, "gluon_resnet101_v1c-1f26822a.pth",
          "cb45d7d578809d3a4a3755f1bba7ecc30fbaf8cf2ec129a2d62f5f0344b0ce30"),
    _timm("resnet101d.ra2_in1k", "BCD", 83.018, 320, "resnet101d_ra2-2803ffab.pth",
          "c2192596da2e8d652cbf0465b8694704247b524efb68ed194504af453830709c"),
    _timm("resnet101d.gluon_in1k", "BCD", 80.466, 224, "gluon_resnet101_v1d-0f9c8644.pth"),
    _pytorchcv("resnet152", 80.71, "0468", "d46977ddb5660bb523e9f2de50e5d16cef8e3027"),
    _torchvision(152, 1, 78.312, "394f9c45"),
    _torchvision(152, 2, 82.284, "f82ba261"),
    _pytorchcv("resnet152b", 80.99, "0445", "2f420307673264444e8457e2050b5d6b131002d7"),
    _timm("resnet152.a1_in1k", "B", 82.744, 288, "resnet152_a1_0-2eee8a7a.pth"),
    _timm("resnet152.a1h_in1k", "B", 83.494, 288, "resnet152_a1h-dc400468.pth"),
    _timm("resnet152.gluon_in1k", "B", 79.712, 224, "gluon_resnet152_v1b-c1edb0dd.pth"),
    _timm("resnet152c.gluon_in1k", "BC", 79.906, 224, "gluon_resnet152_v1c-a3bb0b98.pth",
          "15a98417e3344e6265e2c9446c6551baf72cd3250cfffa376abc84f5f32d90b2"),
    _timm("resnet152d.ra2_in1k", "BCD", 83.684, 320, "resnet152d_ra2-5cac0439.pth"),
    _timm("resnet152d.gluon_in1k", "BCD", 80.476, 224, "gluon_resnet152_v1d-bd354e12.pth"),
)  # fmt: skip

PUBLISHED = {item.name: item for item in _ENTRIES}
"""Every entry by its name."""
HOSTS = ("torchvision", "timm", "pytorchcv")
"""What a name begins with, before the colon."""
ALIASES = {f"torchvision:IMAGENET1K_V{version}": f"torchvision:resnet50.IMAGENET1K_V{version}" for version in (1, 2)}
"""Shorter names."""


def is_name(init: str) -> bool:
    """Whether a recipe's `init` names published weights, known or not, rather than a file."""
    return init.partition(":")[0] in HOSTS and ":" in init


def find(name: str) -> Published:
    """Returns published weights by their name: of the table, or of what else timm publishes, where that is installed.

    Raises:
        UserError: for a name that is not known, with the nearest one.
    """
    name = ALIASES.get(name, name)
    if name in PUBLISHED:
        return PUBLISHED[name]
    more = ""
    if name.startswith(TIMM):
        if find_spec("timm"):
            from bagoftricks.models.from_timm import published

            return published(name.removeprefix(TIMM))
        more = f", and timm knows more: {install('timm')}"
    raise UserError(f"{unknown('published weights', name, [*PUBLISHED, *ALIASES])}; tricks weights lists them{more}")


def trained_in(config: ModelConfig) -> tuple[Published, ...]:
    """Returns what was trained in an architecture."""
    return tuple(item for item in PUBLISHED.values() if (item.tweaks, item.depth) == (config.tweaks, config.depth))


def identify(path: Path, sha256: str) -> Published | None:
    """Returns which published weights a file is, and None if it is none that is known.

    It is one if its checksum is (of a .pth the eight digits that are published), or if it stands in the HF hub's cache
    as the hub has named it there, by repository and checksum, and no other checksum is known of it.

    Args:
        path: the file. Its place tells where its checksum is not published, so pass it as it was found, links and all.
        sha256: of its content, in hexadecimal.
    """
    for item in PUBLISHED.values():
        if sha256 == item.hub_sha256 or (item.sha256 and sha256.startswith(item.sha256)):
            return item
    for item in PUBLISHED.values():
        if item.sha1 and path.name == item.file and sha1_of(path) == item.sha1:
            return item
    repository = next((part for part in reversed(path.absolute().parts) if part.startswith("models--")), "")
    for item in PUBLISHED.values():
        known = path.name == HUB_FILES[0] and item.hub_sha256
        if repository and repository == hub_folder_name(item.hub_id) and not known and hub_digest(path) == sha256:
            return item
    return _of_timm(repository) if repository and hub_digest(path) == sha256 else None


def _of_timm(repository: str) -> Published | None:
    """Returns what timm knows of weights whose folder in the HF hub's cache has its name; None if it knows none."""
    name = repository.removeprefix(hub_folder_name("timm/"))
    if name == repository or TIMM + name in PUBLISHED or not find_spec("timm"):
        return None
    from bagoftricks.models.from_timm import published

    try:
        item = published(name)
    except UserError:
        return None
    return item if hub_folder_name(item.hub_id) == repository else None


def hub_folder_name(hub_id: str) -> str:
    """Returns what the HF hub's cache calls the folder of a repository."""
    return "models--" + hub_id.replace("/", "--")


def hub_digest(path: Path) -> str:
    """Returns the sha256 that the HF hub's cache names a file's content by, where a link leads to it; else ""."""
    name = path.readlink().name if path.is_symlink() else path.name
    return name if len(name) == 64 and set(name) <= set("0123456789abcdef") else ""


def sha1_of(path: Path) -> str:
    """Returns the sha1 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new("sha1", usedforsecurity=False)).hexdigest()


def licence_of(path: Path, item: Published | None) -> str:
    """Returns the licence of a file of weights.

    It is that of the published weights that the file is, or what a .safetensors says under "license" (one that this
    program saved says "" if nothing was inherited), or "unknown".

    Args:
        path: the file.
        item: the published weights that it is, where it is any that are known.
    """
    if item:
        return item.licence
    try:
        with open_plain(path, 2**63, follow=True) as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(length)) if length <= MOST_HEADER else None
        stated = header["__metadata__"]["license"] if isinstance(header, dict) else None
    except (OSError, RefusedError, ValueError, KeyError, TypeError):  # it is no .safetensors, or does not say
        return UNKNOWN
    return shown(stated)[:MOST_LICENCE] if isinstance(stated, str) else UNKNOWN
