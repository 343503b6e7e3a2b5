"""The page: its handlers, its endpoints for programs, and its header."""

import base64
import io
import json
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.client import Job
from gradio_client.exceptions import AppError
from markupsafe import escape
from PIL import Image
from transformers import ResNetForImageClassification

from tests.adapted_models import build_tiny_model, make_adapted, write_tiny_model
from wbc_hf.adaptation import SCORES, Adaptation, AdaptationCell, Laboratories, Scores
from wbc_hf.data import PAINTED_TITLE, paint_cells, paint_field
from wbc_hf.default_model import DEFAULT_MODEL_FOLDER
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import Prediction, Predictor, ReferenceCells
from wbc_hf.labels import CLASS_NAMES, LEUCOCYTES
from wbc_hf.modeling import Calibration, OutOfDistributionScore, build_from_scratch
from wbc_hf.reports import EXPORTS, RESEARCH_USE
from wbc_hf.smear import (
    DEFAULT_RANGES,
    CellCounter,
    CellState,
    FoundCell,
    LaboratoryCheck,
    Origin,
    Specimen,
    counting,
    load_types,
)
from wbc_hf.web import build_page, examples, launch_page
from wbc_hf.web.adapting import adaptation_turn
from wbc_hf.web.assembly import PAINTED_ONLY
from wbc_hf.web.cell_tab import NO_PICTURE, CellTab, Inputs, ShownAnswer, render_answer
from wbc_hf.web.endpoints import Endpoints
from wbc_hf.web.model_tab import NO_CARD, NO_REPORT, read_card, render_report
from wbc_hf.web.rendering import format_percent, render, render_problem
from wbc_hf.web.status_text import STATUS_TEXTS
from wbc_hf.web.uploads import MAX_FILES, PREVIEW_SIDE, Answer, Upload, answer_uploads, read_uploads

NO_PICTURE_FORMAT = "is not a picture in a known format"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(*build_tiny_model(), name="tiny")


@pytest.fixture(scope="module")
def cell() -> Image.Image:
    return Image.fromarray(paint_cells([1], size=48, seed=3)[0])


@pytest.fixture
def uploads(tmp_path: Path) -> list[Upload]:
    """Nine painted cells and, fourth of them, a text that calls itself a picture: more than one chunk."""
    files = []
    for index, pixels in enumerate(paint_cells(np.arange(9) % 5, size=40, seed=4)):
        files.append(Upload(str(tmp_path / f"{index}.png"), f"smear 1, Zelle {index}.png"))
        Image.fromarray(pixels).save(files[-1].source)
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
    assert answer.image.mode == "RGB"


def test_answers_an_upright_picture(predictor: Predictor, cell: Image.Image, tmp_path: Path):
    file = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    cell.crop((0, 0, 48, 30)).save(file, exif=exif)

    (answer,) = answer_uploads(predictor, [Upload(str(file), "turned.jpg")])

    assert answer.prediction == predictor.predict([file])[0]
    assert answer.image.size == (30, 48)


def test_answers_the_readable_files_in_order(predictor: Predictor, uploads: list[Upload]):
    answers = list(answer_uploads(predictor, uploads))

    names = [upload.name for upload in uploads]
    assert [answer.name for answer in answers] == names
    assert [index for index, answer in enumerate(answers) if isinstance(answer, UnreadableImageError)] == [3]
    readable = [upload.source for upload in uploads if upload.name != "notes.jpg"]
    assert [answer.prediction.label for answer in answers if isinstance(answer, Answer)] == [
        prediction.label for prediction in predictor.predict(readable)
    ]


def cell_tab(predictor: Predictor, references: ReferenceCells | None = None) -> CellTab:
    with gr.Blocks():
        return CellTab(predictor, references)


def _given(upload: Upload) -> dict:
    """A file as Gradio passes it on."""
    return {"path": upload.source, "orig_name": upload.name, "meta": {"_type": "gradio.FileData"}}


def test_shows_the_answer_and_then_the_heat_map(predictor: Predictor, uploads: list[Upload]):
    tab, inputs = cell_tab(predictor), Inputs()
    answer = tab.on_picture(_given(uploads[0]), 1, inputs)
    explained = tab.on_answered(inputs)
    first, second = answer["html"], explained["html"]

    assert answer["preview"] == explained["preview"]
    with Image.open(io.BytesIO(base64.b64decode(answer["preview"].partition("base64,")[2]))) as preview:
        assert preview.size == (40, 40)
    assert predictor.predict([uploads[0].source])[0].label.capitalize() in first
    assert "smear 1, Zelle 0.png <span>40 × 40 pixels" in first
    assert all(leucocyte.colour in first for leucocyte in LEUCOCYTES)
    assert "Heat map" not in first
    assert "Heat map" in second
    assert "reference cells" not in second


