from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from bagoftricks.data.input import InputConfig
from bagoftricks.errors import UserError
from bagoftricks.models.folder import save_model
from bagoftricks.models.resnet import ResNet
from bagoftricks.models.weights import load_initial


def test_torchvision_pth(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(num_classes=7)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = ResNet("A", 18, num_classes=7)
    report = load_initial(ours, tmp_path / "w.pth")
    assert (report.replaced, report.random, report.unused, report.warning) == ((), (), (), "")
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_timm_safetensors_with_another_classifier(tmp_path: Path) -> None:
    theirs = timm.create_model("resnet50d")
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    ours = ResNet("BCD", num_classes=5)
    before = ours.fc.weight.clone()
    report = load_initial(ours, tmp_path / "w.safetensors")
    assert report.replaced == ("fc.weight", "fc.bias")
    assert (report.random, report.unused, report.warning) == ((), (), "")
    assert torch.equal(ours.fc.weight, before)
    assert torch.equal(ours.layer4[0].downsample[1].weight, theirs.layer4[0].downsample[1].weight)
    assert "classifier replaced" in report.summary()


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    save_file(
        ResNet("B", num_classes=5, seed=9).state_dict(), tmp_path / "w.safetensors", {"architecture": "ResNet-50-B"}
    )
    ours = ResNet("CD", num_classes=5)
    report = load_initial(ours, tmp_path / "w.safetensors")
    assert {name.split(".")[0] for name in report.random} == {"conv1"}
    assert report.unused == ("conv1.weight",)
    assert "trained in architecture B, not CD" in report.warning
    # the shortcut's convolution has another number in D, but the same role
    assert torch.equal(
        ours.layer2[0].downsample[1].weight, ResNet("B", num_classes=5, seed=9).layer2[0].downsample[0].weight
    )
    assert load_initial(ResNet("B", num_classes=5), tmp_path / "w.safetensors").warning == ""


def test_a_from_keys_that_do_not_tell_warns(tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{k}": v for k, v in ResNet("B").state_dict().items()}}, tmp_path / "w.pth")
    report = load_initial(ResNet("A"), tmp_path / "w.pth")
    assert report.random == ()
    assert "probably trained in" in report.warning


def test_the_shared_weights(shared: Path) -> None:
    report = load_initial(ResNet("B", num_classes=101), shared / "weights" / "resnet50_imagenet.safetensors")
    assert report.random == ()
    assert report.warning == ""
    assert report.replaced == ("fc.weight", "fc.bias")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("pwned"),)  # type: ignore[return-value]


def test_a_pth_cannot_execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": Evil()}, tmp_path / "w.pth", pickle_module=pickle)
    with pytest.raises(UserError, match="more than weights"):
        load_initial(ResNet("A", 18), tmp_path / "w.pth")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"", "cannot be read"),
        ("w.safetensors", b"<html>not found</html>", "cannot be read"),
        ("w.pth", b"<html>not found</html>", "is damaged or holds more than weights"),
        ("w.pth", b"", "cannot be read"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_initial(ResNet("A", 18), tmp_path / name)


@pytest.mark.parametrize("depth", [18, 34, 101])
def test_another_depth_is_refused(tmp_path: Path, depth: int) -> None:
    with torch.device("meta"):
        state = {key: torch.zeros(value.shape, device="cpu") for key, value in ResNet("A", depth).state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=f"a ResNet-{depth}, which does not fit ResNet-50-B"), torch.device("meta"):
        load_initial(ResNet("B"), tmp_path / "w.safetensors")


def test_a_classifier_of_other_classes_is_replaced(tmp_path: Path) -> None:
    ours = ResNet("A", 18, num_classes=2)
    ours.classes = ("cat", "dog")
    save_model(ours, ours.classes, InputConfig(), tmp_path)
    assert load_initial(ours, tmp_path / "model.safetensors").replaced == ()
    other = ResNet("A", 18, num_classes=2)
    other.classes = ("ant", "bee")
    assert load_initial(other, tmp_path / "model.safetensors").replaced == ("fc.weight", "fc.bias")


def test_what_fits_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_initial(ResNet("A", 18), tmp_path / "none.pth")
    save_file({"embedding.weight": torch.zeros(3, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="no ResNet, which does not fit ResNet-18-A"):
        load_initial(ResNet("A", 18), tmp_path / "w.safetensors")
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(UserError, match="no state dict"):
        load_initial(ResNet("A", 18), tmp_path / "w.pth")
