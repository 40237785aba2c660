"""Weights and model folders that mean harm: nothing is executed, and nothing is believed about its size."""

from __future__ import annotations

import json
import os
import resource
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bagoftricks.data.input import InputConfig
from bagoftricks.errors import UserError
from bagoftricks.models import state as module
from bagoftricks.models.folder import load_model, save_model
from bagoftricks.models.resnet import ResNet
from bagoftricks.models.saved import read_config
from bagoftricks.models.weights import load_initial

State = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Who asks for 6 GiB more than is taken now gets an error, and not the machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc").is_dir() else 0
    before = resource.getrlimit(resource.RLIMIT_AS)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + 6 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def model() -> ResNet:
    return ResNet("A", 18, num_classes=2)


def refused(model: ResNet, path: Path, message: str) -> None:
    before = model.conv1.weight.clone()
    with pytest.raises(UserError, match=message) as caught:
        load_initial(model, path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert torch.equal(model.conv1.weight, before)


class Calls:
    """Unpickled, it would call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", ["system", "exec", "torch.save", "torch.hub"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pth_executes_nothing(
    model: ResNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, zipped: bool
) -> None:
    """Neither the shell, nor the interpreter, nor torch's own functions, in the format of now and the older one."""
    monkeypatch.chdir(tmp_path)
    calls = {
        "system": Calls(os.system, "touch pwned"),
        "exec": Calls(exec, "open('pwned', 'w')"),
        "torch.save": Calls(torch.save, 1, "pwned"),
        "torch.hub": Calls(torch.hub.load, ".", "pwned", "local"),
    }
    state = {**model.state_dict(), "conv1.weight": calls[function]}
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    refused(model, tmp_path / "w.pth", "more than weights")
    assert not (tmp_path / "pwned").exists()


def test_what_torch_allows_reaches_no_memory_of_others(model: ResNet, tmp_path: Path) -> None:
    """A tensor larger than what was stored of it, and a plain request for a terabyte."""
    storage = torch.zeros(1).storage()
    beyond = Calls(torch._utils._rebuild_tensor_v2, storage, 0, (64, 3, 7, 7), (147, 49, 7, 1), False, {})
    torch.save({**model.state_dict(), "conv1.weight": beyond}, tmp_path / "w.pth")
    refused(model, tmp_path / "w.pth", "cannot be read .*storage")
    torch.save({**model.state_dict(), "a": Calls(bytearray, 10**12)}, tmp_path / "w.pth")
    refused(model, tmp_path / "w.pth", "is damaged or holds more than weights")


def test_a_pth_is_no_bomb(model: ResNet, tmp_path: Path) -> None:
    """Torch itself would unpack a compressed file."""
    torch.save({"bomb": torch.zeros(2**23)}, tmp_path / "large.pth")
    with zipfile.ZipFile(tmp_path / "large.pth") as large, zipfile.ZipFile(tmp_path / "w.pth", "w", 8) as bomb:
        for member in large.infolist():
            bomb.writestr(member.filename, large.read(member))
    assert (tmp_path / "w.pth").stat().st_size < (tmp_path / "large.pth").stat().st_size / 100
    refused(model, tmp_path / "w.pth", "compressed, or its members overlap")


def test_members_of_a_pth_that_overlap(model: ResNet, tmp_path: Path) -> None:
    """A hundred entries of the directory that all lead to one content."""
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(10_000)}, path)
    content = path.read_bytes()
    place, end = content.index(b"PK\1\2"), content.rindex(b"PK\5\6")
    zip64 = content.rfind(b"PK\6\6", 0, end)
    directory = content[place : zip64 if zip64 > 0 else end]
    count = directory.count(b"PK\1\2") * 100
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory) * 100, place, 0)
    path.write_bytes(content[:place] + directory * 100 + tail)
    refused(model, path, "members overlap")