def test_shows_the_reference_cells_that_are_most_alike(predictor: Predictor, uploads: list[Upload], tmp_path: Path):
    for name, pixels in zip(CLASS_NAMES, paint_cells(range(5), size=40, seed=4), strict=True):
        (tmp_path / "known" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "known" / name / "1.png")
    references = ReferenceCells.from_folder(tmp_path / "known", predictor)

    html = render_answer(cell_tab(predictor, references).answer(uploads[:1]))

    # The first upload is painted like the first of them.
    assert html.index("basophil/1.png") == min(html.index(f"{name}/1.png") for name in CLASS_NAMES)


def test_shows_large_pictures_smaller(predictor: Predictor, cell: Image.Image, tmp_path: Path):
    file = tmp_path / "large.png"
    cell.resize((2 * PREVIEW_SIDE, PREVIEW_SIDE)).save(file)

    shown = cell_tab(predictor).answer([Upload(str(file), "large.png")])

    assert shown.answer.image.size == (PREVIEW_SIDE, PREVIEW_SIDE // 2)
    assert f"{2 * PREVIEW_SIDE} × {PREVIEW_SIDE} pixels" in render_answer(shown)


def test_says_why_one_file_is_no_picture(predictor: Predictor, uploads: list[Upload]):
    tab, inputs = cell_tab(predictor), Inputs()
    answer = tab.on_picture(_given(uploads[3]), 1, inputs)

    assert answer["preview"] is None
    assert tab.on_answered(inputs) == answer
    assert inputs.unexplained is None
    assert f"notes.jpg {NO_PICTURE_FORMAT}" in answer["html"]


def test_waits_for_a_picture(predictor: Predictor):
    answer = cell_tab(predictor).on_picture(None, 1, Inputs())
    assert answer == {"number": 1, "html": render("empty", text=NO_PICTURE), "preview": None}


class Waiting:
    """A predictor that waits in the middle of each prediction until it may go on."""

    def __init__(self, predictor: Predictor):
        self.predictor, self.entered, self.go_on = predictor, threading.Event(), threading.Event()

    def predict(self, images: list) -> list[Prediction]:
        self.entered.set()
        assert self.go_on.wait(60)
        return self.predictor.predict(images)


def test_the_newest_input_wins_over_answers_that_are_late(predictor: Predictor, uploads: list[Upload]):
    tab, inputs = cell_tab(predictor), Inputs()
    waiting = tab.predictor = Waiting(predictor)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(tab.on_picture, _given(uploads[0]), 1, inputs)
        assert waiting.entered.wait(60)
        later = []
        for number in (2, 4, 3):
            later.append(threads.submit(tab.on_picture, _given(uploads[number]), number, inputs))
            while inputs.newest < number:
                time.sleep(0.001)
        waiting.go_on.set()

        second, newest, third = (answer.result(60) for answer in later)

    assert first.result() == second == third == gr.skip()
    assert newest["number"] == 4 and uploads[4].name in newest["html"]
    tab.predictor = predictor
    # Whichever of the four asks: their answers may have arrived in any order.
    answer = tab.on_answered(inputs)
    assert answer["number"] == 4 and uploads[4].name in answer["html"] and "Heat map" in answer["html"]
    assert answer["preview"] == newest["preview"]
    assert tab.on_answered(inputs) == gr.skip()  # explained already


def test_a_heat_map_that_is_late_is_dropped(predictor: Predictor, uploads: list[Upload]):
    tab, inputs = cell_tab(predictor), Inputs()
    tab.on_picture(_given(uploads[0]), 1, inputs)
    inputs.newest = 2
    assert tab.on_answered(inputs) == gr.skip()

    tab.on_picture(_given(uploads[0]), 3, inputs)
    tab.explain = lambda shown: setattr(inputs, "newest", 4) or "late"
    assert tab.on_answered(inputs) == gr.skip()


def test_a_picture_that_is_taken_away_gets_no_heat_map(predictor: Predictor, uploads: list[Upload]):
    tab, inputs = cell_tab(predictor), Inputs()
    tab.on_picture(_given(uploads[0]), 1, inputs)
    tab.on_picture(None, 2, inputs)
    answer = tab.on_answered(inputs)
    assert answer["preview"] is None
    assert NO_PICTURE in answer["html"]


def endpoints(predictor: Predictor) -> Endpoints:
    return Endpoints(predictor, None, DEFAULT_RANGES)


def test_refuses_too_many_files(predictor: Predictor, uploads: list[Upload]):
    with pytest.raises(WbcError, match="101 were given, at most 100"):
        endpoints(predictor).classify_many([_given(uploads[0])] * (MAX_FILES + 1))


def test_programs_get_a_record(predictor: Predictor, uploads: list[Upload]):
    record = endpoints(predictor).classify(_given(uploads[0]))

    (expected,) = predictor.predict([uploads[0].source])
    assert record["file"] == "smear 1, Zelle 0.png"
    assert (record["label"], record["probability"], record["status"]) == (
        expected.label,
        expected.probability,
        expected.status,
    )
    assert sum(record["probabilities"].values()) == pytest.approx(1)


def test_programs_get_a_message(predictor: Predictor, uploads: list[Upload]):
    with pytest.raises(WbcError, match=f"notes.jpg: {NO_PICTURE_FORMAT}"):
        endpoints(predictor).classify(_given(uploads[3]))
    with pytest.raises(WbcError, match="No file"):
        endpoints(predictor).classify(None)


def test_files_keep_the_names_they_came_with():
    given = {"path": "/tmp/gradio/abc/Zelle1.png", "orig_name": "Zelle #1.png"}
    assert read_uploads(given) == [Upload("/tmp/gradio/abc/Zelle1.png", "Zelle #1.png")]
    assert read_uploads([given | {"orig_name": None}]) == [Upload("/tmp/gradio/abc/Zelle1.png", "Zelle1.png")]
    assert read_uploads([given | {"orig_name": "n" * 100_000 + ".json"}])[0].name == "n" * 995 + ".json"
    assert read_uploads(None) == []


# ---- examples


def test_examples_are_real_small_and_credited():
    folder = Path(examples.__file__).with_name("example_pictures")
    files = {Path(str(upload.source)) for upload in (*examples.example_cells(), *examples.example_fields())}
    assert files == set(folder.glob("*.jpg"))
    assert sum(file.stat().st_size for file in files) < 600_000
    credits = (folder / "CREDITS.txt").read_text(encoding="utf-8")
    assert all(file.name in credits for file in files)
    assert "CC BY 4.0" in credits and "Permission is hereby granted" in credits


def test_the_default_model_knows_the_example_cells_and_counts_in_the_example_fields():
    predictor, specimen = Predictor.from_pretrained(DEFAULT_MODEL_FOLDER), Specimen()
    predictions = predictor.predict([upload.source for upload in examples.example_cells()])
    assert [prediction.label for prediction in predictions] == list(CLASS_NAMES)
    assert {prediction.status for prediction in predictions} == {"confident"}
    counter = CellCounter(predictor, specimen)
    for upload in examples.example_fields():
        counter.add_image(Image.open(upload.source), upload.name, whole_field=True)
    assert sum(cell.state is CellState.COUNTED for cell in specimen.cells) >= 3


# ---- HTML and CSV


@pytest.mark.parametrize(
    ("probability", "text"), [(0.973, "97.3 %"), (0.0004, "< 0.1 %"), (0.9996, "> 99.9 %"), (0.5, "50.0 %")]
)
def test_percentages_are_never_certain(probability: float, text: str):
    assert format_percent(probability) == text


@pytest.mark.parametrize("status", STATUS_TEXTS)
def test_every_status_is_said_in_words(cell: Image.Image, status: str):
    answer = Answer("a.png", Prediction("monocyte", 0.9, (("basophil", 0.1),), status), cell)
    assert STATUS_TEXTS[status].sentence in render_answer(ShownAnswer(answer, cell.size))


@pytest.mark.parametrize("status", STATUS_TEXTS)
def test_a_probability_is_shown_only_where_it_is_calibrated(cell: Image.Image, status: str):
    answer = Answer("a.png", Prediction("monocyte", 0.973, (("basophil", 0.027),), status), cell)
    html = render_answer(ShownAnswer(answer, cell.size))
    assert ("97.3 %" in html) == (status in ("confident", "review"))


def test_names_of_files_are_no_html(cell: Image.Image):
    name = "<script>1</script>"
    answer = Answer(name, Prediction("monocyte", 0.9, (), "uncalibrated"), cell)
    assert "<script>" not in render_answer(ShownAnswer(answer, cell.size))
    assert "<script>" not in render_problem(name, str(UnreadableImageError(name, "is broken")))


# ---- the page


def _html(page: gr.Blocks) -> str:
    return "".join(block.value or "" for block in page.blocks.values() if isinstance(block, gr.HTML))


def _calibration(network: ResNetForImageClassification, trained_on: str) -> Calibration:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(40, sum(network.config.hidden_sizes[-3:]))).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.tile(np.arange(5), 8)
    probabilities = generator.dirichlet(np.ones(5), 40)
    return Calibration.fit(
        temperature=1.0,
        probabilities=probabilities,
        labels=labels,
        features=features,
        training_features=features,
        trained_on=trained_on,
    )


