"""Reading what a visitor gave into their specimen, while the page shows how far it is."""

import math
from collections.abc import Sequence

from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.web.remarks import Remark, RemarkKind
from wbc_hf.web.session import Session
from wbc_hf.web.uploads import Upload, split_upload, unpack_upload

STOPPED = "Stopped: {read} of {given} photographs were read, with {cells} leucocytes that are counted or wait."


class Intake:
    """Reads uploads into a specimen, one after the other, until all are read, a goal is reached or somebody stops it.

    `run` takes long, and has a thread of its own: what the page sends in between would hold it up. The attributes may
    be looked at meanwhile.

    Args:
        session: Whose specimen it is.
        uploads: Pictures and ZIP files, and what could not be taken out of one.
        is_field: Whether each is a photograph of a smear, else of one cell; None finds out.
        goal: Number of leucocytes to stop at, or at its next multiple; None reads all.

    Attributes:
        given: The pictures, in their order, once ZIP files are unpacked.
        done: Number of these that were read or left out.
        read: Number of those that were read; each page of a TIFF file counts.
        remarks: What to know of single ones.
        note: Why others were not read; "" if all were. These are in `session.unread`.
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
        self.remarks: list[Remark] = []
        self.note, self.abandoned = "", False
        self._session, self._uploads, self._is_field = session, uploads, is_field
        self._enough = next_goal(session.leucocytes, goal)

    @property
    def current(self) -> str:
        """Name of the picture that is read now; "" where there is none."""
        return self.given[self.done].name if self.done < len(self.given) else ""

    def run(self) -> None:
        """Read the pictures."""
        for upload in self._uploads:
            self.given += [upload] if isinstance(upload, UnreadableImageError) else unpack_upload(upload)
        for index, found in enumerate(self.given):
            self._take(found)
            self.done = index + 1
            if left := self.given[self.done :] if self._is_enough else []:
                self._session.unread = left + self._session.unread
                cells = self._session.leucocytes
                self.note = STOPPED.format(read=self.done, given=len(self.given), cells=cells)
                return

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

    @property
    def _is_enough(self) -> bool:
        return self._is_stopped or self._session.leucocytes >= self._enough


def next_goal(leucocytes: int, goal: int | None) -> float:
    """The number of leucocytes to stop at: the next multiple of the goal, infinity without one."""
    return math.inf if goal is None else goal * (leucocytes // goal + 1)
