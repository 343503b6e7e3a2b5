"""The predictor gives what transformers' own pipeline gives, on whatever picture a user has."""

import gc
import hashlib
import os
import shutil
import struct
import threading
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Pipeline, ViTImageProcessorPil, pipeline

from tests.conftest import TinyRun
from wbc_hf.data import read_image
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.hardware import usable_cores
from wbc_hf.inference import Predictor, check_columns
from wbc_hf.inference import predictor as predictor_module
from wbc_hf.modeling import Preprocessing, build_from_scratch, load_classifier, load_processor

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def cell(folder_of_cells: Path) -> Image.Image:
    return Image.open(folder_of_cells / "eosinophil" / "015.png").convert("RGB")


def pictures_of(cell: Image.Image) -> list[Image.Image]:
    white = Image.new("RGB", cell.size, "white")
    return [read_image(one) for one in (cell, cell.convert("L"), cell.resize((50, 200)), cell.rotate(90), white)]


@pytest.fixture(scope="module")
def model_folder(tiny_run: TinyRun, cell: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a head that answers differently to every picture: a difference of pixels shows."""
    folder = tmp_path_factory.mktemp("model")
    model, processor = load_classifier(tiny_run.folder), load_processor(tiny_run.folder)
    head = model.classifier[-1]
    with torch.inference_mode():
        features = model.resnet(**processor(pictures_of(cell), return_tensors="pt")).pooler_output.flatten(1)
    weight = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0))
    weight /= ((features - features.mean(0)) @ weight.T).std()
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(-features.mean(0) @ weight.T)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> Predictor:
    return Predictor.from_pretrained(model_folder, backend="torch")


@pytest.fixture(scope="module")
def classify(model_folder: Path) -> Pipeline:
    return pipeline("image-classification", model=str(model_folder), top_k=5, device="cpu")


def by_label(answers: list[dict]) -> dict[str, float]:
    return {answer["label"]: answer["score"] for answer in answers}


def predicted(predictor: Predictor, source: object) -> dict[str, float]:
    answer = predictor.predict([source])[0]
    return dict([(answer.label, answer.probability), *answer.alternatives])


def write_png_16(path: Path, pixels: np.ndarray) -> None:
    """A PNG with 16 bits a channel, which Pillow reads but does not write. `pixels`: uint16 (height, width, 3)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", ".png"),
        ("RGB", ".jpg"),
        ("L", ".png"),
        ("L", ".jpg"),
        ("LA", ".png"),
        ("RGBA", ".png"),
        ("P", ".png"),
        ("P", ".gif"),
        ("1", ".png"),
        ("CMYK", ".jpg"),
        ("CMYK", ".tif"),
        ("YCbCr", ".jpg"),
    ],
)
def test_every_mode(
    predictor: Predictor, classify: Pipeline, cell: Image.Image, tmp_path: Path, mode: str, suffix: str
):
    image = cell.resize((70, 60)).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    path = tmp_path / f"cell{suffix}"
    image.save(path)
    expected = by_label(classify(str(path)))
    assert predicted(predictor, path) == pytest.approx(expected, abs=TOLERANCE)
    assert predicted(predictor, Image.open(path)) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("size", [(50, 200), (200, 50), (16, 16), (33, 47), (1500, 1100), (37, 36)])
def test_every_size(predictor: Predictor, classify: Pipeline, cell: Image.Image, size: tuple[int, int]):
    image = cell.resize(size)
    assert predicted(predictor, image) == pytest.approx(by_label(classify(image)), abs=TOLERANCE)


def test_a_photograph_that_lies_on_its_side(
    predictor: Predictor, classify: Pipeline, cell: Image.Image, tmp_path: Path
):
    image = cell.resize((200, 50))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "cell.jpg", exif=exif)
    found = predicted(predictor, tmp_path / "cell.jpg")
    assert found == pytest.approx(by_label(classify(str(tmp_path / "cell.jpg"))), abs=TOLERANCE)