@pytest.mark.parametrize(("title", "painted"), [(PAINTED_TITLE, True), ("cells/", False)])
def test_page_says_what_the_model_was_trained_on(predictor: Predictor, tmp_path: Path, title: str, painted: bool):
    folder = tmp_path / "my-model"
    predictor.model.save_pretrained(folder)
    predictor.processor.save_pretrained(folder)
    _calibration(predictor.resnet, title).save(folder)

    html = _html(build_page(Predictor.from_pretrained(folder)))

    assert RESEARCH_USE in html
    assert "<b>my-model</b>" in html
    assert (PAINTED_ONLY in html) == painted


def test_a_picture_without_a_cell_gets_no_class(predictor: Predictor):
    prediction = Prediction("monocyte", 0.9, (("basophil", 0.1),), "not_a_cell")
    image = Image.new("RGB", (64, 64))
    html = render_answer(ShownAnswer(Answer("sky.png", prediction, image), image.size))
    assert "<b>No leucocyte</b>" in html
    assert "Not a cell" in html


def test_page_claims_nothing_of_an_unknown_run(predictor: Predictor):
    assert PAINTED_ONLY not in _html(build_page(predictor))


def test_page_refuses_a_model_of_other_things():
    network, processor = build_from_scratch(0.0625, image_size=32)
    network.config.id2label = dict(enumerate(["tench", "goldfish", "shark", "ray", "cock"]))
    with pytest.raises(WbcError, match="tench, goldfish, shark"):
        build_page(Predictor(network, processor, "fishes"))


