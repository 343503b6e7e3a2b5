"""Count the leucocytes in pictures of one smear: find, classify, and recognise what an earlier picture shows."""

import io
import logging
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from wbc_hf.data import WHOLE, Box, ImageSource, NamedSource, read_image, read_pixel_size, split_pages, unpack
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import Predictor
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.smear.cell import Cell, CellState
from wbc_hf.smear.cell_views import CellView, predict_cells, predict_crops
from wbc_hf.smear.change import ChangedMeanwhileError
from wbc_hf.smear.differential import DEFAULT_RANGES, ReferenceRanges, check_leucocyte_count
from wbc_hf.smear.finder import FoundCell, find_cells
from wbc_hf.smear.monolayer import SlideField
from wbc_hf.smear.overlaps import (
    FieldIndex,
    FieldKeyPoints,
    contain_each_other,
    describe_field,
    describe_preview,
    match_cells,
)
from wbc_hf.smear.picture_kind import PictureKind, kind_of_picture
from wbc_hf.smear.snapshot import Contents, Picture, Place, Snapshot
from wbc_hf.smear.specimen import Specimen

logger = logging.getLogger(__name__)

PREVIEW_SIDE = 1280  # pixels of the longer side at most: what a screen shows of a field
CROP_SIDE = 360  # the same of a cell; crops of analysers have as many
# Width of a missed cell in widths of its field, if that shows no other cell: 90 pixels of 640.
_MISSED_CELL = 1 / 7
_ATTEMPTS = 20  # to compare a picture between two that others add
# A field's key points are computed while its cells are found and classified, which takes as long.
_DESCRIBING = ThreadPoolExecutor(1, thread_name_prefix="key-points")


def count(
    images: Iterable[ImageSource],
    predictor: Predictor | None = None,
    *,
    ranges: ReferenceRanges = DEFAULT_RANGES,
    whole_fields: bool | None = True,
    name: str = "",
    leucocyte_count: float | None = None,
) -> Snapshot:
    """Count the leucocytes in images of one smear: a differential with exact 95 % confidence limits.

    Cells on which the model is not confident are not counted; they are in the result with state "waiting". A cell
    that two overlapping fields show is counted once, one that the border of a field cuts off never.

    Args:
        images: Of one specimen: paths, bytes of image files, PIL images, or uint8 arrays (height, width, 3) in RGB
            order. They are read one at a time.
        predictor: Classifier of single cells; the default model if None.
        ranges: Reference ranges in percent.
        whole_fields: Whether each image is a photograph of a smear; else it shows one cell. None finds out.
        name: The laboratory's identifier of the specimen.
        leucocyte_count: Total leucocyte count in 10⁹/l, for absolute counts.

    Returns:
        The differential, the cells and pictures, and in `unreadable` the images that could not be read or counted.

    Raises:
        WbcError: `leucocyte_count` is outside 0 to 1000, or there is no default model.

    Example:
        >>> from wbc_hf import count
        >>> snapshot = count(["field 1.jpg", "field 2.jpg"], name="S 17")
        >>> {share.label: share.percent for share in snapshot.differential.shares}
    """
    predictor = predictor or Predictor.from_pretrained()
    counter = CellCounter(predictor, Specimen(name, check_leucocyte_count(leucocyte_count)))
    unreadable = counter.add_images(images, whole_fields=whole_fields)
    return replace(counter.specimen.snapshot(predictor.identity, ranges), unreadable=unreadable)


