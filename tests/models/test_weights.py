from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from bagoftricks.data.input import MEAN, STD, InputConfig
from bagoftricks.errors import UserError
from bagoftricks.models.backbone import Backbone
from bagoftricks.models.config import ModelConfig
from bagoftricks.models.folder import save_model
from bagoftricks.models.mismatch import architecture_of
from bagoftricks.models.published import PUBLISHED, find
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


def test_names_of_a_wrapped_network_are_known_in_either_format(tmp_path: Path) -> None:
    theirs = ResNet("A", 10, num_classes=7, seed=3).state_dict()
    save_file({f"module.{key}": value for key, value in theirs.items()}, tmp_path / "w.safetensors")
    ours = ResNet("A", 10, num_classes=7)
    assert load_initial(ours, tmp_path / "w.safetensors").random == ()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_too_many_tensors_are_counted_in_either_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    save = save_file if name.endswith("s") else torch.save
    save({f"{i}": torch.zeros(1) for i in range(5)}, tmp_path / name)
    monkeypatch.setattr("bagoftricks.models.state.MOST_TENSORS", 4)
    with pytest.raises(UserError, match="holds 5 tensors, more than 4"):
        load_initial(ResNet("A", 10), tmp_path / name)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ('["cat","dog"]', True),
        ('["cat", "dog"]', True),
        ('["dog", "cat"]', False),
        ("cat,dog", True),
        ("2", True),
        ('{"a": 1}', True),
        ("[1, 2]", True),
    ],
)
def test_a_classifier_is_told_by_its_classes_not_by_their_spelling(tmp_path: Path, said: str, kept: bool) -> None:
    """What cannot be read says nothing."""
    save_file(ResNet("A", 10, num_classes=2).state_dict(), tmp_path / "w.safetensors", {"classes": said})
    ours = ResNet("A", 10, num_classes=2, seed=1)
    ours.classes = ("cat", "dog")
    assert (load_initial(ours, tmp_path / "w.safetensors").replaced == ()) == kept


@pytest.mark.parametrize(
    ("classes", "kept"),
    [
        (tuple(str(i) for i in range(1000)), True),
        (tuple(f"n{i:08}" for i in range(1000)), True),
        (tuple(f"n{i:08}" for i in reversed(range(1000))), False),
        (tuple(f"person {i:04}" for i in range(1000)), False),
    ],
    ids=["numbers", "synsets", "synsets in another order", "others"],
)
def test_imagenets_classifier_is_no_other_thousand_classes(
    tmp_path: Path, classes: tuple[str, ...], kept: bool
) -> None:
    """Files of ImageNet weights do not name their classes."""
    torch.save(ResNet("A", 10, num_classes=1000).state_dict(), tmp_path / "w.pth")
    ours = ResNet("A", 10, num_classes=1000, seed=1)
    ours.classes = classes
    assert (load_initial(ours, tmp_path / "w.pth").replaced == ()) == kept


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


def test_tensors_of_other_shapes_warn_though_the_architecture_is_named_alike(tmp_path: Path) -> None:
    """A ResNeXt has a ResNet-50's blocks and keys."""
    save_file(timm.create_model("resnext50_32x4d").state_dict(), tmp_path / "w.safetensors")
    report = load_initial(ResNet("B", num_classes=5), tmp_path / "w.safetensors")
    assert len(report.random) > 40
    assert "start at random: the result says little of pretrained weights" in report.warning