def test_the_model_tab_says_that_nothing_is_known(predictor: Predictor):
    assert escape(NO_REPORT) in render_report(predictor)
    assert read_card(predictor.folder) == NO_CARD


def test_the_model_tab_shows_figures_with_intervals_and_the_card(tiny_run):
    predictor = Predictor.from_pretrained(tiny_run.folder)
    metrics = json.loads((tiny_run.folder / "metrics.json").read_text())
    low, high = metrics["intervals"]["accuracy"]

    html = render_report(predictor)

    assert f"<b>{100 * metrics['accuracy']:.1f} %</b><small>{100 * low:.1f} – {100 * high:.1f} %</small>" in html
    assert predictor.identity.version in html
    assert html.count("<figure>") == 3
    card = read_card(predictor.folder)
    assert "## Limits" in card
    assert "model-index" not in card and "](figures/" not in card


def test_the_model_tab_says_what_to_expect_elsewhere(tiny_run, tmp_path: Path):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "model")
    metrics = json.loads((folder / "metrics.json").read_text())
    elsewhere = metrics | {"accuracy": 0.4321, "count": 77}
    (folder / "metrics.json").write_text(json.dumps(metrics | {"unseen": {"North": elsewhere}}))

    html = render_report(Predictor.from_pretrained(folder))

    # In the same size as the figures at home.
    assert "<h2>In its test</h2>" in html and "<h2>In laboratories that it has not seen</h2>" in html
    assert "<h3>North, 77 images</h3>" in html
    assert "<span>Accuracy</span><b>43.2 %</b>" in html
    assert html.count("Confident answers that are right") == 2


def test_the_model_tab_shows_evaluations_on_other_images(tiny_run, tmp_path: Path):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "model")
    report = folder / "evaluations" / "Ward <3>"
    shutil.copytree(folder / "figures", report / "figures")
    figures = json.loads((folder / "metrics.json").read_text())
    metrics = figures | {"accuracy": 0.4321, "count": 77, "laboratories": {"North": figures | {"count": 33}}}
    (report / "metrics.json").write_text(json.dumps(metrics))
    record = json.loads((folder / "evaluation.json").read_text())
    (report / "evaluation.json").write_text(json.dumps(record | {"version": "other"}))

    html = render_report(Predictor.from_pretrained(folder))

    assert "Ward &lt;3&gt;, 77 images: accuracy 43.2 %" in html
    assert "North, 33 images" in html
    assert "<code>other</code>, other weights than are loaded" in html
    assert html.count("<figure>") == 6
    (report / "metrics.json").unlink()
    with pytest.raises(WbcError, match="Ward <3>: is no report of `wbc-hf evaluate`"):
        render_report(Predictor.from_pretrained(folder))