class CellCounter:
    """Adds images to a specimen, one at a time; calls from several threads wait for each other.

    Others may add images to the specimen too: each is compared with all that are in it.

    Attributes:
        specimen: The pictures and cells so far.
        predictor: The model in use; `use` changes it.
    """

    def __init__(self, predictor: Predictor, specimen: Specimen):
        self.specimen = specimen
        self.predictor = predictor
        self._fields = FieldIndex()
        # Of the picture with each index in `_fields`; None for one that could not be counted.
        self._numbers: list[int | None] = []
        self._lock = threading.Lock()

    def add_images(
        self, images: Iterable[ImageSource | NamedSource], *, whole_fields: bool | None = True
    ) -> tuple[UnreadableImageError, ...]:
        """Add images one at a time, and return the errors of those that cannot be read or counted.

        All pages of a TIFF and all pictures in a ZIP file are added.

        Args:
            images: As for `count`; with a name, of which errors tell.
            whole_fields: Whether each is a photograph of a smear; else it shows one cell. None finds out.
        """
        unreadable = []
        for number, image in enumerate(images, 1):
            label = str(image) if isinstance(image, str | Path) else f"image {number}"
            source, label = (image.source, image.name) if isinstance(image, NamedSource) else (image, label)
            for part in _split(source, label):
                if isinstance(part, UnreadableImageError):
                    unreadable.append(part)
                    continue
                try:
                    picture, pixel_size = read_image(part.source, part.name), read_pixel_size(part.source)
                    self.add_image(picture, Path(part.name).name, whole_field=whole_fields, pixel_size=pixel_size)
                except UnreadableImageError as error:
                    unreadable.append(UnreadableImageError(part.name, error.reason))
        return tuple(unreadable)

    def add_image(
        self, image: Image.Image, name: str, *, whole_field: bool | None, pixel_size: float | None = None
    ) -> Picture:
        """Find and classify the cells of an image, and add them to the specimen.

        A cell that an earlier image shows too, in an overlapping field or because a file is given twice, is marked as
        its duplicate.

        Args:
            image: RGB, from `read_image`.
            name: File name.
            whole_field: Whether to look for cells; else the whole image is one. None finds out.
            pixel_size: Width of a pixel in µm, from `read_pixel_size`.

        Raises:
            UnreadableImageError: Its cells cannot be found or classified; the specimen stays as it was.
            WbcError: It cannot be kept, or the specimen was deleted.
        """
        self.specimen.catch_up()
        with self._lock, _failures_named(name):
            image.load()  # once, before two threads read it
            key_points = _DESCRIBING.submit(describe_field, image)
            found = find_cells(image)
            kind = kind_of_picture(found, image.size)
            if whole_field is None:
                whole_field = kind is not PictureKind.CELL
            if not whole_field:
                found = [FoundCell((0, 0, *image.size), cut=False)]
            boxes = [cell.box for cell in found]
            if whole_field:
                views = predict_cells(self.predictor, image, boxes)
            else:
                views = [CellView(image, predict_crops(self.predictor, [[image]])[0][0], (WHOLE,))]
            cells, preview = _make_cells(found, views), _encode_preview(image)
            picture = Picture(0, name, image.size, whole_field, preview, kind, pixel_size=pixel_size)
            described = key_points.result()

            def add() -> Picture:
                seen, duplicates, stand_ins = self._find_duplicates(described, boxes)
                marked = [replace(cell, duplicate_of=duplicates.get(index)) for index, cell in enumerate(cells)]
                added = self.specimen.add_picture(picture, marked, seen)
                self._numbers[-1] = added.number
                self.specimen.add_stand_ins(added.number, stand_ins)
                return added

            return _between_others(add)

    def add_slide_field(self, field: SlideField) -> Picture:
        """Read a field of a slide, find and classify its cells, and add them to the specimen.

        Only cells with their middle in its core are its own, and none that a field beside it has, so that none is
        counted twice where fields overlap. It is not compared with other pictures: its place is known. One that the
        specimen has already is not read again.

        Raises:
            UnreadableImageError: It cannot be read, or its cells cannot be found or classified; the specimen stays as
                it was.
            WbcError: It cannot be kept, or the specimen was deleted.
        """
        place = Place(escape_surrogates(field.slide.name), *field.frame[:2], field.scale)  # as the specimen has it
        self.specimen.catch_up()
        if (before := _at_place(self.specimen.pictures, place)) is not None:
            return before
        image = field.read()
        with self._lock, _failures_named(field.name):
            found = [cell for cell in find_cells(image) if field.owns(cell.box)]
            cells = _make_cells(found, predict_cells(self.predictor, image, [cell.box for cell in found]))
            preview, kind, size = _encode_preview(image), PictureKind.FIELD, field.pixel_size
            picture = Picture(0, field.name, image.size, True, preview, kind, pixel_size=size, place=place)

            def add() -> Picture:
                contents = self.specimen.contents
                if (before := _at_place(contents.pictures, place)) is not None:
                    return before
                known = _boxes_on(place.slide, contents)
                here = np.array([place.on_slide(cell.box) for cell in cells]).reshape(-1, 4)
                seen = contain_each_other(here, known)
                new = [cell for cell, of_cell in zip(cells, seen, strict=True) if not of_cell.any()]
                return self.specimen.add_picture(picture, new, len(contents.pictures))

            return _between_others(add)

    def add_missed_cell(self, picture: int, x: float, y: float, image: bytes | None = None, who: str = "") -> Cell:
        """Add a leucocyte that the finder missed and a person points at; it waits for review.

        It gets the median size of the other cells of the field, and is not compared with other fields.

        Args:
            picture: Number of the field.
            x: Horizontal centre of the cell in pixels of the field.
            y: Vertical centre.
            image: The field in full resolution, to cut the cell out of, as the bytes of a file. By default its
                preview, which is all that a specimen keeps.
            who: Whoever points at it.

        Raises:
            WbcError: No such field, a point outside it, or one within the box of a cell that was found.
        """
        fields = {field.number: field for field in self.specimen.pictures if field.is_field and not field.removed}
        if picture not in fields:
            raise WbcError(f"picture {picture}: is not a field of this specimen, so that no cell was missed in it.")
        field = fields[picture]
        cells = [cell for cell in self.specimen.cells if cell.picture == picture and not cell.removed]
        box = _box_around(x, y, field.size, cells)
        with Image.open(io.BytesIO(field.preview if image is None else image)) as opened:
            scale = opened.width / field.size[0]
            x0, y0, x1, y1 = (round(edge * scale) for edge in box)
            (view,) = predict_cells(self.predictor, opened.convert("RGB"), [(x0, y0, x1, y1)])
        crop = _encode_crop(view.image)
        return self.specimen.add_cell(
            picture, Cell(box, view.prediction, crop, pointed_at=True, framings=view.framings), who
        )

    def use(self, predictor: Predictor) -> None:
        """Predict all cells again, and those of further images, by another predictor; reviews stay.

        Args:
            predictor: Of a model adapted from the one before, so that it wants cells cut out alike.
        """
        with self._lock:
            self.predictor = predictor
            self.specimen.predict_again(predictor)

    def _add_fields_of_others(self, pictures: Iterable[Picture]) -> None:
        """Describe the pictures that were kept before, or others added, by their previews; no fields of slides."""
        known = set(self._numbers)
        for picture in (it for it in pictures if it.place is None and it.number not in known):
            self._fields.add(describe_preview(read_image(picture.preview, picture.name), picture.size))
            self._numbers.append(picture.number)

    def _find_duplicates(
        self, key_points: FieldKeyPoints, boxes: Sequence[Box]
    ) -> tuple[int, dict[int, int], dict[int, int]]:
        """By index of the box, the number of the cell in an earlier picture that is the same leucocyte.

        Returns:
            Number of the earlier pictures, the duplicates, and those that will be if a picture that was removed is put
            back.
        """
        duplicates: dict[int, int] = {}
        stand_ins: dict[int, int] = {}
        contents = self.specimen.contents
        self._add_fields_of_others(contents.pictures)
        overlaps = self._fields.add(key_points)
        self._numbers.append(None)
        for overlap in overlaps:
            # A cell that the border of the earlier field cuts off was not counted there.
            earlier = [
                cell
                for cell in contents.cells
                if cell.picture == self._numbers[overlap.earlier]
                and cell.state is not CellState.CUT
                and not (cell.removed and cell.cut and cell.review is None)
            ]
            for new, old in match_cells(boxes, [cell.box for cell in earlier], overlap).items():
                found = stand_ins if earlier[old].removed else duplicates
                found.setdefault(new, earlier[old].duplicate_of or earlier[old].number)
        stand_ins = {new: old for new, old in stand_ins.items() if new not in duplicates}
        return len(contents.pictures), duplicates, stand_ins