def test_a_pth_of_a_million_members(model: ResNet, tmp_path: Path) -> None:
    size = 2**28
    with (tmp_path / "w.pth").open("wb") as file:
        file.write(b"PK\3\4")
        file.truncate(size)  # a hole, which takes no disk
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size - 4, 4, 0))
    refused(model, tmp_path / "w.pth", "directory of 268,435,452 bytes")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(64, 3, 7, 7).to(torch.complex64),
        torch.zeros(64, 3, 7, 7, dtype=torch.int32),
        torch.zeros(64, 3, 7, 7, dtype=torch.bool),
        torch.zeros(64, 3, 7, 7, device="meta"),
        torch.zeros(64, 3, 7, 7).to_sparse(),
        torch.full((64, 3, 7, 7), float("nan")),
        torch.full((64, 3, 7, 7), float("-inf"), dtype=torch.float16),
    ],
    ids=["complex", "int32", "bool", "meta", "sparse", "nan", "inf"],
)
def test_what_is_no_finite_number(model: ResNet, tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({**model.state_dict(), "conv1.weight": tensor}, tmp_path / "w.pth")
    refused(model, tmp_path / "w.pth", "conv1.weight holds")


def test_shapes_of_a_pth_may_lie(model: ResNet, tmp_path: Path) -> None:
    """A number seen as a petabyte costs nothing, as long as nobody copies it."""
    own = model.state_dict()
    huge = torch.zeros(1).expand(10**8, 10**7)
    torch.save({**own, "fc.weight": huge, "layer1.0.conv1.weight": huge}, tmp_path / "w.pth")
    report = load_initial(model, tmp_path / "w.pth")
    assert (report.replaced, report.random) == (("fc.weight",), ("layer1.0.conv1.weight",))


def test_keys_that_are_no_names(model: ResNet, tmp_path: Path) -> None:
    torch.save({**model.state_dict(), 1: torch.zeros(1)}, tmp_path / "w.pth")
    refused(model, tmp_path / "w.pth", "no state dict")


def test_too_many_tensors(model: ResNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(model.state_dict(), tmp_path / "w.pth")
    monkeypatch.setattr(module, "MOST_TENSORS", 121)
    refused(model, tmp_path / "w.pth", "holds 122 tensors, more than 121")
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    refused(model, tmp_path / "w.pth", "more than 1,000")


def entry(offsets: list[int], shape: list[int], kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


def make_safetensors(path: Path, header: dict[str, Any] | bytes, body: int = 64, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(body))
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry([0, 64], [16]), "b": entry([0, 64], [16])}, "invalid offset"),
        ({"a": entry([0, 32], [8])}, "not fully covered"),
        ({"a": entry([0, 64], [10**6] * 3)}, "cannot be read"),
        ({"a": entry([0, 64], [2**32, 2**32, 16])}, "overflow"),
        ({"a": entry([0, 10**15], [250 * 10**12])}, "cannot be read"),
        ({"a": entry([0, 64], [-4, -4])}, "invalid value"),
        ({"a": entry([0, 64], [16], "OBJECT")}, "unknown variant"),
        (b'{"__metadata__":' + b'{"a":' * 100_000, "cannot be read"),
    ],
    ids=["overlap", "hole", "petabyte", "overflow", "beyond", "negative", "kind", "deep"],
)
def test_headers_that_lie(model: ResNet, tmp_path: Path, header: dict[str, Any] | bytes, message: str) -> None:
    refused(model, make_safetensors(tmp_path / "w.safetensors", header), message)


@pytest.mark.parametrize("length", [2**22 + 1, 10**8, 2**63, 2**64 - 1])
def test_headers_of_any_length(model: ResNet, tmp_path: Path, length: int) -> None:
    refused(model, make_safetensors(tmp_path / "w.safetensors", b"{}", length=length), "header of")


def test_a_header_of_a_hundred_thousand_tensors(model: ResNet, tmp_path: Path) -> None:
    """Reading 400,000 of them took a minute."""
    header = {f"t{i}": entry([0, 0], [0]) for i in range(100_000)}
    refused(model, make_safetensors(tmp_path / "w.safetensors", header, 0), "header of .* bytes")


def test_a_key_that_occurs_twice(model: ResNet, tmp_path: Path) -> None:
    one = '"conv1.weight":{"dtype":"F32","shape":[%s],"data_offsets":[0,64]}'
    header = "{" + one % "16" + "," + one % "8,2" + "}"
    refused(model, make_safetensors(tmp_path / "w.safetensors", header.encode()), "no ResNet")


def test_names_of_tensors_are_shown_and_not_obeyed(model: ResNet, tmp_path: Path) -> None:
    refused(model, make_safetensors(tmp_path / "w.safetensors", {"a\x1b[2J": entry([0, 1], [1])}), "w.safetensors")


# ------------------------------------------------------------------------------------------------------ model folders


@pytest.fixture
def folder(model: ResNet, tmp_path: Path) -> Path:
    save_model(model, ("a", "b"), InputConfig(), tmp_path / "model")
    assert load_model(tmp_path / "model").classes == ("a", "b")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 10**9}, "'2'"),
        ({"num_classes": 10**30}, "cannot be loaded"),
        ({"num_classes": -1}, "classes in"),
        ({"num_classes": "2"}, "num_classes must be a whole number"),
        ({"num_classes": True}, "num_classes must be a whole number"),
        ({"num_classes": 100_000, "id2label": {str(i): str(i) for i in range(100_000)}}, "2 classes in"),
        ({"id2label": {"0": ["a"], "1": "b"}}, "id2label.0 must be text"),
        ({"tweaks": ["B"]}, "tweaks must be text"),
        ({"tweaks": "G"}, "unknown model.tweaks"),
        ({"tweaks": "../../etc"}, "unknown model.tweaks"),
        ({"tweaks": "\x1b[2J"}, "unknown model.tweaks"),
        ({"depth": 10**6}, "choose from 10"),
        ({"depth": 18.0}, "depth must be a whole number"),
        ({"depth": float("nan")}, "NaN"),
        ({"schema": 2}, "later version; upgrade"),
        ({"num_classes": 0}, "0 classes in"),
        ({"id2label": {"0": "a", "1": "a"}}, "two classes are named 'a'"),
        ({"id2label": {"0": "\x1b[2J", "1": "\x1b[2J"}}, r"named '.x1b"),
        ({"temperature": float("nan")}, "NaN"),
        ({"temperature": float("inf")}, "Infinity"),
        ({"temperature": 0}, "temperature 0: must be between 0.01 and 100"),
        ({"temperature": -1.5}, "temperature -1.5: must be between"),
        ({"temperature": 1e-300}, "temperature 1e-300: must be between"),
        ({"temperature": 10**39}, "must be between"),
        ({"temperature": "1"}, "temperature must be a number"),
        ({"temperature": True}, "temperature must be a number"),
        ({"license": ["MIT"]}, "license must be text"),
        ({"pretrained_cfg": None}, "pretrained_cfg must be a table"),
        ({"pretrained_cfg": []}, "pretrained_cfg must be a table"),
    ],
)
def test_configs(folder: Path, changes: dict[str, Any], message: str) -> None:
    check_refused(folder, changes, message)