@pytest.mark.parametrize("labelled", [True, False])
def test_the_model_tab_of_an_adapted_model_says_what_that_changed(tiny_run, tmp_path: Path, labelled: bool):
    before = Scores(0.5, 0.5, 0.5, dict.fromkeys(SCORES), dict.fromkeys(CLASS_NAMES, 0.5))
    scores = {"scores_before": before, "scores_after": replace(before, accuracy=0.8123)}
    facts = {"labelled": dict.fromkeys(CLASS_NAMES, 8), "held_back": 40, "folds": 4} | scores if labelled else {}
    adaptation = Adaptation("starter", "0123456789ab", "wbc_hf 1", "2026-11-29", 0, 40, 0, 0, 0.9, True, **facts)
    folder = shutil.copytree(tiny_run.folder, tmp_path / "model", ignore=shutil.ignore_patterns("metrics.json"))
    (folder / "adaptation.json").write_text(json.dumps(asdict(adaptation)))

    html = render_report(Predictor.from_pretrained(folder))

    assert "starter, version <code>0123456789ab</code>" in html
    assert ("<b>81.2 %</b>" in html) == labelled
    assert ("nothing is known of how good it is there" in html) != labelled
    assert escape(NO_REPORT) not in html


def test_a_broken_report_is_named(predictor: Predictor, tmp_path: Path):
    predictor.model.save_pretrained(tmp_path)
    predictor.processor.save_pretrained(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(WbcError, match=r"metrics\.json: is not JSON"):
        build_page(Predictor.from_pretrained(tmp_path))


@pytest.mark.parametrize("name", ["README.md", "metrics.json", "figures/reliability.png"])
def test_the_page_shows_nothing_that_a_link_leads_to(tiny_run, tmp_path: Path, name: str):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "model")
    (folder / name).rename(tmp_path / "secret")
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(WbcError, match=rf"{name}: is a link to a file outside of the folder"):
        build_page(Predictor.from_pretrained(folder))


@pytest.mark.timeout(20)
def test_a_card_of_one_long_line_is_read_at_once(tmp_path: Path):
    line = "![" + "](" * 500_000
    (tmp_path / "README.md").write_text(line)
    assert read_card(tmp_path) == line


# ---- counting for programs


@pytest.fixture
def field(tmp_path: Path) -> Upload:
    file = tmp_path / "field.png"
    Image.fromarray(paint_field([1, 2, 3, 4], width=480, height=360, seed=8).image).save(file)
    return Upload(str(file), "field.png")


def ask_count(predictor: Predictor, uploads: list[Upload], **changes: object):
    asked = {"name": "S 1", "leucocytes": 8.0, "reviewer": "Ana"} | changes
    return endpoints(predictor).count_specimen([_given(upload) for upload in uploads], **asked)


def test_counts_what_a_cell_counter_finds(predictor: Predictor, field: Upload, uploads: list[Upload]):
    specimen = Specimen()
    CellCounter(predictor, specimen).add_image(Image.open(field.source).convert("RGB"), "field.png", whole_field=True)

    record, unreadable = ask_count(predictor, [field, uploads[3]])

    assert [(cell.box, cell.prediction) for cell in record.cells] == [
        (cell.box, cell.prediction) for cell in specimen.cells
    ]
    assert record.differential.total == 0  # the model is not calibrated: all wait
    assert [row["file"] for row in unreadable] == ["notes.jpg"]


def test_programs_get_the_other_pictures_where_one_fails(
    predictor: Predictor, field: Upload, monkeypatch: pytest.MonkeyPatch
):
    real, calls = counting.find_cells, iter(range(9))

    def fail_first(image: Image.Image) -> list[FoundCell]:
        if next(calls) == 0:
            raise ValueError("an odd field")
        return real(image)

    monkeypatch.setattr(counting, "find_cells", fail_first)
    record, unreadable = ask_count(predictor, [field, field])
    (problem,) = unreadable
    assert problem["file"] == field.name
    assert "an odd field" in problem["problem"]
    assert len(record.pictures) == 1
    assert record.cells


def test_corrections_count(predictor: Predictor, field: Upload):
    first, second = [cell.number for cell in ask_count(predictor, [field])[0].cells_in(CellState.WAITING)][:2]
    record, _ = ask_count(predictor, [field], corrections={str(first): "EOS", str(second): None})
    share = record.differential.shares[CLASS_NAMES.index("eosinophil")]
    assert (share.count, share.absolute.value) == (1, 8.0)
    assert record.cells[first - 1].review.reviewer == "Ana"
    assert record.cells[second - 1].label is None