def _between_others(add: Callable[[], Picture]) -> Picture:
    """Add a picture that was compared with all before it; once more where others added one meanwhile."""
    for _ in range(_ATTEMPTS - 1):
        with suppress(ChangedMeanwhileError):
            return add()
    return add()


def _at_place(pictures: Iterable[Picture], place: Place) -> Picture | None:
    """The field that was read at a place of a slide."""
    wanted = place.slide, place.x, place.y
    found = ((it, it.place) for it in pictures)
    return next((it for it, at in found if at is not None and (at.slide, at.x, at.y) == wanted), None)


def _boxes_on(slide: str, contents: Contents) -> np.ndarray:
    """Boxes of the cells of a slide, in its pixels, (n, 4)."""
    places = {it.number: it.place for it in contents.pictures if it.place is not None and it.place.slide == slide}
    boxes = [places[cell.picture].on_slide(cell.box) for cell in contents.cells if cell.picture in places]
    return np.array(boxes).reshape(-1, 4)


def _make_cells(found: Sequence[FoundCell], views: Sequence[CellView]) -> list[Cell]:
    return [
        Cell(cell.box, view.prediction, _encode_crop(view.image), cell.cut, framings=view.framings)
        for cell, view in zip(found, views, strict=True)
    ]


def _split(image: ImageSource, label: str) -> Iterator[NamedSource | UnreadableImageError]:
    """Yield the pictures of a source, and what is left out of it."""
    for part in unpack(image, label):
        if isinstance(part, UnreadableImageError):
            yield part
        else:
            yield from split_pages(part.source, part.name)