def test_16_bit_colour(predictor: Predictor, classify: Pipeline, cell: Image.Image, tmp_path: Path):
    path = tmp_path / "cell.png"
    write_png_16(path, np.asarray(cell).astype(np.uint16) * 257)
    expected = by_label(classify(str(path)))
    assert predicted(predictor, path) == pytest.approx(expected, abs=TOLERANCE)
    assert predicted(predictor, cell) == pytest.approx(expected, abs=TOLERANCE)


def test_16_bit_grey_is_scaled_where_the_pipeline_sees_white(
    predictor: Predictor, classify: Pipeline, cell: Image.Image, tmp_path: Path
):
    """The one difference: Pillow's `convert("RGB")` clips 16-bit grey at 255. After `read_image` both agree again."""
    grey = np.asarray(cell.convert("L")).astype(np.uint16) * 257
    path = tmp_path / "cell.png"
    Image.fromarray(grey).save(path)
    found = predicted(predictor, path)
    assert found == pytest.approx(by_label(classify(read_image(path))), abs=TOLERANCE)
    assert found == pytest.approx(predicted(predictor, cell.convert("L")), abs=TOLERANCE)

    saturated = by_label(classify(str(path)))
    assert saturated == pytest.approx(by_label(classify(Image.new("RGB", cell.size, "white"))), abs=TOLERANCE)
    assert max(abs(saturated[label] - found[label]) for label in found) > 0.01


def test_the_pictures_of_these_tests_are_told_apart(predictor: Predictor, cell: Image.Image):
    """Otherwise the comparisons above would hold for any two models that say the same of everything."""
    found = predictor.probabilities(pictures_of(cell))
    differences = [np.abs(first - second).max() for index, first in enumerate(found) for second in found[:index]]
    assert min(differences) > 10 * TOLERANCE


def test_probabilities(predictor: Predictor, cell: Image.Image):
    assert predictor.probabilities([]).shape == (0, 5)
    found = predictor.probabilities([cell, cell.resize((80, 60))])
    assert found.shape == (2, 5)
    assert found.dtype == np.float32
    assert found.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_a_prediction_ranks_every_class(predictor: Predictor, cell: Image.Image):
    answer = predictor.predict([cell])[0]
    probabilities = [answer.probability, *(probability for _, probability in answer.alternatives)]
    assert probabilities == sorted(probabilities, reverse=True)
    assert {answer.label, *(label for label, _ in answer.alternatives)} == set(predictor.labels)


def test_what_cannot_be_read_is_answered_in_its_place(predictor: Predictor, cell: Image.Image):
    sources = [cell, b"no image", cell.convert("L")] + [cell] * 40 + ["nowhere.png"]
    answers = list(predictor.predict_each(sources))
    assert len(answers) == len(sources)
    assert [index for index, answer in enumerate(answers) if isinstance(answer, UnreadableImageError)] == [1, 43]
    assert answers[42].probability == pytest.approx(answers[0].probability, abs=TOLERANCE)
    assert answers[2].probability == pytest.approx(
        predictor.predict([cell.convert("L")])[0].probability, abs=TOLERANCE
    )
    assert answers[2].probability != pytest.approx(answers[0].probability, abs=TOLERANCE)
    with pytest.raises(UnreadableImageError, match=r"nowhere\.png: there is no such file"):
        predictor.predict([cell, "nowhere.png"])


def test_images_are_read_batch_by_batch(predictor: Predictor, cell: Image.Image):
    asked = []

    def sources():
        for index in range(1000):
            asked.append(index)
            yield cell

    next(predictor.predict_each(sources()))
    assert len(asked) < 100


def readers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("read")}