def test_corrections_name_own_types_which_programs_can_list(predictor: Predictor, field: Upload):
    types = load_types(Path(__file__).parents[1] / "configs" / "types.toml")
    asked = Endpoints(predictor, None, DEFAULT_RANGES, own_types=types)
    listed = {it["name"]: it for it in asked.types()}
    assert listed["erythroblast"]["leucocyte"] is False and listed["band"]["key"] == "6"
    assert listed["band"]["code"]["code"] == "26508-2"
    corrections = {"1": "Band", "2": "erythroblast"}
    record, _ = asked.count_specimen([_given(field)], "field", "S 17", 8.0, corrections, "Ana")
    assert [str(cell.own) for cell in record.cells[:2]] == ["band", "erythroblast"]
    assert (record.differential.total, record.differential.beside[0].count) == (1, 1)
    assert record.differential.corrected_count == 4.0
    with pytest.raises(WbcError, match=r"hairy cell: is not one of .*band"):
        asked.count_specimen([_given(field)], "field", "S 17", 8.0, {"1": "hairy cell"}, "Ana")
    assert Endpoints(predictor, None, DEFAULT_RANGES).types() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"show": "smear"}, "show: 'smear' is not one of field, cell"),
        ({"leucocytes": 6500.0}, "6500: a total leucocyte count"),
        ({"corrections": {"one": "monocyte"}}, "corrections: 'one' is not the number of a cell"),
        ({"corrections": {"99": "monocyte"}}, "cell 99: there are"),
        ({"corrections": {"1": "blast"}}, "blast: is not one of"),
        ({"corrections": {"1": 4}}, "corrections: 4 is not a class by name"),
        ({"corrections": ["monocyte"]}, "corrections: .* does not give classes by number"),
        ({"leucocytes": "6.4"}, "leucocytes: '6.4' is not a number"),
    ],
)
def test_what_cannot_be_counted_is_named(predictor: Predictor, field: Upload, changes: dict, message: str):
    with pytest.raises(WbcError, match=message):
        ask_count(predictor, [field], **changes)


def test_nothing_is_not_counted(predictor: Predictor):
    with pytest.raises(WbcError, match="No file"):
        ask_count(predictor, [])


# ---- the endpoints


@pytest.fixture(scope="module")
def url(predictor: Predictor) -> Iterator[str]:
    page = build_page(predictor)
    yield launch_page(page, "127.0.0.1", None)
    page.close()


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False, analytics_enabled=False)


def test_endpoint_for_one_file(client: Client, predictor: Predictor, uploads: list[Upload]):
    record = client.predict(handle_file(uploads[0].source), api_name="/classify")
    assert record["label"] == predictor.predict([uploads[0].source])[0].label

    with pytest.raises(AppError, match=f"notes: {NO_PICTURE_FORMAT}"):
        client.predict(handle_file(uploads[3].source), api_name="/classify")


def test_endpoint_for_many_files(client: Client, uploads: list[Upload]):
    records = client.predict([handle_file(upload.source) for upload in uploads], api_name="/classify_many")

    assert [record["status"] for record in records] == ["uncalibrated"] * 3 + ["unreadable"] + ["uncalibrated"] * 6
    assert records[3]["problem"].startswith(NO_PICTURE_FORMAT)


def test_endpoints_give_no_file_of_the_server(url: str, uploads: list[Upload]):
    """What was not uploaded is refused, whether it is a picture or not."""
    data = {"path": uploads[0].source, "meta": {"_type": "gradio.FileData"}}
    event = httpx.post(f"{url}gradio_api/call/classify", json={"data": [data]}).json()["event_id"]
    answer = httpx.get(f"{url}gradio_api/call/classify/{event}").text
    assert "event: error" in answer
    assert "label" not in answer


