"""A saved model predicts what its training said of the same files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bagoftricks.data.batches import Batches
from bagoftricks.data.cache import DecodedImages
from bagoftricks.data.folder import read_folder
from bagoftricks.data.reading import BadImageError
from bagoftricks.errors import DeviceMemoryError, RunError, UserError
from bagoftricks.models.folder import load_model as load_network
from bagoftricks.models.folder import save_model
from bagoftricks.recipe import Recipe
from bagoftricks.serving.classifier import Classifier, load_model
from bagoftricks.training.calibration import softmax
from bagoftricks.training.evaluate import evaluate
from tests.serving.trained import CPU, Trained, train_small


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small(recipe, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def model(trained: Trained) -> Classifier:
    return load_model(trained.folder, device="cpu", precision="fp32")


def logits_of(model: Classifier, paths: list[Path], **options: object) -> np.ndarray:
    from bagoftricks.serving.inputs import read_image

    rows = list(model.logits_each(paths, lambda path: read_image(path, model.short_side), **options))  # type: ignore[arg-type]
    assert not any(isinstance(row, BadImageError) for row in rows)
    return np.stack(rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_logits_are_those_of_the_run(trained: Trained, model: Classifier, batch_size: int) -> None:
    paths = [trained.photos / name for name in trained.names()]
    logits_NK = logits_of(model, paths, batch_size=batch_size)
    np.testing.assert_allclose(logits_NK, trained.logits(), atol=1e-4)
    assert np.ptp(trained.logits(), axis=0).min() > 0.01  # the images are told apart
    predictions = model.predict(paths, top_k=1, batch_size=batch_size)
    assert [one.indices[0] for one in predictions] == trained.logits().argmax(axis=1).tolist()


@pytest.mark.parametrize("crop", ["center", "pad", "squash"])
def test_images_are_prepared_as_for_evaluation(trained: Trained, tmp_path: Path, crop: str) -> None:
    """Against the batches of training's own evaluation, images of one shape and of very different ones."""
    inputs = replace(trained.recipe.input, crop=crop, crop_pct=0.8)
    network, photos = load_network(trained.folder), tmp_path / "photos"
    shutil.copytree(trained.photos, photos)
    for i, shape in enumerate(((300, 20), (20, 300), (33, 500))):
        noise = np.random.default_rng(i).integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / "cat" / f"odd{i}.png")
    save_model(network, network.classes, inputs, tmp_path / "model")
    model, index = load_model(tmp_path / "model", device="cpu", precision="fp32"), read_folder(photos)
    decoded = DecodedImages(index, round(1.5 * inputs.size))
    batches = Batches(decoded, index.labels, np.arange(len(index)), inputs, 16, 0)
    found = logits_of(model, [photos / name for name in index.names], batch_size=7)
    np.testing.assert_allclose(found, evaluate(network, batches, 3, CPU).logits_NK, atol=1e-4)
    x_NCHW, _ = next(iter(batches.evaluation()))
    prepared = model.prepare([index.read(i, model.short_side) for i in range(16)])
    assert torch.equal(prepared, x_NCHW)
    assert prepared.dtype == torch.float32
    assert prepared.is_contiguous(memory_format=torch.channels_last)


def test_a_file_an_array_and_a_pillow_image_are_the_same(model: Classifier, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 211, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)
    with Image.open(path) as opened:
        found = model.predict([path, str(path), pixels, Image.fromarray(pixels), opened], top_k=3)
    assert len(set(found)) == 1
    assert model.predict(pixels, top_k=3) == model.predict(path, top_k=3)
    assert model.predict(pixels, top_k=3)[0].probs == pytest.approx(found[0].probs, abs=1e-4)
    both = [pixels, np.ascontiguousarray(pixels[::-1])]
    assert model.predict(np.stack(both), top_k=3) == model.predict(both, top_k=3)


def test_a_pillow_image_is_turned_upright(model: Classifier, tmp_path: Path) -> None:
    pixels = np.zeros((60, 40, 3), dtype=np.uint8)
    pixels[:30, :, 0], pixels[30:, :, 1] = 255, 255
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        assert model.predict(opened) == model.predict(tmp_path / "turned.png")
    assert model.predict(tmp_path / "turned.png") != model.predict(pixels)


def test_a_prediction_is_ordered_and_calibrated(trained: Trained, tmp_path: Path) -> None:
    scaled = load_model(trained.copy(tmp_path / "scaled", temperature=2.5), device="cpu", precision="fp32")
    model = load_model(trained.copy(tmp_path / "plain"), device="cpu", precision="fp32")
    assert (model.calibrated, model.temperature) == (False, 1.0)
    assert (scaled.calibrated, scaled.temperature) == (True, 2.5)
    paths = [trained.photos / name for name in trained.names()]
    for loaded in (model, scaled):
        p_NK = softmax(trained.logits(), loaded.temperature)
        for p_K, found in zip(p_NK, loaded.predict(paths, top_k=9), strict=True):
            order = sorted(range(3), key=lambda k: -p_K[k])
            assert found.indices == tuple(order)
            assert found.labels == tuple(("cat", "dog", "owl")[k] for k in order)
            assert found.probs == pytest.approx([p_K[k] for k in order], abs=1e-4)
            assert sum(found.probs) == pytest.approx(1)
    assert len(model.predict(paths[0], top_k=2)[0].labels) == 2


