"""From pictures to the cells of a specimen: find them, ask the model, and see what was there before."""

import io
import threading
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from PIL import Image

from wbc_hf.data import Box
from wbc_hf.errors import WbcError
from wbc_hf.inference.predictor import Predictor
from wbc_hf.smear.finder import FoundCell, crop_cell, find_cells
from wbc_hf.smear.overlaps import FieldIndex, match_cells
from wbc_hf.smear.specimen import Cell, NewCell, Picture, Specimen

FIELD_SIDE = 1280  # pixels of the longer side at most: what a screen shows of a field
LONE_CELL = 1 / 7  # of the width of a field, where there is no other cell to go by: 90 pixels of 640
CELL_SIDE = 360  # the same of a cell; an analyser's own pictures of cells have as many


class Examiner:
    """Takes in the pictures of one specimen, one after the other; from several threads they wait for each other.

    Attributes:
        specimen: What was found so far.
    """

    def __init__(self, predictor: Predictor, specimen: Specimen):
        self.specimen = specimen
        self._predictor = predictor
        self._fields = FieldIndex()
        self._lock = threading.Lock()

    def examine(self, image: Image.Image, name: str, *, is_field: bool) -> Picture:
        """Find the cells of a picture, classify them, and take all of it into the specimen.

        A cell that an earlier picture shows already, in an overlapping field or in the same file once more, is taken
        in as its copy, and not counted again.

        Args:
            image: RGB, as `read_image` gives it.
            name: The file's name.
            is_field: Whether to look for cells; else the whole picture is one.
        """
        with self._lock:
            found = find_cells(image) if is_field else [FoundCell((0, 0, *image.size), cut=False)]
            seen = [crop_cell(image, cell.box) if is_field else image for cell in found]
            predictions = self._predictor.predict(seen)
            copies = self._find_near_duplicates(image, [cell.box for cell in found])
            cells = [
                NewCell(cell.box, cell.cut, copies.get(index), prediction, _png(crop))
                for index, (cell, crop, prediction) in enumerate(zip(found, seen, predictions, strict=True))
            ]
            return self.specimen.add(name, image.size, _jpeg(image), cells, is_field=is_field)

    def examine_place(self, picture: int, x: float, y: float) -> Cell:
        """Take in a leucocyte that a person sees in a field and that was not found; it waits for their word.

        Its box is as wide as the others of the field, or as a leucocyte is where 640 pixels show a field. It is cut
        from the preview of the field, which is all that is kept, and is not looked for in other fields.

        Args:
            picture: Number of the field.
            x, y: Where the middle of the cell is, in pixels of the field.

        Raises:
            WbcError: No such field, a place outside it, or one within the box of a cell that was found.
        """
        fields = {field.number: field for field in self.specimen.pictures if field.is_field and not field.removed}
        if picture not in fields:
            raise WbcError(f"picture {picture}: is no field of this specimen, so that no cell was missed in it.")
        field = fields[picture]
        width, height = field.size
        cells = [cell for cell in self.specimen.cells if cell.picture == picture]
        if not (0 <= x < width and 0 <= y < height):
            raise WbcError(f"{x:g}, {y:g}: lies outside the field of {width} × {height} pixels.")
        for cell in cells:
            if cell.box[0] <= x < cell.box[2] and cell.box[1] <= y < cell.box[3]:
                raise WbcError(f"{x:g}, {y:g}: is cell {cell.number} already. Choose it and say what it is.")
        side = median([cell.box[2] - cell.box[0] for cell in cells] or [max(width, height) * LONE_CELL])
        box = (
            max(0, round(x - side / 2)),
            max(0, round(y - side / 2)),
            min(width, round(x + side / 2)),
            min(height, round(y + side / 2)),
        )
        with Image.open(io.BytesIO(field.preview)) as preview:
            scale = preview.width / width
            crop = crop_cell(preview.convert("RGB"), tuple(round(edge * scale) for edge in box))
        (prediction,) = self._predictor.predict([crop])
        # A person pointed at it: however sure the model is, it is they who say that it is a cell.
        pointed = replace(prediction, status="review") if prediction.status == "confident" else prediction
        return self.specimen.add_cell(picture, NewCell(box, False, None, pointed, _png(crop)))

    def _find_near_duplicates(self, image: Image.Image, boxes: Sequence[Box]) -> dict[int, int]:
        """By index of the box, the number of the cell that an earlier picture shows of the same leucocyte."""
        copies: dict[int, int] = {}
        for overlap in self._fields.add(image):
            # What the border of the earlier field cut off was not counted there, unless one before shows it too.
            earlier = [
                cell
                for cell in self.specimen.cells
                if cell.picture == overlap.earlier + 1
                and not cell.removed
                and (cell.copy_of is not None or not cell.cut)
            ]
            for new, old in match_cells(boxes, [cell.box for cell in earlier], overlap).items():
                copies.setdefault(new, earlier[old].copy_of or earlier[old].number)
        return copies


def _jpeg(image: Image.Image) -> bytes:
    return _encode(image, FIELD_SIDE, "JPEG", quality=88)


def _png(image: Image.Image) -> bytes:
    """Without loss: people may train on it."""
    return _encode(image, CELL_SIDE, "PNG", compress_level=3)


def _encode(image: Image.Image, side: int, form: str, **options: int) -> bytes:
    small, file = image.copy(), io.BytesIO()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small.save(file, form, **options)
    return file.getvalue()