def test_only_the_named_endpoints_are_open(client: Client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {
        "/classify",
        "/classify_many",
        "/explain",
        "/nearest",
        "/count",
        "/export",
        "/model",
        "/types",
        "/laboratories",
        "/adapt",
    }
    assert all(
        parameter["label"] and parameter["python_type"]["type"] for parameter in endpoints["/count"]["parameters"]
    )


def test_endpoint_for_a_specimen(client: Client, field: Upload):
    document = client.predict(
        [handle_file(field.source)], "field", "S 1", 6.4, {"1": "monocyte"}, "Ana", api_name="/count"
    )
    assert document["specimen"] == "S 1"
    assert document["differential"]["total"] == 1
    assert document["cells"][0]["review"]["reviewer"] == "Ana"
    assert document["unreadable"] == []

    with pytest.raises(AppError, match="'one' is not the number of a cell"):
        client.predict([handle_file(field.source)], "field", "", None, {"one": "monocyte"}, "", api_name="/count")


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.key)
def test_endpoint_for_exports(client: Client, field: Upload, export):
    path = client.predict(
        export.key, [handle_file(field.source)], "field", "S 1", 6.4, {"1": "monocyte"}, "Ana", api_name="/export"
    )
    content = Path(path).read_bytes()
    assert Path(path).name.startswith("differential-S-1-")
    if export.key == "pdf":
        assert content.startswith(b"%PDF")
    elif export.key == "cells":
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
        assert [name for name in names if name.endswith(".png")] == [name for name in names if "monocyte/" in name]
    elif export.key == "csv":
        assert content.decode("utf-8-sig").startswith("number,picture")
    else:
        assert isinstance(json.loads(content), dict)


def test_an_export_that_cannot_be_is_named(client: Client, field: Upload):
    with pytest.raises(AppError, match="no counted cell is reviewed"):
        client.predict("cells", [handle_file(field.source)], "field", "", None, None, "", api_name="/export")


def test_endpoints_for_one_cell_and_the_model(client: Client, predictor: Predictor, uploads: list[Upload]):
    drawn = client.predict(handle_file(uploads[0].source), "mono", api_name="/explain")
    assert Image.open(drawn).size == (40, 40)
    with pytest.raises(AppError, match="without reference cells"):
        client.predict(handle_file(uploads[0].source), 3, api_name="/nearest")
    assert client.predict(api_name="/model")["version"] == predictor.identity.version


def test_language_models_get_the_same_as_tools(predictor: Predictor):
    page = build_page(predictor)
    url = launch_page(page, "127.0.0.1", None, mcp=True)
    try:
        tools = {tool["name"]: tool for tool in httpx.get(f"{url}gradio_api/mcp/schema").json()}
    finally:
        page.close()
    assert {"classify", "count", "export", "model"} <= set(tools)
    assert "leucocytes" in tools["count"]["description"]


def test_only_those_who_are_named_come_in_and_correct_under_that_name(predictor: Predictor, field: Upload):
    page = build_page(predictor)
    url = launch_page(page, "127.0.0.1", None, users=[("ana", "secret")])
    try:
        assert httpx.get(f"{url}gradio_api/info").status_code == 401
        wrong = httpx.post(f"{url}login", data={"username": "ana", "password": "other"})
        assert wrong.status_code == 400
        client = Client(url, auth=("ana", "secret"), verbose=False, analytics_enabled=False)
        files = [handle_file(field.source)]
        document = client.predict(files, "field", "", 0, {"1": "monocyte"}, "Mallory", api_name="/count")
        assert document["reviewers"] == ["ana"]
        assert client.predict(api_name="/model")["labels"] == list(CLASS_NAMES)
    finally:
        page.close()


def test_a_port_that_is_taken(predictor: Predictor):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WbcError, match=rf"127\.0\.0\.1:{port}.*--port"):
            launch_page(build_page(predictor), "127.0.0.1", port)


# ---- kept laboratories


