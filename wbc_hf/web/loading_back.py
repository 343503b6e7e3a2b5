"""Load what "Everything (JSON)" wrote back into a visitor's session."""

from collections.abc import Sequence
from pathlib import Path

from wbc_hf.errors import WbcError
from wbc_hf.files import read_content
from wbc_hf.smear import MAX_DOCUMENT_BYTES, load_document
from wbc_hf.web.session import Session
from wbc_hf.web.uploads import Upload


def is_document(upload: Upload) -> bool:
    """Whether a file is to be loaded back: no picture is named so."""
    return upload.name.lower().endswith(".json") and isinstance(upload.source, str)


def load_back(session: Session, uploads: Sequence[Upload], who: str) -> str:
    """Load a document into a session that has no pictures yet, and show it.

    Args:
        session: The visitor's.
        uploads: What was given together.
        who: Name of the visitor, where it is known.

    Returns:
        What to tell the visitor.

    Raises:
        WbcError: There are several files, the session has pictures, or the file cannot be loaded.
    """
    if len(uploads) > 1:
        raise WbcError(f"{len(uploads)} files: one specimen is loaded at a time. Give one JSON file alone.")
    (upload,) = uploads
    if session.specimen.pictures:
        raise WbcError(f"{upload.name}: would be mixed with the specimen that is open. Press “New specimen” first.")
    try:
        content = read_content(Path(str(upload.source)), MAX_DOCUMENT_BYTES)
    except WbcError as error:
        raise WbcError(f"{upload.name}: {str(error).partition(': ')[2]}") from error
    specimen = session.new_specimen()
    model = load_document(content, upload.name, specimen, who)
    session.take(specimen)
    return f"{upload.name}: was counted by {model.name}, version {model.version}. Its reviews and history are here."
