"""A specimen as a document: what the export "Everything (JSON)" writes, and what loads it back.

Both ways have one schema: the records below, with the limits that a specimen's classes set. Who wrote a document is
not known, so numbers, texts and pictures are checked within limits before anything is made of them. What follows from
the rest, such as the differential, is written for other programs and not read.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Annotated, Any, Literal, Self

from PIL import Image, UnidentifiedImageError
from pydantic import (
    AfterValidator,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wbc_hf.errors import WbcError
from wbc_hf.files import check_json
from wbc_hf.inference import ModelIdentity, Prediction
from wbc_hf.labels import CLASS_NAMES, normalise_name
from wbc_hf.smear.cell import Cell, Review
from wbc_hf.smear.cell_types import MAX_TYPES, OTHER_COLOUR, CellType, Code, check_code, check_name
from wbc_hf.smear.history import About, Action, Event, Removal
from wbc_hf.smear.limits import MAX_EVENTS, MAX_TEXT, Number, Positive, Time
from wbc_hf.smear.picture_kind import PictureKind
from wbc_hf.smear.picture_store import KeptPicture, read_pictures
from wbc_hf.smear.snapshot import Contents, Picture, Place, SlideMap, Snapshot
from wbc_hf.smear.specimen import Specimen

FORMAT = 2
MAX_DOCUMENT_BYTES = 256 * 2**20  # of a document
MAX_PICTURES, MAX_CELLS = 1000, 20_000
MAX_SLIDES, MAX_FIELDS = 100, 100_000  # fields of one slide
_MOST_TYPES = 3 * MAX_TYPES  # of a laboratory's own, whose settings change
MAX_PICTURE_SIDE = 2000  # pixels of a preview or crop: more than any that is written
# Of all pictures together, more than 256 MiB hold of photographs: each of them is decoded.
MAX_PIXELS = 2 * 10**9
_LONGEST = 50  # times as long as wide may a crop be
_ADVICE = "Give a file that “Everything (JSON)” wrote, unchanged."


Side = Annotated[int, Field(ge=1, le=2**20)]
Edge = Annotated[int, Field(ge=-(2**21), le=2**21)]  # of a field, which may reach beyond its slide
Pixels = Annotated[Base64Bytes | None, Field(exclude_if=lambda content: content is None)]
Probability = Annotated[float, Field(ge=0, le=1.0001)]  # as processors round
Distance = Annotated[float, Field(ge=0, le=1e6)]
Share = Annotated[float, Field(ge=-10, le=10)]


class _Record(BaseModel):
    """Values of the types that are said, finite numbers; other keys are ignored."""

    model_config = ConfigDict(
        strict=True,
        extra="ignore",
        allow_inf_nan=False,
        frozen=True,
        validate_by_name=True,
        serialize_by_alias=True,
        str_max_length=MAX_TEXT,
    )


class CellTypeRecord(_Record):
    """A laboratory's own type of cell."""

    name: Annotated[str, AfterValidator(check_name)]
    leucocyte: bool
    in_leucocyte_count: bool = False
    colour: Annotated[str, Field(pattern="^#[0-9a-f]{6}$")] = OTHER_COLOUR
    code: Annotated[Code, AfterValidator(lambda code: check_code(vars(code)))] | None = None

    @classmethod
    def of(cls, own: CellType) -> Self:
        """Describe a type, without its key."""
        return cls.model_construct(**vars(own))

    def cell_type(self) -> CellType:
        """The type."""
        return CellType(**dict(self))


class ReviewRecord(_Record):
    """What a person says of a cell."""

    own: CellTypeRecord | None = None  # comes first: the class is checked by it
    label: str | None = Field(alias="class")
    reviewer: str
    time: Time

    @field_validator("label")
    @classmethod
    def _is_known(cls, label: str | None, info: ValidationInfo) -> str | None:
        own = info.data.get("own")
        if own is not None and label != own.name:
            raise ValueError(f"should be {own.name!r}, as in `own`")
        if own is None and label not in (None, *CLASS_NAMES):
            raise ValueError(f"should be null, one of {', '.join(CLASS_NAMES)}, or the name of `own`")
        return label

    @classmethod
    def of(cls, review: Review) -> Self:
        """Describe a review."""
        return cls.model_construct(**vars(review) | {"own": review.own and CellTypeRecord.of(review.own)})

    def review(self) -> Review:
        """The review."""
        return Review(self.label, self.reviewer, self.time, None if self.own is None else self.own.cell_type())


