"""The page: what its handlers give, what programs get through its endpoints, and what stands in its head."""

import base64
import csv
import io
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from wbc_hf.data import PAINTED_TITLE, paint_cells
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.labels import CLASS_NAMES, LEUCOCYTES
from wbc_hf.modeling import build_from_scratch, fit_trust
from wbc_hf.serving import Prediction, Predictor
from wbc_hf.serving.page import (
    MAX_FILES,
    NO_FILES,
    NO_PICTURE,
    PAINTED_ONLY,
    PREVIEW_SIDE,
    RESEARCH_USE,
    Upload,
    answer_uploads,
    build_page,
    classify,
    classify_many,
    launch_page,
    read_uploads,
    show_many,
    show_one,
)
from wbc_hf.serving.rendering import (
    STATUS_TEXTS,
    Answer,
    format_percent,
    render_answer,
    render_problem,
    render_table,
    to_csv,
)

NO_PICTURE_FORMAT = "is not a picture in a known format"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(*build_from_scratch(0.0625, image_size=32), name="tiny")


@pytest.fixture(scope="module")
def cell() -> Image.Image:
    return Image.fromarray(paint_cells([1], size=48, seed=3)[0])


@pytest.fixture
def uploads(tmp_path: Path) -> list[Upload]:
    """Nine painted cells and, fourth of them, a text that calls itself a picture: more than one chunk."""
    files = []
    for index, pixels in enumerate(paint_cells(np.arange(9) % 5, size=40, seed=4)):
        files.append(Upload(str(tmp_path / f"{index}.png"), f"smear 1, Zelle {index}.png"))
        Image.fromarray(pixels).save(files[-1].path)
    (tmp_path / "notes").write_text("no picture")
    return [*files[:3], Upload(str(tmp_path / "notes"), "notes.jpg"), *files[3:]]


# ---- handlers


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "png"), ("RGB", "tif"), ("L", "png"), ("RGBA", "png"), ("P", "gif"), ("CMYK", "tif"), ("I;16", "tif")],
)
def test_answers_like_the_predictor(predictor: Predictor, cell: Image.Image, tmp_path: Path, mode: str, suffix: str):
    file = tmp_path / f"cell.{suffix}"
    image = Image.fromarray(np.asarray(cell.convert("L"), np.uint16) * 257) if mode == "I;16" else cell.convert(mode)
    image.save(file)

    (answer,) = answer_uploads(predictor, [Upload(str(file), "cell")])

    assert answer.prediction == predictor.predict([file])[0]
    assert answer.preview.mode == "RGB"


def test_answers_an_upright_picture(predictor: Predictor, cell: Image.Image, tmp_path: Path):
    file = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    cell.crop((0, 0, 48, 30)).save(file, exif=exif)

    (answer,) = answer_uploads(predictor, [Upload(str(file), "turned.jpg")])

    assert answer.prediction == predictor.predict([file])[0]
    assert answer.size == (30, 48)


def test_answers_the_readable_files_in_order(predictor: Predictor, uploads: list[Upload]):
    answers = list(answer_uploads(predictor, uploads))

    names = [upload.name for upload in uploads]
    assert [answer.name for answer in answers] == names
    assert [index for index, answer in enumerate(answers) if isinstance(answer, UnreadableImageError)] == [3]
    readable = [upload.path for upload in uploads if upload.name != "notes.jpg"]
    assert [answer.prediction.label for answer in answers if isinstance(answer, Answer)] == [
        prediction.label for prediction in predictor.predict(readable)
    ]


def test_shows_one_picture(predictor: Predictor, uploads: list[Upload]):
    preview, html = show_one(predictor, uploads[:1])

    assert preview.size == (40, 40)
    assert predictor.predict([uploads[0].path])[0].label.capitalize() in html
    assert "smear 1, Zelle 0.png <span>40 × 40 pixels" in html
    assert all(leucocyte.colour in html for leucocyte in LEUCOCYTES)


