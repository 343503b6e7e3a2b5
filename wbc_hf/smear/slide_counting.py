"""Count the leucocytes of a whole slide: find its monolayer, and read fields there until enough are found."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from wbc_hf.errors import UnreadableImageError
from wbc_hf.inference import Predictor
from wbc_hf.smear.cell import count_found
from wbc_hf.smear.counting import CellCounter
from wbc_hf.smear.differential import DEFAULT_RANGES, ReferenceRanges, check_leucocyte_count
from wbc_hf.smear.monolayer import FIELD_SIZE, Monolayer, SlideField, find_monolayer, lay_field
from wbc_hf.smear.slides import LARGEST_PIXEL, NO_PYRAMID, SMALLEST_PIXEL, Slide, open_slide
from wbc_hf.smear.snapshot import SlideMap, Snapshot
from wbc_hf.smear.specimen import Specimen

LEUCOCYTES = 200  # of a differential on a slide; laboratories count 100, 200 or 500


@dataclass(frozen=True)
class SlideReading:
    """What was read of a slide.

    Attributes:
        monolayer: Its fields.
        read: How many of them were read, or could not be.
        found: Leucocytes in the specimen that are counted or wait for review.
        interrupted: Whether the person interrupted it (Ctrl+C).
        notes: What to know of the slide, as second halves of sentences.
        unreadable: Fields that could not be read, and parts that the look could not read.
    """

    monolayer: Monolayer
    read: int
    found: int
    interrupted: bool
    notes: tuple[str, ...]
    unreadable: tuple[UnreadableImageError, ...]


def count_slide(
    path: str | Path,
    predictor: Predictor | None = None,
    *,
    leucocytes: int = LEUCOCYTES,
    ranges: ReferenceRanges = DEFAULT_RANGES,
    name: str = "",
    leucocyte_count: float | None = None,
) -> Snapshot:
    """Count the leucocytes of a whole slide: a differential of its monolayer with exact 95 % confidence limits.

    Args:
        path: As for `open_slide`.
        predictor: Classifier of single cells; the default model if None.
        leucocytes: Fields are read until so many are counted, or wait for review.
        ranges: Reference ranges in percent.
        name: The laboratory's identifier of the specimen.
        leucocyte_count: Total leucocyte count in 10⁹/l, for absolute counts.

    Returns:
        The differential, with the cells and their places, the slide, and in `unreadable` what could not be read.

    Raises:
        WbcError: `leucocyte_count` is outside 0 to 1000, there is no default model, or the extra "slides" is missing.
        UnreadableImageError: From `open_slide` and `find_monolayer`.

    Example:
        >>> from wbc_hf.smear import count_slide
        >>> snapshot = count_slide("smear.svs", leucocytes=200, name="S 17")
        >>> [snapshot.pictures[cell.picture - 1].place.on_slide(cell.box) for cell in snapshot.cells]
    """
    predictor = predictor or Predictor.from_pretrained()
    counter = CellCounter(predictor, Specimen(name, check_leucocyte_count(leucocyte_count)))
    reading = read_slide(counter, path, leucocytes=leucocytes)
    return replace(counter.specimen.snapshot(predictor.identity, ranges), unreadable=reading.unreadable)


def read_slide(
    counter: CellCounter,
    path: str | Path,
    *,
    leucocytes: int = LEUCOCYTES,
    field_size: tuple[int, int] | None = None,
    looking: Callable[[int, int], None] = lambda done, total: None,
    reading: Callable[[int, int, int], None] = lambda read, total, found: None,
) -> SlideReading:
    """Read fields of a slide's monolayer into a specimen until enough leucocytes are found.

    A field that cannot be read is left out, with the reason. KeyboardInterrupt (Ctrl+C) ends the reading of fields,
    and what was counted stays.

    Args:
        counter: For the cells.
        path: As for `open_slide`.
        leucocytes: How many are enough, counted or waiting for review.
        field_size: As for `find_monolayer`.
        looking: Called during the look for the monolayer: places looked at, and of how many.
        reading: Called after each field: fields read, of how many, and leucocytes found.

    Raises:
        WbcError: The extra "slides" is missing.
        UnreadableImageError: From `open_slide` and `find_monolayer`.
    """
    slide = open_slide(path)
    notes = [] if slide.has_pyramid else [NO_PYRAMID]
    monolayer = find_monolayer(slide, field_size=field_size, progress=looking)
    if monolayer.measured:
        notes.append(MEASURED.format(size=monolayer.pixel_size))
    counter.specimen.add_slide(map_of(monolayer))
    unreadable, read, interrupted = list(monolayer.unreadable), 0, False
    try:
        for read, field in enumerate(monolayer.fields, 1):
            try:
                counter.add_slide_field(field)
            except UnreadableImageError as error:
                unreadable.append(error)
            found = count_found(counter.specimen.cells)
            reading(read, len(monolayer.fields), found)
            if found >= leucocytes:
                break
    except KeyboardInterrupt:
        interrupted = True
    found = count_found(counter.specimen.cells)
    return SlideReading(monolayer, read, found, interrupted, tuple(notes), tuple(unreadable))


MEASURED = "does not say how wide a pixel is: measured by its red cells, {size:.3f} µm"


def map_of(monolayer: Monolayer) -> SlideMap:
    """The slide as a whole, with its chosen fields, for reports and the page."""
    file = io.BytesIO()
    monolayer.thumbnail.save(file, "JPEG", quality=85)
    slide = monolayer.slide
    cores = tuple(field.core for field in monolayer.fields)
    size, measured = monolayer.pixel_size, monolayer.measured
    return SlideMap(slide.name, slide.size, size, measured, file.getvalue(), cores, slide.digest)


NOT_KNOWN = "was kept without what tells it from other slides, so that reading cannot go on"
_ANOTHER = "is another slide than the one that the specimen was read from"
_UNFIT = "has other fields than this program chooses, so that reading cannot go on: begin a new specimen with it"


def unread_fields(specimen: Specimen, known: SlideMap, slide: Slide) -> tuple[SlideField, ...]:
    """The fields of a slide's monolayer that a specimen holds no picture of, in their order; those taken out are read.

    Args:
        specimen: That holds the slide, such as one that was loaded.
        known: The slide as the specimen has it.
        slide: The same slide, open, under the same name.

    Raises:
        UnreadableImageError: It is another slide, or nobody can tell; or its fields, which whoever wrote a document
            may have made up, are none that `find_monolayer` chooses.
    """
    if not known.digest:
        raise UnreadableImageError(slide.name, NOT_KNOWN)
    if known.digest != slide.digest or known.size != slide.size:
        raise UnreadableImageError(slide.name, _ANOTHER)
    size = slide.pixel_size or known.pixel_size
    if abs(size - known.pixel_size) > 1e-6 * size or not SMALLEST_PIXEL <= size <= LARGEST_PIXEL:
        raise UnreadableImageError(slide.name, _UNFIT)
    fields = [lay_field(slide, known.pixel_size, core, number) for number, core in enumerate(known.fields, 1)]
    if not all(_is_possible(field) for field in fields):
        raise UnreadableImageError(slide.name, _UNFIT)
    places = [it.place for it in specimen.pictures if it.place is not None and it.place.slide == known.name]
    read = {(place.x, place.y) for place in places}
    return tuple(field for field in fields if field.frame[:2] not in read)


def _is_possible(field: SlideField) -> bool:
    (x0, y0, x1, y1), (width, height) = field.core, field.slide.size
    inside = 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    return inside and all(side <= most + 1 for side, most in zip(field.size, FIELD_SIZE, strict=True))