@contextmanager
def _failures_named(name: str) -> Iterator[None]:
    """Turn any failure on one picture into an error that names it, so that the others of a specimen are counted."""
    try:
        yield
    except WbcError:
        raise
    except Exception as error:
        logger.exception("A picture cannot be counted")  # its name is said to the visitor, not to the log
        raise UnreadableImageError(
            name, f"its cells cannot be counted ({error!r}); the log has the details"
        ) from error


def _box_around(x: float, y: float, size: tuple[int, int], cells: Sequence[Cell]) -> Box:
    """A square around a point in a field of this size, as wide as the other cells, clipped to the field."""
    width, height = size
    if not (0 <= x < width and 0 <= y < height):
        raise WbcError(f"{x:g}, {y:g}: lies outside the field of {width} × {height} pixels.")
    for cell in cells:
        if cell.box[0] <= x < cell.box[2] and cell.box[1] <= y < cell.box[3]:
            raise WbcError(f"{x:g}, {y:g}: is cell {cell.number} already. Choose it and say what it is.")
    half = median([cell.box[2] - cell.box[0] for cell in cells] or [max(width, height) * _MISSED_CELL]) / 2
    return max(0, round(x - half)), max(0, round(y - half)), min(width, round(x + half)), min(height, round(y + half))


def _encode_preview(image: Image.Image) -> bytes:
    return _encode(image, PREVIEW_SIDE, "JPEG", quality=88)


def _encode_crop(crop: Image.Image) -> bytes:
    """PNG, without loss, since people may train on it."""
    return _encode(crop, CROP_SIDE, "PNG", compress_level=1, compress_type=zlib.Z_RLE)


def _encode(image: Image.Image, side: int, format: str, **options: int) -> bytes:
    small, file = image.copy(), io.BytesIO()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small.save(file, format, **options)
    return file.getvalue()
