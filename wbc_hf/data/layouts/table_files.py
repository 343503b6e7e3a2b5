"""Read tables as spreadsheets save them: in several encodings, with several separators."""

import codecs
import io
import logging
import warnings
from pathlib import Path

import pandas as pd

from wbc_hf.errors import WbcError

logger = logging.getLogger(__name__)

SEPARATORS = ",;\t|"
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SAVE_ANEW = "Save it as CSV in UTF-8."


def read_table(path: Path) -> pd.DataFrame:
    """Read a table with a header: each value as text, as it is written, "" where there is none.

    It is in UTF-8, in UTF-16 with a byte order mark, or in Windows-1252, as Excel saves CSV in Western Europe; of the
    last a warning tells. It is separated by the one of `SEPARATORS` that its header has most of. An empty file is a
    table without columns.

    Raises:
        WbcError: It is in another encoding, is no table, or has a row of more fields than the header.
    """
    text = _read_text(path)
    header = next(iter(text.splitlines()), "")
    try:
        with warnings.catch_warnings():
            # Of a field beyond the header it warns, and leaves it out.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.StringIO(text),
                sep=max(SEPARATORS, key=header.count),
                dtype=str,
                keep_default_na=False,
                index_col=False,
            )
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (ValueError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        raise WbcError(f"{path}: cannot be read as a table ({reason}). {_SAVE_ANEW}") from error
    return table.fillna("").rename(columns=str.strip)


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WbcError(f"{path}: cannot be read ({error.strerror}).") from error
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in content:
        raise WbcError(f"{path}: cannot be read as a table (it holds zero bytes). {_SAVE_ANEW}")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise WbcError(f"{path}: cannot be read as a table (broken {encoding}). {_SAVE_ANEW}") from error
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        raise WbcError(
            f"{path}: cannot be read as a table (neither in UTF-8 nor in Windows-1252). {_SAVE_ANEW}"
        ) from error
    logger.warning(
        "%s: is not in UTF-8, and is read as Windows-1252. Where names look wrong, save it as CSV in UTF-8.", path
    )
    return text