class PredictionRecord(_Record):
    """What the model says of a cell."""

    label: str = Field(alias="class")
    probability: Probability
    status: Literal["confident", "review", "unfamiliar", "not_a_cell", "uncalibrated"]
    probabilities: Annotated[dict[str, Probability], Field(max_length=1000)]
    distance: Distance | None = None
    laboratory_distance: Distance | None = None

    @classmethod
    def of(cls, prediction: Prediction) -> Self:
        """Describe a prediction."""
        probabilities = {prediction.label: prediction.probability} | dict(prediction.alternatives)
        return cls.model_construct(**vars(prediction), probabilities=probabilities)

    def prediction(self) -> Prediction:
        """The prediction."""
        others = tuple((label, value) for label, value in self.probabilities.items() if label != self.label)
        return Prediction(self.label, self.probability, others, self.status, self.distance, self.laboratory_distance)


class CellRecord(_Record):
    """One cell. `image` is its crop as a PNG file, in base64."""

    number: Number
    picture: Number
    box: tuple[int, int, int, int]
    cut: bool
    duplicate_of: Number | None
    prediction: PredictionRecord
    review: ReviewRecord | None
    removed: bool
    pointed_at: bool
    framings: Annotated[tuple[tuple[Share, Share, Share, Share], ...], Field(min_length=1, max_length=16)]
    image: Pixels = None

    @classmethod
    def of(cls, cell: Cell, image: bytes | None = None) -> Self:
        """Describe a cell, with its crop or without."""
        prediction, review = PredictionRecord.of(cell.prediction), cell.review and ReviewRecord.of(cell.review)
        return cls.model_construct(**vars(cell) | {"prediction": prediction, "review": review, "image": image})

    def cell(self, crop: Any) -> Cell:
        """The cell, with its crop: bytes, or where they lie."""
        values = {name: value for name, value in self if name != "image"}
        values["prediction"], values["review"] = self.prediction.prediction(), self.review and self.review.review()
        return Cell(**values, crop=crop)


class SlideRecord(_Record):
    """One slide as a whole. `thumbnail` is a JPEG file, in base64."""

    name: str
    width: Side
    height: Side
    pixel_size: Positive
    measured: bool
    fields: Annotated[tuple[tuple[Edge, Edge, Edge, Edge], ...], Field(max_length=MAX_FIELDS)]
    digest: Annotated[str, Field(max_length=100)] = ""
    thumbnail: Pixels = None

    @classmethod
    def of(cls, slide: SlideMap, thumbnail: bytes | None = None) -> Self:
        """Describe a slide, with its thumbnail or without."""
        width, height = slide.size
        return cls.model_construct(**vars(slide), width=width, height=height, thumbnail=thumbnail)

    def slide(self, small: Any) -> SlideMap:
        """The slide, with its thumbnail: bytes, or where they lie."""
        size = self.width, self.height
        return SlideMap(self.name, size, self.pixel_size, self.measured, small, self.fields, self.digest)


class PictureRecord(_Record):
    """One picture. `preview` is a JPEG file of its size or smaller, in base64."""

    number: Number
    name: str
    width: Side
    height: Side
    is_field: bool
    kind: PictureKind
    removed: bool
    pixel_size: Positive | None
    place: Place | None = None
    stand_ins: Annotated[dict[Number, Number], Field(max_length=MAX_CELLS)] = {}
    went: Annotated[tuple[Number, ...], Field(max_length=MAX_CELLS)] = ()
    preview: Pixels = None

    @classmethod
    def of(cls, picture: Picture, removal: Removal | None = None, preview: bytes | None = None) -> Self:
        """Describe a picture, and what went with it where it was taken out."""
        width, height = picture.size
        went = {"stand_ins": dict(removal.stand_ins), "went": tuple(sorted(removal.went))} if removal else {}
        return cls.model_construct(**vars(picture) | went, preview=preview, width=width, height=height)

    def picture(self, small: Any) -> Picture:
        """The picture, with its preview: bytes, or where they lie."""
        return Picture(
            self.number,
            self.name,
            (self.width, self.height),
            self.is_field,
            small,
            self.kind,
            self.removed,
            self.pixel_size,
            self.place,
        )

    def removal(self) -> Removal | None:
        """What went with it; None where it was not taken out."""
        return Removal(self.stand_ins, frozenset(self.went)) if self.removed else None