@pytest.mark.usefixtures("brief_adaptation")
def test_programs_adapt_to_a_laboratory_keep_it_and_count_under_it(
    predictor: Predictor, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    network = write_tiny_model(folder)
    features = np.random.default_rng(0).random((20, sum(network.config.hidden_sizes[-3:])), dtype=np.float32)
    Calibration(
        1.0, 1.0, False, 10.0, 20, "painted", out_of_distribution_score=OutOfDistributionScore.fit(features)
    ).save(folder)
    model, classes = Predictor.from_pretrained(folder, "torch"), [2, 4] * 4
    files = []
    for number, pixels in enumerate(paint_cells(classes, size=48, seed=4)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        files.append(handle_file(tmp_path / f"{number}.png"))
    corrections = {str(number): CLASS_NAMES[label] for number, label in enumerate(classes, 1)}
    page = build_page(model, laboratories=Laboratories(tmp_path / "kept"))
    url = launch_page(page, "127.0.0.1", None)
    try:
        client = Client(url, verbose=False, analytics_enabled=False)
        assert client.predict(api_name="/laboratories") == []
        done = client.predict(files, "cell", "Ward 3", corrections, True, api_name="/adapt")
        assert done["adaptation"]["labelled"]["neutrophil"] == 4 and done["unreadable"] == []
        if done["laboratory"] is None:  # the untrained network may not have gained, and is then not kept
            assert done["adaptation"]["warning"]
        else:
            (kept,) = client.predict(api_name="/laboratories")
            assert (kept["name"], kept["keeps_cells"]) == ("Ward 3", True)
            counted = client.predict(files, "cell", "", 0, {}, "", "ward 3", api_name="/count")
            assert counted["model"]["version"] == kept["version"] != model.identity.version
        with pytest.raises(AppError, match=r"Nowhere: no laboratory of this name"):
            client.predict(files, "cell", "", 0, {}, "", "Nowhere", api_name="/count")
    finally:
        page.close()


@pytest.mark.long
@pytest.mark.usefixtures("brief_adaptation")
def test_programs_adapt_to_kept_cells_too_wait_their_turn_and_hear_of_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network = write_tiny_model(tmp_path / "tiny")
    features = np.random.default_rng(0).random((20, sum(network.config.hidden_sizes[-3:])), dtype=np.float32)
    score = OutOfDistributionScore.fit(features)
    Calibration(1.0, 1.0, False, 10.0, 20, "painted", out_of_distribution_score=score).save(tmp_path / "tiny")
    model = Predictor.from_pretrained(tmp_path / "tiny", "torch")
    adapted, store = make_adapted(model, tmp_path / "adapted"), Laboratories(tmp_path / "kept")
    store.keep("Ward 3", model, adapted.folder, adapted.adaptation, keep_cells=True)
    classes, images = [2, 4] * 5, [Image.fromarray(it) for it in paint_cells([2, 4] * 5, size=48, seed=4)]
    store.add_cells("Ward 3", [AdaptationCell(images[index], classes[index], f"{index}") for index in range(6)])
    files = []
    for index in range(6, 10):
        images[index].save(tmp_path / f"{index}.png")
        files.append(handle_file(tmp_path / f"{index}.png"))
    Image.new("RGB", (64, 64), "white").save(tmp_path / "blank.png")
    page = build_page(model, laboratories=store)
    url = launch_page(page, "127.0.0.1", None)
    try:
        first, second = (Client(url, verbose=False, analytics_enabled=False) for _ in range(2))
        with adaptation_turn(lambda step, share: None, lambda: False):
            # Nothing is reviewed here, and the laboratory is spelt otherwise: its six cells have the labels.
            jobs = [first.submit(files, "cell", "ward  3", {}, False, api_name="/adapt")]
            _wait_for_step(jobs[0], "Waiting for another adaptation: one runs at a time")
            jobs.append(second.submit(files[:2], "cell", "Ward 3", {}, False, api_name="/adapt"))
            _wait_for_step(jobs[1], "Waiting for 2 other adaptations: one runs at a time")
            assert not any(job.done() for job in jobs)
        done = [job.result(120)["adaptation"] for job in jobs]
        assert [it["cells"] for it in done] == [10, 8]
        assert all(sum(it["labelled"].values()) == 6 for it in done)

        before = store.show("Ward 3")
        named = {str(number): "neutrophil" for number in range(1, 5)}
        for given, name, corrections, problem in (
            (files, "New", {}, "Too few cells: 4, of which are reviewed: none"),
            (files, "New", named, "Too few cells: 4, of which are reviewed: neutrophil 4"),
            ([handle_file(tmp_path / "blank.png")], "Ward 3", {}, "No cell that a model can learn from was found"),
            (files, " ", {}, "the name of a laboratory has 1 to 60 characters"),
        ):
            with pytest.raises(AppError, match=problem):
                first.predict(given, "cell", name, corrections, False, api_name="/adapt")
        mixed = LaboratoryCheck(Origin.MIXED, 12, 1.0)
        monkeypatch.setattr("wbc_hf.web.endpoints.check_laboratory", lambda *_: mixed)
        with pytest.raises(AppError, match="those of one laboratory at a time"):
            first.predict(files, "cell", "Ward 3", {}, False, api_name="/adapt")
        assert store.names() == ("Ward 3",) and store.show("Ward 3") == before
    finally:
        page.close()


def _wait_for_step(job: Job, text: str) -> None:
    deadline = time.monotonic() + 60
    while not any(step.desc == text for step in job.status().progress_data or ()):
        assert time.monotonic() < deadline and not job.done(), job.status()
        time.sleep(0.02)


def test_a_page_that_keeps_no_laboratories_says_so(client: Client, field: Upload):
    with pytest.raises(AppError, match="keeps no laboratories"):
        client.predict([handle_file(field.source)], "field", "Ward 3", {}, False, api_name="/adapt")
    with pytest.raises(AppError, match="keeps no laboratories"):
        client.predict([handle_file(field.source)], "field", "", 0, {}, "", "Ward 3", api_name="/count")
