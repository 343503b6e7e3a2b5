"""Reading what a visitor gave into their specimen, while the page shows how far it is."""

import math
from collections.abc import Sequence
from pathlib import Path

from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.smear import (
    LEUCOCYTES,
    MEASURED,
    NO_PYRAMID,
    Slide,
    SlideMap,
    find_monolayer,
    map_of,
    open_slide,
    unread_fields,
)
from wbc_hf.web.remarks import Remark, RemarkKind
from wbc_hf.web.session import Session
from wbc_hf.web.slides import as_uploads, is_slide, not_opened
from wbc_hf.web.turns import turn
from wbc_hf.web.uploads import Upload, split_upload, unpack_upload

STOPPED = "Stopped: {read} of {given} photographs were read, with {cells} leucocytes that are counted or wait."
STOPPED_ON_SLIDE = (
    "{read} of {given} fields of the monolayer were read, with {cells} leucocytes that are counted or wait."
)
TWICE = "is in this specimen already. Read on there, or begin with “New specimen”"
ALL_READ = "is in this specimen already, and every field of its monolayer was read"


class Intake:
    """Reads uploads into a specimen, one after the other, until all are read, a goal is reached or somebody stops it.

    `run` takes long, and has a thread of its own: what the page sends in between would hold it up. The attributes may
    be looked at meanwhile.

    Args:
        session: Whose specimen it is.
        uploads: Pictures and ZIP files, and what could not be taken out of one.
        is_field: Whether each is a photograph of a smear, else of one cell; None finds out.
        goal: Number of leucocytes to stop at, or at its next multiple; None reads all photographs, and of a slide as
            many fields as `LEUCOCYTES` need.

    Attributes:
        given: The pictures, in their order, once ZIP files are unpacked.
        done: Number of these that were read or left out.
        read: Number of those that were read; each page of a TIFF file counts.
        look: While the monolayer of a slide is looked for: that in words, how many places were looked at, and of how
            many.
        remarks: What to know of single ones.
        notes: What to know of slides, and why pictures were not read, which are in `session.unread`.
        abandoned: Set it where nobody looks any more: `run` ends with the picture that it reads.
    """

    def __init__(
        self,
        session: Session,
        uploads: Sequence[Upload | UnreadableImageError],
        is_field: bool | None,
        goal: int | None,
    ):
        self.given: list[Upload | UnreadableImageError] = []
        self.done = self.read = 0
        self.look: tuple[str, int, int] | None = None
        self.remarks: list[Remark] = []
        self.notes: list[str] = []
        self.abandoned = False
        self._session, self._uploads, self._is_field = session, uploads, is_field
        self._of_slide = any(isinstance(it, Upload) and (it.field is not None or is_slide(it)) for it in uploads)
        self._enough = next_goal(session.leucocytes, LEUCOCYTES if goal is None and self._of_slide else goal)

    @property
    def current(self) -> str:
        """Name of the picture that is read now; "" where there is none."""
        return self.given[self.done].name if self.done < len(self.given) else ""

    def run(self) -> None:
        """Read the pictures."""
        given: list[Upload | UnreadableImageError] = []
        for upload in self._uploads:
            for found in [upload] if isinstance(upload, UnreadableImageError) else unpack_upload(upload):
                given += self._look_at(found) if isinstance(found, Upload) and is_slide(found) else [found]
        self.given = given
        if self._is_stopped and self._of_slide:
            self._stop_before(0)
            return
        for index, found in enumerate(self.given):
            self._take(found)
            self.done = index + 1
            enough = self._is_stopped or self._session.leucocytes >= self._enough
            if enough and self.done < len(self.given):
                self._stop_before(self.done)
                return

    def _stop_before(self, index: int) -> None:
        """Leave the pictures from there on for another time, and say so."""
        self._session.unread = self.given[index:] + self._session.unread
        said = STOPPED_ON_SLIDE if self._of_slide else STOPPED
        self.notes.append(said.format(read=index, given=len(self.given), cells=self._session.leucocytes))

    def _look_at(self, slide: Upload) -> list[Upload | UnreadableImageError]:
        """The fields of a slide's monolayer; what is wrong with it; or itself, where reading was stopped meanwhile."""
        try:
            return self._fields_of(slide)
        except _StoppedError:
            return [slide]
        except UnreadableImageError as error:
            return [error]
        except OSError as error:
            return [UnreadableImageError(slide.name, not_opened(error))]
        except WbcError as error:  # once, and not for each of its fields
            return [UnreadableImageError(slide.name, f"is not read. {error}")]
        finally:
            self.look = None

    def _fields_of(self, slide: Upload) -> list[Upload | UnreadableImageError]:
        specimen = self._session.specimen
        specimen.catch_up()  # others may have read of this slide
        self._session.check_room()
        opened = open_slide(Path(str(slide.source)), slide.name)
        if (known := _known(specimen.slides, opened)) is not None:
            return self._go_on(known, opened)

        def show(done: int, total: int) -> None:
            self.look = f"Looking for the monolayer of {slide.name}", done, total
            if self._is_stopped:
                raise _StoppedError

        who = self._session.visitor, self._session.key
        monolayer = find_monolayer(opened, progress=show, turn=lambda pixels: turn(pixels, who))
        specimen.add_slide(map_of(monolayer))
        if not opened.has_pyramid:
            self.notes.append(f"{slide.name} {NO_PYRAMID}.")
        if monolayer.measured:
            self.notes.append(f"{slide.name} {MEASURED.format(size=monolayer.pixel_size)}.")
        self.remarks += [Remark(RemarkKind.UNREADABLE, each.name, each.reason) for each in monolayer.unreadable]
        return list(as_uploads(monolayer.fields))

    def _go_on(self, known: SlideMap, slide: Slide) -> list[Upload | UnreadableImageError]:
        """The fields that were not read yet of a slide that is in the specimen, unless they wait to be read anyway."""
        unread = [it for it in self._session.unread if isinstance(it, Upload) and it.field is not None]
        if any(it.field is not None and it.field.slide.name == known.name for it in unread):
            return [UnreadableImageError(slide.name, TWICE)]
        slide.name = known.name
        fields = unread_fields(self._session.specimen, known, slide)
        return list(as_uploads(fields)) or [UnreadableImageError(slide.name, ALL_READ)]

    def _take(self, found: Upload | UnreadableImageError) -> None:
        """Read all pages of a picture; one for which there is no room is left out, with the reason."""
        self.read += isinstance(found, UnreadableImageError)
        for page in [found] if isinstance(found, UnreadableImageError) else split_upload(found):
            if isinstance(page, UnreadableImageError):
                self.remarks.append(Remark(RemarkKind.LEFT_OUT, page.name, page.reason))
                continue
            self.read += 1
            try:
                remark = self._session.read(page, is_field=self._is_field)
            except WbcError as error:
                remark = Remark(RemarkKind.LEFT_OUT, page.name, f"is not read. {error}")
            if remark:
                self.remarks.append(remark)
            if self._is_stopped:
                return

    @property
    def _is_stopped(self) -> bool:
        return self._session.stopped or self.abandoned


def _known(slides: Sequence[SlideMap], slide: Slide) -> SlideMap | None:
    """The slide as the specimen has it: by what is in its file, whatever its name is now, else by its name."""
    by_content = next((it for it in slides if it.digest == slide.digest), None)
    return by_content or next((it for it in slides if it.name == escape_surrogates(slide.name)), None)


class _StoppedError(Exception):
    """Somebody stopped the look at a slide."""


def next_goal(leucocytes: int, goal: int | None) -> float:
    """The number of leucocytes to stop at: the next multiple of the goal, infinity without one."""
    return math.inf if goal is None else goal * (leucocytes // goal + 1)
