"""Small specimens for tests of what is kept: pictures of a few pixels, predictions without a model."""

import io

import numpy as np
from PIL import Image

from wbc_hf.inference import ModelIdentity, Prediction
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear import Cell, Change, Picture, Place, SlideMap, Specimen

MODEL = ModelIdentity("wbc-tiny", "0123456789ab", "Painted cells", "wbc_hf 0.0")


def picture_bytes(format: str, seed: int = 0, side: int = 12) -> bytes:
    """A picture of noise, as a file."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def new_cell(label: int = 3, status: str = "confident", seed: int = 0, **values: object) -> Cell:
    """A cell as the counter makes it."""
    others = tuple((name, 0.025) for index, name in enumerate(CLASS_NAMES) if index != label)
    prediction = Prediction(CLASS_NAMES[label], 0.9, others, status, 0.5, 1.25)
    framings = ((0.1, 0.1, 0.9, 0.9), (0.0, 0.0, 1.0, 1.0))
    return Cell((1, 2, 11, 12), prediction, picture_bytes("PNG", seed), framings=framings, **values)


def add_field(specimen: Specimen, *cells: Cell, name: str = "field.jpg") -> Picture:
    """Add a field with these cells."""
    preview = picture_bytes("JPEG", len(specimen.pictures))
    return specimen.add_picture(Picture(0, name, (640, 480), True, preview, pixel_size=0.1), cells)


def replace_cells(specimen: Specimen, *cells: Cell) -> None:
    """Put other cells in the place of those with their numbers, as nobody does."""
    specimen._commit(Change(cells=cells))


def add_slide(specimen: Specimen, name: str = "smear.svs") -> SlideMap:
    """Add a slide of which two fields lie in the monolayer."""
    fields = ((900, 400, 1540, 880), (1540, 400, 2180, 880))
    slide = SlideMap(name, (6000, 3000), 0.25, True, picture_bytes("JPEG", 7, side=20), fields)
    specimen.add_slide(slide)
    return slide


def fill_from_slide(specimen: Specimen) -> SlideMap:
    """A photograph, then two fields of a slide, the second of which was taken out."""
    add_field(specimen, new_cell(0))
    slide = add_slide(specimen)
    for number, (x, y, _, _) in enumerate(slide.fields, 1):
        preview, place = picture_bytes("JPEG", 10 + number), Place(slide.name, float(x), float(y), 0.5)
        cells = [new_cell(number, seed=20 + number)]
        field = f"{slide.name}, field {number}"
        specimen.add_picture(Picture(0, field, (640, 480), True, preview, pixel_size=0.125, place=place), cells)
    specimen.review(2, "monocyte", "Ana")
    specimen.remove(3, "Ana")
    return slide


def slides_of(specimen: Specimen) -> list[tuple]:
    """All that is known of a specimen's slides, with the bytes of their thumbnails."""
    return [(it.name, it.size, it.pixel_size, it.measured, it.fields, it.thumbnail) for it in specimen.slides]


def fill(specimen: Specimen) -> None:
    """Two fields, reviewed by two persons, who do not agree; the first was taken out and put back, the second out."""
    add_field(specimen, new_cell(0), new_cell(1, "review", 1), new_cell(2, "unfamiliar", 2))
    add_field(specimen, new_cell(0, seed=3, duplicate_of=1), new_cell(4, seed=4, cut=True), name="血液 <b>.jpg")
    specimen.review(2, "monocyte", "Ana")
    specimen.review_many({2: None, 3: "basophil"}, "Ben")
    specimen.remove(1, "Ben")
    specimen.put_back(1, "Ben")
    specimen.add_cell(1, new_cell(3, "review", 5, pointed_at=True), "Ana")
    specimen.describe("Ana", name="S 17 Ö", leucocyte_count=6.5, patient="P-1", order="O 2", slide="3", comment="—")
    specimen.remove(2, "Ana")