def test_it_abstains_below_a_probability(trained: Trained, model: Classifier) -> None:
    paths = [trained.photos / name for name in trained.names()]
    plain = model.predict(paths)
    assert not any(one.abstained for one in plain)
    best = sorted(one.probs[0] for one in plain)
    between = (best[2] + best[3]) / 2
    abstaining = model.predict(paths, abstain_below=between)
    assert [one.abstained for one in abstaining] == [one.probs[0] < between for one in plain]
    assert [one.probs for one in abstaining] == [one.probs for one in plain]
    assert sum(one.abstained for one in abstaining) == 3


def test_flip_averages_logits_with_those_of_the_mirror_image(model: Classifier) -> None:
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (48, 48, 3), dtype=np.uint8) for _ in range(3)]
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images]
    plain, other = (model.logits(model.prepare(some)) for some in (images, mirrored))
    both = model.logits(model.prepare(images), tta="flip")
    torch.testing.assert_close(both, (plain + other) / 2, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both, model(model.prepare(mirrored), tta="flip"), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both, plain, atol=1e-4)
    assert both.dtype == torch.float32
    (found,) = model.predict(images[0], tta="flip")
    expected = softmax(both[:1].numpy())[0]
    assert found.probs == pytest.approx(sorted(expected.tolist(), reverse=True), abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_bad_images_disturb_no_others(trained: Trained, model: Classifier, tmp_path: Path, batch_size: int) -> None:
    good = [trained.photos / name for name in trained.names()[:3]]
    text, gone = tmp_path / "text.jpg", tmp_path / "gone.jpg"
    text.write_text("no image")
    paths = [text, good[0], gone, text, good[1], good[2], gone]
    found = list(model.predict_each(paths, batch_size=batch_size, top_k=3))
    assert [isinstance(one, BadImageError) for one in found] == [path not in good for path in paths]
    for path, one in zip(paths, found, strict=True):
        if not isinstance(one, BadImageError):
            assert one.probs == pytest.approx(model.predict(path, top_k=3)[0].probs, abs=1e-4)
    assert "no image of a kind" in str(found[0])
    assert "No such file" in str(found[2])
    with pytest.raises(BadImageError, match=r"text\.jpg: cannot be decoded"):
        model.predict(paths)


def test_a_damaged_pillow_image_is_named(model: Classifier, tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:400])
    with Image.open(tmp_path / "cut.png") as opened, pytest.raises(BadImageError, match=r"cut\.png: cannot be decoded"):
        model.predict(opened)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), r"float32 with shape \(4, 4, 3\)"),
        (np.zeros((4, 4), dtype=np.uint8), r"shape \(4, 4\)"),
        (np.zeros((4, 4, 4), dtype=np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"shape \(0, 4, 3\)"),
        ([7], "int is no image"),
        (7, "int is no image"),
    ],
)
def test_what_is_no_image_is_refused(model: Classifier, image: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model.predict(image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "--top-k 0: must be at least 1"),
        ({"batch_size": 0}, "--batch-size 0: must be at least 1"),
        ({"tta": "flop"}, "unknown --tta 'flop': did you mean 'flip'"),
        ({"abstain_below": 1.5}, "--abstain-below 1.5: must be a probability"),
        ({"abstain_below": float("nan")}, "--abstain-below nan: must be a probability"),
    ],
)
def test_what_makes_no_sense_is_refused(
    trained: Trained, model: Classifier, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        model.predict(trained.photos / "cat" / "00.jpg", **options)  # type: ignore[arg-type]


def test_no_images_no_predictions(model: Classifier) -> None:
    assert model.predict([]) == []


def test_outputs_that_are_not_finite_are_an_error(trained: Trained) -> None:
    broken = load_model(trained.folder, device="cpu", precision="fp32")
    broken.network.fc.bias.data[1] = torch.nan  # type: ignore[union-attr, index]
    with pytest.raises(RunError, match="its outputs are not finite"):
        broken.predict(trained.photos / "cat" / "00.jpg")


def test_memory_that_runs_out_names_the_batch_size(
    trained: Trained, model: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(x_NCHW: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.network, "forward", full)
    with pytest.raises(DeviceMemoryError, match="with 6 images at once: pass --batch-size 3"):
        model.predict([trained.photos / name for name in trained.names()])


def test_a_model_is_found_below_its_trainings(trained: Trained, tmp_path: Path) -> None:
    found = load_model(trained.root, device="cpu", precision="fp32")
    assert found.folder == trained.folder
    assert found.classes == ("cat", "dog", "owl")
    assert found.inputs.size == 32
    root = tmp_path / "several"
    for name in ("one", "two"):
        shutil.copytree(trained.folder, root / "runs" / name)
    with pytest.raises(UserError, match="2 of its runs kept a model; name one of them, as .*one"):
        load_model(root)
    for name in ("one", "two"):
        (root / "runs" / name / "model.safetensors").unlink()
    with pytest.raises(UserError, match="none of its runs kept a model"):
        load_model(root)
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load_model(tmp_path / "nothing")