def test_shows_large_pictures_smaller(predictor: Predictor, cell: Image.Image, tmp_path: Path):
    file = tmp_path / "large.png"
    cell.resize((2 * PREVIEW_SIDE, PREVIEW_SIDE)).save(file)

    preview, html = show_one(predictor, [Upload(str(file), "large.png")])

    assert preview.size == (PREVIEW_SIDE, PREVIEW_SIDE // 2)
    assert f"{2 * PREVIEW_SIDE} × {PREVIEW_SIDE} pixels" in html


def test_says_why_one_file_is_no_picture(predictor: Predictor, uploads: list[Upload]):
    preview, html = show_one(predictor, uploads[3:4])

    assert preview is None
    assert f"notes.jpg {NO_PICTURE_FORMAT}" in html


def test_waits_for_pictures(predictor: Predictor):
    assert show_one(predictor, [])[0] is None
    assert NO_PICTURE in show_one(predictor, [])[1]
    assert NO_FILES in show_many(predictor, [], gr.Progress())


def test_shows_many_files_in_a_table(predictor: Predictor, uploads: list[Upload]):
    html = show_many(predictor, uploads, gr.Progress())

    assert "9 pictures classified, 1 could not be read" in html
    assert html.count("<tr") == 1 + len(uploads)
    assert html.count('<tr class="wbc-unreadable"') == 1
    content = base64.b64decode(re.search(r"data:text/csv;base64,([^\"]+)", html)[1]).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content)))
    assert [row["file"] for row in rows] == [upload.name for upload in uploads]
    assert rows[3]["status"] == "unreadable"
    assert rows[3]["problem"].startswith(NO_PICTURE_FORMAT)
    assert float(rows[0]["probability"]) == max(float(rows[0][label]) for label in CLASS_NAMES)


def test_refuses_too_many_files(predictor: Predictor, uploads: list[Upload]):
    many = uploads[:1] * (MAX_FILES + 1)

    assert "101 were given, at most 100" in show_many(predictor, many, gr.Progress())
    with pytest.raises(gr.Error, match="101 were given, at most 100"):
        classify_many(predictor, many)


def test_programs_get_a_record(predictor: Predictor, uploads: list[Upload]):
    record = classify(predictor, uploads[:1])

    (expected,) = predictor.predict([uploads[0].path])
    assert record["file"] == "smear 1, Zelle 0.png"
    assert (record["label"], record["probability"], record["status"]) == (
        expected.label,
        expected.probability,
        expected.status,
    )
    assert sum(record["probabilities"].values()) == pytest.approx(1)


def test_programs_get_a_message(predictor: Predictor, uploads: list[Upload]):
    with pytest.raises(gr.Error, match=f"notes.jpg: {NO_PICTURE_FORMAT}"):
        classify(predictor, uploads[3:4])
    with pytest.raises(gr.Error, match="No file"):
        classify(predictor, [])


def test_files_keep_the_names_they_came_with():
    given = {"path": "/tmp/gradio/abc/Zelle1.png", "orig_name": "Zelle #1.png"}
    assert read_uploads(given) == [Upload("/tmp/gradio/abc/Zelle1.png", "Zelle #1.png")]
    assert read_uploads([given | {"orig_name": None}]) == [Upload("/tmp/gradio/abc/Zelle1.png", "Zelle1.png")]
    assert read_uploads(None) == []


# ---- HTML and CSV


@pytest.mark.parametrize(
    ("probability", "text"), [(0.973, "97.3 %"), (0.0004, "< 0.1 %"), (0.9996, "> 99.9 %"), (0.5, "50.0 %")]
)
def test_percentages_are_never_certain(probability: float, text: str):
    assert format_percent(probability) == text


@pytest.mark.parametrize("status", STATUS_TEXTS)
def test_every_status_is_said_in_words(cell: Image.Image, status: str):
    answer = Answer("a.png", Prediction("monocyte", 0.9, (("basophil", 0.1),), status), cell, cell.size)
    assert STATUS_TEXTS[status].sentence in render_answer(answer)
    assert STATUS_TEXTS[status].title in render_table([answer], CLASS_NAMES)


def test_names_of_files_are_no_html(cell: Image.Image):
    name = "<script>1</script>"
    answer = Answer(name, Prediction("monocyte", 0.9, (), "uncalibrated"), cell, cell.size)
    error = UnreadableImageError(name, "is <b>broken</b>")
    pages = [render_answer(answer), render_table([answer, error], CLASS_NAMES), render_problem(name, str(error))]
    assert not any("<script>" in page or "<b>broken" in page for page in pages)