class Document(_Record):
    """A specimen as a whole."""

    format: Literal[2]
    about: About
    model: ModelIdentity
    slides: Annotated[tuple[SlideRecord, ...], Field(max_length=MAX_SLIDES)] = ()
    pictures: Annotated[tuple[PictureRecord, ...], Field(max_length=MAX_PICTURES)]
    cells: Annotated[tuple[CellRecord, ...], Field(max_length=MAX_CELLS)]
    history: Annotated[tuple[Event, ...], Field(max_length=MAX_EVENTS)]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for title, records in (("pictures", self.pictures), ("cells", self.cells), ("history", self.history)):
            if [record.number for record in records] != list(range(1, len(records) + 1)):
                raise ValueError(f"{title} should be numbered 1, 2, 3 and so on")
        cells, pictures = len(self.cells), len(self.pictures)
        for cell in self.cells:
            _check_cell(cell, self.pictures, cells)
        _check_types(self.cells)
        slides = {slide.name for slide in self.slides}
        if len(slides) < len(self.slides):
            raise ValueError("slides should have different names")
        for picture in self.pictures:
            if picture.place is not None and picture.place.slide not in slides:
                raise ValueError(f"picture {picture.number}: its slide {picture.place.slide!r} is not here")
            named = {*picture.went, *picture.stand_ins, *picture.stand_ins.values()}
            if max(named, default=0) > cells:
                raise ValueError(f"picture {picture.number}: cell {max(named)} is not one of the {cells}")
            if any(self.cells[cell - 1].picture != picture.number for cell in picture.went):
                raise ValueError(f"picture {picture.number}: a cell of another picture cannot have gone with it")
        amended = sum(event.action is Action.AMENDED for event in self.history)
        if self.about.amended > amended:
            raise ValueError(f"amended is {self.about.amended}, and the history says so {amended} times")
        for event in self.history:
            if (event.cell or 0) > cells or (event.picture or 0) > pictures:
                raise ValueError(f"event {event.number}: is about a cell or picture that is not here")
        return self


def _check_types(cells: Sequence[CellRecord]) -> None:
    """Check that each name is that of one type, in any spelling: two of a name would be two lines of a report."""
    types = dict.fromkeys(it.review.own for it in cells if it.review is not None)
    if len(types) > _MOST_TYPES:
        raise ValueError(f"cells should be of at most {_MOST_TYPES} types beyond the five")
    known: dict[str, CellType] = {}
    for record in types:
        if record is not None:
            own = record.cell_type()
            if known.setdefault(normalise_name(own.name), own) != own:
                raise ValueError(f"type {own.name!r} should be the same in all cells: how it is spelt and counted")


def _check_cell(cell: CellRecord, pictures: Sequence[PictureRecord], count: int) -> None:
    if cell.picture > len(pictures):
        raise ValueError(f"cell {cell.number}: picture {cell.picture} is not one of the {len(pictures)}")
    picture, (x0, y0, x1, y1) = pictures[cell.picture - 1], cell.box
    if not (0 <= x0 < x1 <= picture.width and 0 <= y0 < y1 <= picture.height):
        raise ValueError(f"cell {cell.number}: box {cell.box} lies outside its picture")
    if cell.duplicate_of is not None and (cell.duplicate_of > count or cell.duplicate_of == cell.number):
        raise ValueError(f"cell {cell.number}: cannot be cell {cell.duplicate_of} again")


