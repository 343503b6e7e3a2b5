"""Sign a differential: what should be looked at before, who stands for it, and what may be done afterwards."""

from datetime import UTC, datetime

from wbc_hf.errors import WbcError
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.smear.cell import CellState
from wbc_hf.smear.differential import ENOUGH_COUNTED
from wbc_hf.smear.history import Signature
from wbc_hf.smear.laboratory_check import LaboratoryCheck, Origin
from wbc_hf.smear.snapshot import Snapshot
from wbc_hf.smear.specimen import Specimen

MAX_COMMENT = 500  # characters


def open_points(snapshot: Snapshot, check: LaboratoryCheck) -> list[str]:
    """What a person should know before signing, a clause for each; empty where nothing stands against it.

    Args:
        snapshot: What is to be signed.
        check: Whether the model knows the laboratory that the pictures are from.
    """
    points = []
    waiting, total = len(snapshot.cells_in(CellState.WAITING)), snapshot.differential.total
    if waiting:
        wait = f"{waiting} cells wait for review and are" if waiting > 1 else "1 cell waits for review and is"
        points.append(f"{wait} not counted")
    if total < ENOUGH_COUNTED:
        points.append(f"{total} cells are counted, fewer than {ENOUGH_COUNTED}")
    if not snapshot.specimen:
        points.append("the specimen has no number or name")
    if check.origin in (Origin.ANOTHER, Origin.MIXED):
        points.append("the pictures do not look like those of a laboratory that the model knows")
    if not snapshot.reviewers:
        points.append("no person has reviewed any cell")
    return points


def sign(specimen: Specimen, points: list[str], name: str, comment: str = "", seen: int | None = None) -> None:
    """Sign a specimen: from then on it cannot be changed, only amended. Reviews without a name get that of the signer.

    Args:
        specimen: The specimen.
        points: What `open_points` said; the history keeps it.
        name: Who stands for it.
        comment: The reason, where points are open.
        seen: Number of the last event that the signer and the points know of; by default whatever there is.

    Raises:
        ChangedMeanwhileError: More was done since.
        WbcError: No name, points are open and no reason is given, or it is signed already.
    """
    name, comment = escape_surrogates(name.strip()), escape_surrogates(comment.strip())
    if not specimen.pictures:
        raise WbcError("There is nothing to sign: the specimen has no picture.")
    missing = [] if name else ["Whoever signs gives a name, under “Reviewed by”."]
    if points and not comment:
        missing.append(f"Give the reason why it is signed nevertheless: {'; '.join(points)}.")
    if missing:
        raise WbcError(" ".join(missing))
    if len(comment) > MAX_COMMENT:
        raise WbcError(f"The comment has {len(comment)} characters, at most {MAX_COMMENT} are kept.")
    known = f"known then: {'; '.join(points)}" if points else ""
    signature = Signature(name, datetime.now(UTC), comment)
    specimen.sign(signature, "; ".join(filter(None, (comment, known))), seen)


def amend(specimen: Specimen, name: str, reason: str) -> None:
    """Open a signed specimen again. The history keeps who signed it, and every report says that it was amended.

    Args:
        specimen: The specimen.
        name: Who opens it.
        reason: Why.

    Raises:
        WbcError: It is not signed, or a name or the reason is missing.
    """
    name, reason = name.strip(), reason.strip()
    if not name or not reason or len(reason) > MAX_COMMENT:
        raise WbcError(f"Amending takes a name, and a reason of at most {MAX_COMMENT} characters.")
    specimen.amend(name, reason)
