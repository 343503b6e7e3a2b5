"""Text that others wrote, such as names of files and classes, made safe for a terminal, a spreadsheet and UTF-8."""

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime

# Drive terminals (C0, C1), break lines, turn the text around them (Unicode TR 36), or are no characters but halves.
_CONTROLS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_UNSAFE = re.compile(f"[{_CONTROLS}]|\r(?!\n)")
_UNSAFE_ON_A_LINE = re.compile(f"[\t\n\r{_CONTROLS}]")
_SURROGATES = re.compile("[\ud800-\udfff]")

# A spreadsheet takes a field that begins with one of these for a formula (OWASP, "CSV Injection"). One that was told
# of semicolons begins a field after each of them, quoted or not.
_FORMULA = re.compile(r"(^|;)(\s*)(?=[=+\-@＝＋－＠])")


def say(text: str = "", *, error: bool = False, flush: bool = False) -> None:
    """Print on standard output or standard error; control characters other than tabs and line breaks are escaped.

    All commands print by this function: a name of a file can hold whatever moves the cursor of a terminal, renames its
    window or hides a line.
    """
    print(_UNSAFE.sub(_escape, text), file=sys.stderr if error else sys.stdout, flush=flush)


def set_up_logging() -> None:
    """Write warnings of this package and of others on standard error, with the same escapes."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler])


def log_as_json() -> None:
    """Write what is logged from now on as one JSON object a line: `time` (UTC), `level`, `logger`, `message`, `where`.

    `where` is the traceback of an error without its message, which may name what a visitor gave.
    """
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_JsonFormatter())


def on_one_line(text: str) -> str:
    """Escape tabs and line breaks too, so that a name cannot forge a line of its own."""
    return _UNSAFE_ON_A_LINE.sub(_escape, text)


def escape_surrogates(text: str) -> str:
    """Escape halves of characters: bytes of a file name that are no text, or what a program sent. UTF-8 has none."""
    return _SURROGATES.sub(_escape, text)


def csv_cell(value: object) -> object:
    """A value as a cell of a CSV file that people open in spreadsheets: on one line, and never a formula.

    An apostrophe goes before = + - @, also of full width, at the start of a text and after semicolons; a program that
    reads the file has to strip it. Numbers stay.
    """
    return _FORMULA.sub(r"\1\2'", on_one_line(value)) if isinstance(value, str) else value


def json_text(value: object, indent: int | None = None) -> str:
    """A value as JSON in readable letters; control characters and halves of characters are escaped.

    Raises:
        TypeError, ValueError: It does not go into JSON, NaN and infinity included.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _UNSAFE.sub(_escape, super().format(record))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.format_tb(record.exc_info[2])
            entry |= {"error": record.exc_info[0].__name__, "where": "".join(frames)}
        return json_text(entry)


def _escape(found: re.Match[str]) -> str:
    """`\\n`, `\\x1b`, `\\u202e`; a byte that was no text as that byte."""
    letter = found[0]
    if "\udc80" <= letter <= "\udcff":  # PEP 383
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape", "backslashreplace").decode()
