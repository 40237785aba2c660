"""The table of published weights against what torchvision, timm and pytorchcv say of themselves."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from bagoftricks.data.input import MEAN, STD
from bagoftricks.errors import UserError
from bagoftricks.models.build import build, cost
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.published import (
    ALIASES,
    HOSTS,
    PUBLISHED,
    Published,
    find,
    identify,
    is_name,
    licence_of,
    trained_in,
)
from tests.conftest import ROOT

Shapes, Strides = dict[str, torch.Size], dict[str, tuple[int, ...]]
PAGE = ROOT / "docs" / "reference" / "weights.md"


def of(host: str) -> list[Published]:
    return [item for name, item in PUBLISHED.items() if name.startswith(f"{host}:")]


@cache
def network(maker: Callable[..., torch.nn.Module], *arguments: Any) -> tuple[Shapes, Strides]:
    """Returns the shape of each tensor and the stride of each convolution; each network is made once, for speed."""
    with torch.device("meta"):
        model = maker(*arguments)
    strides = {name: module.stride for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)}
    return {key: tensor.shape for key, tensor in model.state_dict().items()}, strides


@pytest.mark.parametrize("item", of("torchvision"), ids=lambda item: item.name)
def test_torchvision_says_the_same(item: Published) -> None:
    model, _, version = item.name.partition(":")[2].partition(".")
    weights = torchvision.models.get_model_weights(model)[version]
    assert item.url == weights.url
    assert item.file == weights.url.rpartition("/")[2]
    assert f"-{item.sha256}." in item.file
    assert item.top1 == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert [item.size] == weights.transforms().crop_size
    assert (tuple(weights.transforms().mean), tuple(weights.transforms().std)) == (MEAN, STD)
    assert ("simple" in weights.meta["_docs"]) == ("simple" in item.source)
    assert weights.meta["recipe"].partition("#")[0].endswith("issues/3995") == ("vision#3995" in item.source)
    assert network(torchvision.models.get_model, model) == network(build, ModelConfig(item.tweaks, item.depth), 1000)
    assert cost(ModelConfig(item.tweaks, item.depth))[0] == weights.meta["num_params"]


@pytest.mark.parametrize("item", of("timm"), ids=lambda item: item.name)
def test_timm_says_the_same(item: Published) -> None:
    name = item.name.partition(":")[2]
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    assert config.hf_hub_id in ("timm/", f"timm/{name}")  # the first is short for the second
    assert item.hub_id == f"timm/{name}"
    assert item.licence == config.license
    assert item.file == config.url.rpartition("/")[2]
    assert item.file == f"{item.file.removesuffix(f'-{item.sha256}.pth')}-{item.sha256}.pth"
    assert item.size == (config.test_input_size or config.input_size)[-1]
    assert (config.mean, config.std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) == (MEAN, STD)
    assert config.num_classes == 1000
    papers = config.paper_ids or ""
    assert (papers in item.source) if papers else "arXiv:2110.00476" not in item.source or "ra2" in name
    theirs = network(timm.create_model, name.partition(".")[0])
    assert theirs == network(build, ModelConfig(item.tweaks, item.depth), 1000)


@pytest.mark.parametrize("item", of("pytorchcv"), ids=lambda item: item.name)
def test_pytorchcv_says_the_same(item: Published) -> None:
    store = pytest.importorskip("pytorchcv.models.common.model_store")
    models = pytest.importorskip("pytorchcv.models.resnet")
    name = item.name.partition(":")[2]
    parameters, error, sha1, _ = store.get_model_metainfo_dict()[name]
    assert item.sha1 == sha1
    assert item.file == f"{name}-{error}-{sha1[:8]}.pth"
    with torch.device("meta"):
        theirs = getattr(models, name)()
    assert sum(p.numel() for p in theirs.parameters()) == parameters
    strides = (theirs.features.stage2.unit1.body.conv1.conv.stride, theirs.features.stage2.unit1.body.conv2.conv.stride)
    assert strides == (((2, 2), (1, 1)) if item.tweaks == "A" else ((1, 1), (2, 2)))


def test_every_entry_is_of_one_of_the_hosts_and_complete() -> None:
    assert sum(len(of(host)) for host in HOSTS) == len(PUBLISHED)
    for name, item in PUBLISHED.items():
        assert item.name == name
        assert is_name(name)
        assert bool(item.sha256) != bool(item.sha1)
        assert (len(item.sha256), len(item.sha1)) in ((8, 0), (0, 40))
        assert len(item.hub_sha256) in (0, 64)
        assert set(item.sha256 + item.sha1 + item.hub_sha256) <= set("0123456789abcdef")
        assert 60 < item.top1 < 90
        assert "/" not in item.file
        assert item.source
        assert item.licence in ("bsd-3-clause", "apache-2.0", "mit", "cc-by-nc-4.0")
    known = [item.hub_sha256 for item in PUBLISHED.values() if item.hub_sha256]
    assert len(set(known)) == len(known)


def test_the_paper_has_weights_for_each_of_its_architectures() -> None:
    for tweaks in ("A", "B", "BC", "BCD"):
        for depth in (50, 101, 152):
            assert trained_in(ModelConfig(tweaks, depth)), (tweaks, depth)
    assert [item.name for item in trained_in(ModelConfig("A", 50))] == ["pytorchcv:resnet50"]
    assert trained_in(ModelConfig("D", 50)) == ()
    assert {item.tweaks for item in PUBLISHED.values() if item.depth < 50} == {"A", "CD"}


def test_a_stronger_recipe_is_stronger() -> None:
    """Figures in the wrong rows would show."""
    top1 = {name.partition(":")[2]: item.top1 for name, item in PUBLISHED.items()}
    for better, worse in (
        ("resnet50.a1_in1k", "resnet50.a2_in1k"), ("resnet50.a2_in1k", "resnet50.a3_in1k"),
        ("resnet50d.gluon_in1k", "resnet50c.gluon_in1k"), ("resnet50c.gluon_in1k", "resnet50.gluon_in1k"),
        ("resnet101.gluon_in1k", "resnet50.gluon_in1k"), ("resnet152.gluon_in1k", "resnet101.gluon_in1k"),
        ("resnet101d.ra2_in1k", "resnet50d.ra2_in1k"), ("resnet152d.ra2_in1k", "resnet101d.ra2_in1k"),
        ("resnet101", "resnet50"), ("resnet152", "resnet101"), ("resnet152b", "resnet101b"),
    ):  # fmt: skip
        assert top1[better] > top1[worse], (better, worse)
    for tag, version in (("tv", "V1"), ("tv2", "V2")):
        assert top1[f"resnet50.{tag}_in1k"] == pytest.approx(top1[f"resnet50.IMAGENET1K_{version}"], abs=0.05)


# ------------------------------------------------------------------------------------------------------------- names


def test_names() -> None:
    assert find("torchvision:IMAGENET1K_V2") is find("torchvision:resnet50.IMAGENET1K_V2")
    assert set(ALIASES.values()) <= set(PUBLISHED)
    assert not is_name("weights/timm.pth")
    assert not is_name("timm")
    with pytest.raises(UserError, match="unknown published weights 'timm:resnet50d.ra2_in1': did you mean 'timm:resn"):
        find("timm:resnet50d.ra2_in1")
    with pytest.raises(UserError, match="unknown network of timm 'timm:vit'"):
        find("timm:vit")


def test_without_timm_its_other_weights_are_told_to_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bagoftricks.models.published.find_spec", lambda name: None)
    assert find("timm:resnet50d.ra2_in1k") is PUBLISHED["timm:resnet50d.ra2_in1k"]
    with pytest.raises(UserError, match=r"tricks weights lists them, and timm knows more: .*timm"):
        find("timm:resnetblur50.bt_in1k")


def test_nothing_here_needs_torch() -> None:
    code = (
        "import sys, bagoftricks.models.published, bagoftricks.models.hub, bagoftricks.commands.weights\n"
        "print(sorted({'torch', 'timm', 'huggingface_hub', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------ what a file is, its licence


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_known_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "renamed.pth"
    path.write_bytes(b"x")
    swsl = PUBLISHED["timm:resnet50.fb_swsl_ig1b_ft_in1k"]
    assert identify(path, swsl.sha256 + "0" * 56) == swsl
    assert licence_of(path, identify(path, swsl.sha256 + "0" * 56)) == "cc-by-nc-4.0"
    a1 = PUBLISHED["timm:resnet50.a1_in1k"]
    assert identify(path, a1.hub_sha256) == a1
    assert identify(path, a1.hub_sha256[:8] + "0" * 56) is None  # of these the whole is known
    assert identify(path, digest(path)) is None
    assert identify(path, PUBLISHED["timm:resnet50.tv_in1k"].sha256 + "0" * 56).licence == "bsd-3-clause"


def test_a_file_of_pytorchcv_is_known_by_its_sha1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = PUBLISHED["pytorchcv:resnet50"]
    path = tmp_path / item.file
    path.write_bytes(b"content")
    assert identify(path, digest(path)) is None
    mine = replace(item, sha1=hashlib.sha1(b"content").hexdigest())
    monkeypatch.setitem(PUBLISHED, item.name, mine)
    assert identify(path, digest(path)) == mine


def test_a_file_is_known_by_its_place_in_the_hubs_cache(tmp_path: Path) -> None:
    """Where nobody has published its checksum; the blob's name is what the hub said when it was downloaded."""
    content = b"content"
    blob = tmp_path / "models--timm--resnet50d.ra2_in1k" / "blobs" / hashlib.sha256(content).hexdigest()
    link = blob.parent.parent / "snapshots" / "abcdef0" / "model.safetensors"
    for folder in (blob.parent, link.parent):
        folder.mkdir(parents=True)
    blob.write_bytes(content)
    link.symlink_to(Path("../../blobs") / blob.name)
    item = PUBLISHED["timm:resnet50d.ra2_in1k"]
    assert identify(link, digest(link)) == identify(link.resolve(), digest(link)) == item
    blob.write_bytes(b"other")
    assert identify(link, digest(link)) is None
    other = tmp_path / "models--timm--resnet50.a1_in1k" / "blobs" / blob.name
    other.parent.mkdir(parents=True)
    other.write_bytes(content)
    beside = other.parent.parent / "model.safetensors"
    beside.symlink_to(other)
    assert identify(beside, digest(beside)) is None  # its checksum is published, and is another one


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"license": "cc0-1.0"}, "cc0-1.0"),
        ({"license": ""}, ""),
        ({"license": "a\x1b[2Jb" + "x" * 1000}, "a\\x1b[2Jb" + "x" * 91),
        ({"format": "pt"}, "unknown"),
        (None, "unknown"),
    ],
)
def test_a_file_may_state_its_licence(tmp_path: Path, metadata: dict[str, str] | None, licence: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata)
    assert licence_of(path, None) == licence


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\3\4", b"\xff" * 100, (2**40).to_bytes(8, "little") + b"{", b"\2\0\0\0\0\0\0\0[]", b"\2\0\0\0\0\0\0\0{}",
     b"\x16\0\0\0\0\0\0\0" + json.dumps({"__metadata__": [1]}).encode()],
)  # fmt: skip
def test_a_file_that_is_no_safetensors_states_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert licence_of(path, None) == "unknown"


# -------------------------------------------------------------------------------------------------------------- page


def row_of(item: Published) -> str:
    checksum = f"sha1 `{item.sha1[:8]}…`" if item.sha1 else f"sha256 `{item.sha256}…`"
    hub = f", hub `{item.hub_sha256[:8]}…`" if item.hub_sha256 else ""
    cells = (f"`{item.name}`", item.architecture, f"{item.top1:.2f} at {item.size}", item.licence, item.source)
    return f"| {' | '.join(cells)} | {checksum}{hub} |"


def test_the_page_is_the_table() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == [row_of(item) for item in PUBLISHED.values()]
