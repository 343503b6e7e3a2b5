"""The predictor gives what transformers' own pipeline gives, on whatever picture a user has."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Pipeline, pipeline

from tests.conftest import TinyRun
from wbc_hf.data import read_image
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.modeling import load_classifier, load_processor
from wbc_hf.serving import Predictor

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
    return Predictor.from_pretrained(model_folder)


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
    assert min(differences) > 100 * TOLERANCE


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


def test_the_folder_is_named_where_there_is_no_model(tmp_path: Path):
    with pytest.raises(WbcError, match=str(tmp_path)):
        Predictor.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(WbcError, match=rf"{tmp_path}: cannot be loaded as an image classifier"):
        Predictor.from_pretrained(tmp_path)