def describe_snapshot(snapshot: Snapshot, *, pictures: bool) -> dict[str, Any]:
    """Describe a snapshot as a document: what `load_document` reads if it is complete.

    Args:
        snapshot: The specimen.
        pictures: Whether previews and crops are to be in it, in base64: `complete` is true then. They are left out
            where they are more than would be loaded back.
    """
    fits = len(snapshot.pictures) <= MAX_PICTURES and len(snapshot.cells) <= MAX_CELLS
    fits = fits and len(snapshot.slides) <= MAX_SLIDES
    pictures = pictures and fits and 4 / 3 * _size(snapshot) <= 0.9 * MAX_DOCUMENT_BYTES

    def read(small: Iterable[bytes | KeptPicture]) -> Iterable[bytes | None]:
        return read_pictures(small) if pictures else repeat(None)

    previews, crops = read(it.small for it in snapshot.pictures), read(it.crop for it in snapshot.cells)
    document = Document.model_construct(
        about=snapshot.about,
        model=snapshot.model,
        slides=tuple(SlideRecord.of(it, it.thumbnail if pictures else None) for it in snapshot.slides),
        pictures=tuple(
            PictureRecord.of(it, snapshot.removals.get(it.number), preview)
            for it, preview in zip(snapshot.pictures, previews, strict=False)
        ),
        cells=tuple(CellRecord.of(it, crop) for it, crop in zip(snapshot.cells, crops, strict=False)),
        history=snapshot.history,
    )
    return {"format": FORMAT, "complete": pictures} | document.model_dump(mode="json")


def load_document(content: bytes, name: str, specimen: Specimen, who: str = "") -> ModelIdentity:
    """Load a document into a new specimen.

    Its signature does not come along, since nobody can tell whether it is one: the history says who signed, and that
    all of this comes from a file.

    Args:
        content: Of the file.
        name: Of the file, for messages.
        specimen: A new one, which is filled.
        who: Whoever loads it.

    Returns:
        The model that predicted the cells.

    Raises:
        WbcError: It is no such document, is too large, or holds no pictures. Nothing is loaded then.
    """
    if len(content) > MAX_DOCUMENT_BYTES:
        raise WbcError(f"{name}: is larger than {MAX_DOCUMENT_BYTES // 2**20} MiB, the most that is loaded back.")
    document = check_json(content, Document, name, _ADVICE)
    model = document.model if document.about.model is None else document.about.model
    small = [(it.preview, "JPEG", f"{name}: picture {it.number}") for it in document.pictures]
    small += [(it.image, "PNG", f"{name}: cell {it.number}") for it in document.cells]
    small += [(it.thumbnail, "JPEG", f"{name}: slide {it.name}") for it in document.slides]
    _check_pictures(small, name)
    contents = Contents(
        replace(document.about, signature=None, model=model, second_of=""),
        tuple(it.picture(it.preview) for it in document.pictures),
        tuple(it.cell(it.image) for it in document.cells),
        {it.number: removal for it in document.pictures if (removal := it.removal()) is not None},
        document.history,
        tuple(it.slide(it.thumbnail) for it in document.slides),
    )
    specimen.load(contents, who, name)
    return model


def _size(snapshot: Snapshot) -> int:
    small = [it.small for it in snapshot.pictures] + [it.small for it in snapshot.slides]
    return sum(map(len, small)) + sum(len(it.crop) for it in snapshot.cells)


def _check_pictures(pictures: Sequence[tuple[bytes | None, str, str]], name: str) -> None:
    """Check that pictures can be decoded, each content once, after all sizes are known.

    Args:
        pictures: Content, format, and what messages call it.
        name: Of the file.
    """
    places: dict[tuple[bytes, str], str] = {}
    for content, format, place in pictures:
        if content is None:
            raise WbcError(f"{place}: has no pixels in this file: it was written without, or there were too many.")
        places.setdefault((content, format), place)
    sizes = (_open(content, format, place, lambda it: it.size) for (content, format), place in places.items())
    pixels = sum(width * height for width, height in sizes)
    if pixels > MAX_PIXELS:
        raise WbcError(
            f"{name}: its pictures have {pixels / 1e6:,.0f} million pixels, and at most {MAX_PIXELS / 1e6:,.0f} are "
            "loaded back."
        )
    for (content, format), place in places.items():
        _open(content, format, place, Image.Image.load)


def _open(content: bytes, format: str, place: str, use: Callable[[Image.Image], Any]) -> Any:
    """Open a small picture, within limits, and use it."""
    try:
        with Image.open(io.BytesIO(content), formats=[format]) as image:
            if max(image.size) > MAX_PICTURE_SIDE:
                raise WbcError(f"{place}: has {image.width} × {image.height} pixels, more than {MAX_PICTURE_SIDE}.")
            if format == "PNG" and max(image.size) > _LONGEST * min(image.size):
                raise WbcError(f"{place}: has {image.width} × {image.height} pixels, a strip that no report can show.")
            return use(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise WbcError(f"{place}: is no {format} picture that can be read. {_ADVICE}") from error