def test_csv_quotes_what_needs_it():
    error = UnreadableImageError('a, "b".jpg', "is empty (0 bytes)")
    assert to_csv([error], ["basophil"]).splitlines() == [
        "file,label,probability,status,basophil,problem",
        '"a, ""b"".jpg",,,unreadable,,is empty (0 bytes)',
    ]


# ---- the page


def _html(page: gr.Blocks) -> str:
    return "".join(block.value for block in page.blocks.values() if isinstance(block, gr.HTML))


def _trust(trained_on: str):
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(40, 8)).astype(np.float32), np.tile(np.arange(5), 8)
    probabilities = generator.dirichlet(np.ones(5), 40)
    return fit_trust(
        temperature=1.0,
        probabilities=probabilities,
        labels=labels,
        features=features,
        strange_features=features + 9,
        training_features=features,
        training_labels=labels,
        trained_on=trained_on,
    )


@pytest.mark.parametrize(("title", "painted"), [(PAINTED_TITLE, True), ("cells/", False)])
def test_page_says_what_the_model_was_trained_on(predictor: Predictor, tmp_path: Path, title: str, painted: bool):
    folder = tmp_path / "my-model"
    predictor.model.save_pretrained(folder)
    predictor.processor.save_pretrained(folder)
    _trust(title).save(folder)

    html = _html(build_page(Predictor.from_pretrained(folder)))

    assert RESEARCH_USE in html
    assert "<b>my-model</b>" in html
    assert (PAINTED_ONLY in html) == painted


def test_a_picture_without_a_cell_gets_no_class(predictor: Predictor):
    prediction = Prediction("monocyte", 0.9, (("basophil", 0.1),), "not_a_cell")
    html = render_answer(Answer("sky.png", prediction, Image.new("RGB", (64, 64)), (64, 64)))
    assert "<b>No leucocyte</b>" in html
    assert "Not a cell" in html


def test_page_claims_nothing_of_an_unknown_run(predictor: Predictor):
    assert PAINTED_ONLY not in _html(build_page(predictor))


def test_page_refuses_a_model_of_other_things():
    network, processor = build_from_scratch(0.0625, image_size=32)
    network.config.id2label = dict(enumerate(["tench", "goldfish", "shark", "ray", "cock"]))
    with pytest.raises(WbcError, match="tench, goldfish, shark"):
        build_page(Predictor(network, processor, "fishes"))


@pytest.fixture(scope="module")
def url(predictor: Predictor) -> Iterator[str]:
    page = build_page(predictor)
    yield launch_page(page, "127.0.0.1", None)
    page.close()


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False, analytics_enabled=False)


def test_endpoint_for_one_file(client: Client, predictor: Predictor, uploads: list[Upload]):
    record = client.predict(handle_file(uploads[0].path), api_name="/classify")
    assert record["label"] == predictor.predict([uploads[0].path])[0].label

    with pytest.raises(AppError, match=f"notes: {NO_PICTURE_FORMAT}"):
        client.predict(handle_file(uploads[3].path), api_name="/classify")


def test_endpoint_for_many_files(client: Client, uploads: list[Upload]):
    records = client.predict([handle_file(upload.path) for upload in uploads], api_name="/classify_many")

    assert [record["status"] for record in records] == ["uncalibrated"] * 3 + ["unreadable"] + ["uncalibrated"] * 6
    assert records[3]["problem"].startswith(NO_PICTURE_FORMAT)


def test_endpoints_give_no_file_of_the_server(url: str, uploads: list[Upload]):
    """What was not uploaded is refused, whether it is a picture or not."""
    data = {"path": uploads[0].path, "meta": {"_type": "gradio.FileData"}}
    event = httpx.post(f"{url}gradio_api/call/classify", json={"data": [data]}).json()["event_id"]
    answer = httpx.get(f"{url}gradio_api/call/classify/{event}").text
    assert "event: error" in answer
    assert "label" not in answer


def test_only_the_named_endpoints_are_open(client: Client):
    assert set(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == {
        "/classify",
        "/classify_many",
    }


def test_a_port_that_is_taken(predictor: Predictor):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WbcError, match=rf"127\.0\.0\.1:{port}.*--port"):
            launch_page(build_page(predictor), "127.0.0.1", port)