def test_readers_are_few_and_go_with_their_predictor(model_folder: Path, cell: Image.Image):
    before = readers()
    predictor = Predictor.from_pretrained(model_folder)
    for _ in range(3):
        next(answers := predictor.predict_each([cell] * 200))
        answers.close()
    started = readers() - before
    assert 1 <= len(started) <= usable_cores()

    def broken():
        yield cell
        raise KeyError("the source itself fails")

    with pytest.raises(KeyError, match="the source itself"):
        list(predictor.predict_each(broken()))
    assert readers() - before == started
    del predictor, answers
    gc.collect()
    for thread in started:
        thread.join(5)
        assert not thread.is_alive()


def test_large_images_are_let_go_once_they_are_prepared(predictor: Predictor):
    """Of 96 images of 3 million pixels in line only a few are whole at a time: those that a thread works on."""
    large = Image.new("RGB", (2000, 1500), "white")
    opened: list[int] = []
    let_go: list[int] = []
    most = 0

    def sources():
        nonlocal most
        for index in range(200):
            most = max(most, len(opened) - len(let_go))
            yield index

    def read(index: int) -> Image.Image:
        image = large.copy()
        opened.append(index)
        weakref.finalize(image, let_go.append, index)
        return image

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor_module, "read_image", read)
        assert sum(1 for _ in predictor.predict_each(sources())) == 200
    assert 0 < most <= 2 * usable_cores() + 2


def test_several_threads_get_their_own_answers(predictor: Predictor, cell: Image.Image):
    pictures = pictures_of(cell)
    alone = [predictor.predict([picture])[0] for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda index: predictor.predict([pictures[index % 5]])[0], range(40)))
    for index, answer in enumerate(together):
        assert answer.label == alone[index % 5].label
        assert answer.probability == pytest.approx(alone[index % 5].probability, abs=TOLERANCE)


@pytest.mark.parametrize("size", [(32, 32), (50, 200), (201, 57), (33, 47), (1500, 1100), (37, 36), (16, 16)])
@pytest.mark.parametrize("side", [32, 100, 383, 384, 400])
def test_crops_are_the_processors(cell: Image.Image, size: tuple[int, int], side: int):
    """From 384 px on it warps. A value is off by less than 1/255 of what a pixel spans."""
    _, processor = build_from_scratch(0.0625, image_size=32)
    processor.size = {"shortest_edge": side}
    preparation, image = Preprocessing(processor), cell.resize(size)
    expected = processor([image], return_tensors="np").pixel_values[0]
    crop = preparation.crop(image)
    assert (crop.dtype, crop.shape) == (np.uint8, (side, side, 3))
    assert crop.base is None
    found = np.moveaxis((crop - preparation.mean) / preparation.std, 2, 0)
    np.testing.assert_allclose(found, expected, atol=0.01 / 255 / min(processor.image_std))


@pytest.mark.parametrize("changes", [{"do_normalize": False}, {"do_rescale": False}, {"image_mean": [0.5, 0.1, 0.9]}])
def test_processors_that_leave_a_step_out(cell: Image.Image, changes: dict):
    _, processor = build_from_scratch(0.0625, image_size=32)
    for name, value in changes.items():
        setattr(processor, name, value)
    preparation = Preprocessing(processor)
    found = np.moveaxis((preparation.crop(cell) - preparation.mean) / preparation.std, 2, 0)
    np.testing.assert_allclose(found, processor([cell], return_tensors="np").pixel_values[0], rtol=1e-5, atol=1e-5)


def test_other_processors_give_what_they_give(cell: Image.Image):
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    crop = Preprocessing(processor).crop(cell)
    np.testing.assert_array_equal(crop, processor([cell], return_tensors="np").pixel_values[0])


def test_openvino_answers_and_loads_the_weights_when_they_are_looked_into(
    predictor: Predictor, model_folder: Path, cell: Image.Image
):
    converted = Predictor.from_pretrained(model_folder, backend="openvino")
    pictures = pictures_of(cell)
    # In bf16, where the processor has it.
    assert converted.probabilities(pictures) == pytest.approx(predictor.probabilities(pictures), abs=0.05)
    assert "model" not in vars(converted)
    assert converted.identity == predictor.identity
    assert "model" not in vars(converted)
    torch.testing.assert_close(converted.pixels(pictures[:2]), predictor.pixels(pictures[:2]))
    assert converted.resnet.state_dict().keys() == predictor.resnet.state_dict().keys()