def check_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    """By both readers, in one line."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    for read in (load_model, read_config):
        if read is read_config and "2 classes in" in message:
            continue  # what the weights hold, it does not look at
        with pytest.raises(UserError, match=message) as caught:
            read(folder)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("earlier", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": [3, 10**6, 10**6]}, "input.size = 1000000: must be between 32 and 1024"),
        ({"input_size": [3, 10**39, 10**39]}, "must be between 32 and 1024"),
        ({"input_size": [3, 0, 0]}, "must be between 32 and 1024"),
        ({"input_size": [3, -96, -96]}, "must be between 32 and 1024"),
        ({"input_size": [3, 96, 128]}, "two equal sides"),
        ({"input_size": [1, 96, 96]}, "3 channels"),
        ({"input_size": [3]}, "two equal sides"),
        ({"input_size": []}, "two equal sides"),
        ({"input_size": [3, 96.0, 96.0]}, "input_size.1. must be a whole number"),
        ({"input_size": 96}, "input_size must be a list"),
        ({"crop_pct": 0}, "crop_pct = 0.0: must be above 0"),
        ({"crop_pct": 7.5}, "at most 1"),
        ({"crop_pct": float("nan")}, "NaN"),
        ({"crop_pct": None}, "crop_pct must be a number"),
        ({"crop_mode": "random"}, "unknown crop_mode 'random': choose from center, border, squash"),
        ({"crop_mode": "pad"}, "unknown crop_mode 'pad'"),
        ({"crop_mode": "\x1b[2J"}, "unknown crop_mode '.x1b"),
        ({"crop_mode": ["center"]}, "crop_mode must be text"),
        ({"crop_mode": "border", "crop_pct": 0.5}, "crop_pct 0.5 with crop_mode border: must be 1"),
        ({"mean": [0.5, 0.5, 0.5]}, "mean is not ImageNet's"),
        ({"mean": []}, "mean is not ImageNet's"),
        ({"std": [0, 0, 0]}, "std is not ImageNet's"),
        ({"std": [0.229, 0.224, "0.225"]}, "std.2. must be a number"),
        ({"interpolation": "bicubic"}, "interpolation 'bicubic': images are resized bilinear"),
    ],
)
def test_configs_of_images(folder: Path, earlier: bool, changes: dict[str, Any], message: str) -> None:
    """What images cannot be prepared like is refused, in the fields of now and where earlier versions had them."""
    config = json.loads((folder / "config.json").read_text())
    inputs = config.pop("pretrained_cfg") | changes
    (folder / "config.json").write_text(json.dumps(config))
    check_refused(folder, inputs if earlier else {"pretrained_cfg": inputs}, message)


@pytest.mark.parametrize("name", ["input_size", "crop_pct"])
def test_configs_that_lack_a_field(folder: Path, name: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["pretrained_cfg"][name]
    check_refused(folder, config, f"lacks {name}|lacks pretrained_cfg.{name}")


def test_what_a_config_names_beside_is_not_looked_at(folder: Path) -> None:
    """No class, path or size in it leads anywhere."""
    config = json.loads((folder / "config.json").read_text())
    odd = {
        "architecture": "os.system",
        "auto_map": "evil.py",
        "weights": "/etc/passwd",
        "input_size": [3, 10**6, 10**6],
    }
    (folder / "config.json").write_text(json.dumps({**config, **odd}))
    assert load_model(folder).config.name == "ResNet-18-A"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"num_classes": ' + "9" * 5_000 + "}", '{"a": 1e999}'])
def test_configs_that_are_hard_to_read(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(folder)


def test_a_config_of_a_gigabyte(folder: Path) -> None:
    os.truncate(folder / "config.json", 2**30)  # a hole, which takes no disk
    with pytest.raises(UserError, match="more than 67,108,864"):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_diverged(model: ResNet, folder: Path, value: float) -> None:
    state: State = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state["fc.bias"][0] = value
    save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"fc\.bias holds NaN or infinity"):
        load_model(folder)