def test_a_from_keys_that_do_not_tell_warns(tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{k}": v for k, v in ResNet("B").state_dict().items()}}, tmp_path / "w.pth")
    report = load_initial(ResNet("A"), tmp_path / "w.pth")
    assert report.random == ()
    assert "probably trained in" in report.warning


def test_gates_are_told_by_their_keys_and_a_blur_by_nothing(tmp_path: Path) -> None:
    torch.save(ResNet("BE", num_classes=7).state_dict(), tmp_path / "e.pth")
    assert load_initial(ResNet("BE", num_classes=7), tmp_path / "e.pth").warning == ""
    assert "architecture BE, not B:" in load_initial(ResNet("B", num_classes=7), tmp_path / "e.pth").warning
    report = load_initial(ResNet("BEF", num_classes=7), tmp_path / "e.pth")
    assert report.random == ()
    assert "does not say whether they were trained with a blur (F)" in report.warning
    assert "tricks adapt" not in report.warning
    save_file(ResNet("BE").state_dict(), tmp_path / "known.safetensors", {"architecture": "ResNet-50-BE"})
    assert "architecture BE, not BEF" in load_initial(ResNet("BEF"), tmp_path / "known.safetensors").warning


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


@pytest.mark.parametrize("depth", [10, 18, 34, 101])
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


# ----------------------------------------------------------------------------------------- published, and by whom named


def publish(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Makes a file the one that was published under a name."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(PUBLISHED, name, replace(PUBLISHED[name], sha256=digest[:8]))


def test_published_weights_are_known_for_certain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A and B share keys; the checksum tells them apart."""
    torch.save(ResNet("B", num_classes=7).state_dict(), tmp_path / "w.pth")
    unknown = load_initial(ResNet("A", num_classes=7), tmp_path / "w.pth")
    assert (unknown.name, unknown.licence) == ("", "unknown")
    publish(monkeypatch, "timm:resnet50.fb_swsl_ig1b_ft_in1k", tmp_path / "w.pth")
    report = load_initial(ResNet("A", num_classes=7), tmp_path / "w.pth")
    assert (report.name, report.licence) == ("timm:resnet50.fb_swsl_ig1b_ft_in1k", "cc-by-nc-4.0")
    assert report.warning == (
        "the initial weights were trained in architecture B, not A: a difference between the two measures that "
        "mismatch as well as the tweak; start from pytorchcv:resnet50, or carry these over with tricks adapt"
    )
    assert load_initial(ResNet("B", num_classes=7), tmp_path / "w.pth").warning == ""
    assert load_initial(ResNet("D", num_classes=7), tmp_path / "w.pth").warning.endswith(
        "as the tweak; carry these over with tricks adapt"
    )


def save_zeros(name: str, path: Path) -> dict[str, torch.Tensor]:
    """Writes a file of the tensors that a network of timm's has, all of them 0, and returns these."""
    with torch.device("meta"):
        theirs = timm.create_model(name).state_dict()
    state = {key: torch.zeros(tensor.shape, dtype=tensor.dtype) for key, tensor in theirs.items()}
    save_file(state, path)
    return state


@pytest.mark.parametrize(
    ("name", "tweaks", "warning"),
    [
        ("resnet50.bt_in1k", "B", ""),
        ("resnet50.bt_in1k", "A", "trained in architecture B, not A"),
        ("resnetblur50.bt_in1k", "B", "trained in architecture BF, not B"),
        ("resnetblur50.bt_in1k", "BF", ""),
        ("seresnet50.ra2_in1k", "BE", ""),
        ("resnetaa50.a1h_in1k", "B", "trained in timm:resnetaa50, which ResNet-50-B is not"),
        ("ecaresnet50d.miil_in1k", "BCD", "trained in timm:ecaresnet50d, which ResNet-50-BCD is not"),
    ],
)
def test_what_timm_publishes_is_judged_by_its_name(tmp_path: Path, name: str, tweaks: str, warning: str) -> None:
    """Its tensors tell neither a blur nor an average, which have none."""
    model = name.partition(".")[0]
    state = save_zeros(model, tmp_path / "model.safetensors")
    item = replace(find(f"timm:{name}"), mean=MEAN, std=STD)
    with torch.device("meta"):
        report = load_initial(ResNet(tweaks, num_classes=5), tmp_path / "model.safetensors", item)
    assert report.random == ()
    assert (warning in report.warning) if warning else report.warning == ""
    architecture, depth = architecture_of(state, {}, item)
    if "timm:" in warning:
        assert f"--model timm:{model} is the network that they fit" in report.warning
        assert depth is None
    else:
        assert (architecture, depth) == (item.tweaks, 50)


def test_networks_of_timm_that_share_tensors_are_told_apart(tmp_path: Path) -> None:
    item = replace(find("timm:resnetaa50.a1h_in1k"), mean=MEAN, std=STD)
    save_zeros("resnetaa50", tmp_path / "model.safetensors")
    with torch.device("meta"):
        for name, warned in (("resnet50", True), ("resnetaa50", False)):
            network = Backbone(ModelConfig(backbone=f"timm:{name}"), 5)
            warning = load_initial(network, tmp_path / "model.safetensors", item).warning
            assert ("were trained in timm:resnetaa50, which timm:resnet50 is not" in warning) == warned, warning


def test_weights_asked_for_by_name_are_what_they_are_called(tmp_path: Path) -> None:
    """A cache without links says of no file what the hub said; its name is known all the same."""
    path = tmp_path / "models--timm--resnet18d.ra2_in1k" / "snapshots" / "abcdef0" / "model.safetensors"
    path.parent.mkdir(parents=True)
    save_file(ResNet("CD", 18, num_classes=7).state_dict(), path)
    item = PUBLISHED["timm:resnet34d.ra2_in1k"]
    told = load_initial(ResNet("CD", 18, num_classes=7), path, item)
    assert (told.name, told.licence, told.unverified) == (item.name, "apache-2.0", True)
    assert told.summary().startswith(f"{item.name} (model.safetensors, whose checksum is not known here): ")
    guessed = load_initial(ResNet("CD", 18, num_classes=7), path)
    assert (guessed.name, guessed.licence, guessed.unverified) == ("", "unknown", False)
    known = load_initial(ResNet("CD", 18, num_classes=7), path, PUBLISHED["timm:resnet18d.ra2_in1k"])
    assert not known.unverified
    with pytest.raises(UserError, match="want images of another mean and deviation"):
        load_initial(ResNet("CD", 18, num_classes=7), path, replace(item, mean=(0.5, 0.5, 0.5)))


def test_the_file_published_for_a_is_no_mismatch_in_a(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys alone would be taken for B's."""
    torch.save(ResNet("A", num_classes=7).state_dict(), tmp_path / "w.pth")
    assert "probably trained in" in load_initial(ResNet("A", num_classes=7), tmp_path / "w.pth").warning
    publish(monkeypatch, "pytorchcv:resnet50", tmp_path / "w.pth")
    assert load_initial(ResNet("A", num_classes=7), tmp_path / "w.pth").warning == ""
    assert "trained in architecture A, not B" in load_initial(ResNet("B", num_classes=7), tmp_path / "w.pth").warning


def test_the_summary_says_what_became_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(ResNet("B", num_classes=7).state_dict(), tmp_path / "w.safetensors")
    publish(monkeypatch, "timm:resnet50.a1_in1k", tmp_path / "w.safetensors")
    report = load_initial(ResNet("BC", num_classes=5), tmp_path / "w.safetensors")
    summary = report.summary()
    assert summary.startswith("timm:resnet50.a1_in1k (w.safetensors): ")
    assert f"{report.matched} tensors matched, classifier replaced" in summary
    assert f"{len(report.random)} left random (conv1." in summary
    assert "1 of the file unused (conv1.weight); licence apache-2.0" in summary
    assert set(report.to_dict()) >= {"source", "matched", "replaced", "random", "unused", "warning", "licence", "name"}


def test_a_licence_that_the_file_states(tmp_path: Path) -> None:
    ours = ResNet("A", 18, num_classes=7)
    save_file(ours.state_dict(), tmp_path / "w.safetensors", {"license": "cc0-1.0"})
    assert load_initial(ours, tmp_path / "w.safetensors").licence == "cc0-1.0"
    assert load_initial(ours, tmp_path / "w.safetensors").summary().endswith("licence cc0-1.0")
    save_file(ours.state_dict(), tmp_path / "w.safetensors", {"license": ""})
    assert "licence" not in load_initial(ours, tmp_path / "w.safetensors").summary()


# ------------------------------------------------------------------------------------------------- formats and wrappers


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_wrappers_of_a_bin(tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    theirs = timm.create_model("resnet18", num_classes=7)
    state = {prefix + key: tensor for key, tensor in theirs.state_dict().items()}
    content = state if wrapper is None else {"epoch": 3, "arch": "resnet18", wrapper: state}
    torch.save(content, tmp_path / "pytorch_model.bin")
    ours = ResNet("A", 18, num_classes=7)
    report = load_initial(ours, tmp_path / "pytorch_model.bin")
    assert (report.replaced, report.random, report.unused) == ((), (), ())
    assert torch.equal(ours.conv1.weight, theirs.conv1.weight)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "old pth"])
def test_a_file_without_a_suffix(tmp_path: Path, kind: str) -> None:
    """As the HF hub's cache names contents: by their checksums."""
    theirs = ResNet("A", 18, num_classes=7, seed=1)
    if kind == "safetensors":
        save_file(theirs.state_dict(), tmp_path / "0123abcd")
    else:
        torch.save(theirs.state_dict(), tmp_path / "0123abcd", _use_new_zipfile_serialization=kind == "pth")
    ours = ResNet("A", 18, num_classes=7)
    assert load_initial(ours, tmp_path / "0123abcd").random == ()
    assert torch.equal(ours.conv1.weight, theirs.conv1.weight)


def pytorchcv_name(key: str) -> str:
    """pytorchcv's name of one of our tensors, but for the classifier's and the stem's."""
    layer, unit, part, *rest = key.split(".")
    place = f"features.stage{layer.removeprefix('layer')}.unit{int(unit) + 1}"
    if part == "downsample":
        return f"{place}.identity_conv.{('conv', 'bn')[int(rest[0])]}.{rest[1]}"
    return f"{place}.body.conv{part[-1]}.{part[:-1]}.{rest[0]}"


def test_pytorchcvs_names(tmp_path: Path) -> None:
    theirs = ResNet("A", 50, num_classes=7, seed=1)
    names = {
        "conv1.weight": "features.init_block.conv.conv.weight",
        "fc.weight": "output.weight",
        "fc.bias": "output.bias",
    }
    names |= {f"bn1.{k}": f"features.init_block.conv.bn.{k}" for k in theirs.bn1.state_dict()}
    state = {names.get(key) or pytorchcv_name(key): tensor for key, tensor in theirs.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    ours = ResNet("A", 50, num_classes=7)
    report = load_initial(ours, tmp_path / "w.pth")
    assert (report.replaced, report.random, report.unused) == ((), (), ())
    for key, tensor in ours.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(tensor, theirs.state_dict()[key]), key


@pytest.mark.parametrize(
    ("name", "tweaks", "depth"), [("resnet50", "A", 50), ("resnet50b", "B", 50), ("resnet34", "A", 34)]
)
def test_pytorchcvs_network_is_ours(name: str, tweaks: str, depth: int, tmp_path: Path) -> None:
    """Where it is installed: the same logits, so names, strides and padding agree."""
    models = pytest.importorskip("pytorchcv.models.resnet")
    torch.manual_seed(0)
    theirs = getattr(models, name)().eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = ResNet(tweaks, depth).eval()
    report = load_initial(ours, tmp_path / "w.pth")
    assert (report.replaced, report.random, report.unused) == ((), (), ())
    x_NCHW = torch.rand(2, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours.double()(x_NCHW), theirs.double()(x_NCHW))


@pytest.mark.parametrize("prefix", ["resnet.", ""])
def test_names_of_transformers_are_recognised_and_refused(tmp_path: Path, prefix: str) -> None:
    state = {
        f"{prefix}embedder.embedder.convolution.weight": torch.zeros(64, 3, 7, 7),
        f"{prefix}encoder.stages.0.layers.0.layer.0.convolution.weight": torch.zeros(64, 64, 1, 1),
        "classifier.1.weight": torch.zeros(1000, 2048),
    }
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match="Hugging Face transformers' ResNet, which are not understood; pass .*timm:"
    ) as e:
        load_initial(ResNet("BCD"), tmp_path / "model.safetensors")
    assert "\n" not in str(e.value)