def test_the_version_is_that_of_the_weights_in_memory(predictor: Predictor):
    in_memory = Predictor(predictor.model, predictor.processor, "tiny")
    assert in_memory.identity.version == predictor.identity.version
    digest = hashlib.sha256()
    for name, tensor in sorted(predictor.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    assert predictor.identity.version == digest.hexdigest()[:12]


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_other_weights_answer_in_memory_as_from_a_folder(
    model_folder: Path, cell: Image.Image, tmp_path: Path, backend: str
):
    base = Predictor.from_pretrained(model_folder, backend)
    network = load_classifier(model_folder)
    network.classifier[-1].weight.data.neg_()
    shutil.copytree(model_folder, tmp_path / "model")
    network.save_pretrained(tmp_path / "model")
    in_folder = Predictor.from_pretrained(tmp_path / "model", backend)

    in_memory = base.with_weights(network.state_dict(), "other", in_folder.calibration)

    assert (in_memory.identity.name, in_memory.identity.version) == ("other", in_folder.identity.version)
    assert (in_memory.backend.name, in_memory.labels) == (base.backend.name, base.labels)
    pictures = pictures_of(cell)
    assert in_memory.probabilities(pictures) == pytest.approx(in_folder.probabilities(pictures), abs=TOLERANCE)
    assert in_memory.probabilities(pictures) != pytest.approx(base.probabilities(pictures), abs=0.01)


def test_a_folder_that_was_trained_anew_meanwhile(model_folder: Path, tmp_path: Path):
    folder, new = tmp_path / "model", tmp_path / "new"
    shutil.copytree(model_folder, folder)
    on_openvino, on_torch = (Predictor.from_pretrained(folder, backend=name) for name in ("openvino", "torch"))
    model = load_classifier(folder)
    model.classifier[-1].weight.data.neg_()
    model.save_pretrained(new)
    os.replace(new / "model.safetensors", folder / "model.safetensors")

    after = Predictor.from_pretrained(folder, backend="torch").identity.version
    before = Predictor.from_pretrained(model_folder, backend="torch").identity.version
    assert after != before
    assert (on_openvino.identity.version, on_torch.identity.version) == (before, before)
    with pytest.raises(WbcError, match=r"model: was trained again since it was loaded.*Restart"):
        _ = on_openvino.model
    assert on_torch.resnet.training is False


def test_backends_that_there_are_none_of(model_folder: Path):
    with pytest.raises(WbcError, match=r"tensorrt: is not a backend\. Choose one of auto, openvino, torch"):
        Predictor.from_pretrained(model_folder, backend="tensorrt")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "a", "c", "d"], "cells: has the class 'a' twice"),
        (["a", "b", "a\ud800", "a\\ud800", "d"], r"cells: has the class 'a\\\\ud800' twice"),
    ],
)
def test_a_model_with_two_classes_of_one_name_is_refused(names: list[str], message: str):
    network, processor = build_from_scratch(0.0625, image_size=32)
    network.config.id2label = dict(enumerate(names))
    with pytest.raises(WbcError, match=message):
        Predictor(network, processor, "cells")


def test_a_class_that_is_named_as_a_column_of_the_table_is_refused():
    with pytest.raises(WbcError, match="status: is a class of this model, and a column of the table already"):
        check_columns(["neutrophil", "status"])


def test_the_folder_is_named_where_there_is_no_model(tmp_path: Path):
    with pytest.raises(WbcError, match=str(tmp_path)):
        Predictor.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(WbcError, match=rf"{tmp_path}: has no preprocessor_config\.json"):
        Predictor.from_pretrained(tmp_path)
