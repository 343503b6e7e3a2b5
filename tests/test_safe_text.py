"""Names that drive terminals, spreadsheets or encoders, where they leave the program."""

import csv
import io
import json
import logging
import sys
from datetime import datetime, timedelta

import pytest

from wbc_hf.safe_text import csv_cell, escape_surrogates, json_text, log_as_json, on_one_line, say, set_up_logging


def test_what_is_printed_moves_no_cursor_and_hides_no_line(capsys: pytest.CaptureFixture):
    say("a\x1b[31m.png\r\x9b2J \u202egpj \ud800\udcff\x00\n\tb")
    said = capsys.readouterr().out
    assert said == "a\\x1b[31m.png\\r\\x9b2J \\u202egpj \\ud800\\xff\\x00\n\tb\n"
    say("Ö 血 \u3000 한 e\u0301", error=True)
    assert capsys.readouterr().err == "Ö 血 \u3000 한 e\u0301\n"


def test_lines_of_a_table_end_as_they_do(capsys: pytest.CaptureFixture):
    say("a,b\r\n1,2\r\n")
    assert capsys.readouterr().out == "a,b\r\n1,2\r\n\n"


def test_a_name_forges_no_line():
    assert on_one_line("a\nb\tc\r\n") == "a\\nb\\tc\\r\\n"


def test_warnings_are_escaped_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    root = logging.Logger("root")
    monkeypatch.setattr(logging, "root", root)
    set_up_logging()
    root.warning("%s: skipped", "\x1b]0;title\x07.png")
    assert capsys.readouterr().err == "WARNING: \\x1b]0;title\\x07.png: skipped\n"


@pytest.mark.parametrize("sign", "=+-@＝＋－＠")
@pytest.mark.parametrize("before", ["", " ", "a;", "a; ", "\ufeff"])
def test_no_spreadsheet_finds_a_formula(sign: str, before: str):
    """Whichever sign it knows, and whether it was told of commas or of semicolons."""
    cell = str(csv_cell(f"{before}{sign}1"))
    assert not any(part.strip().startswith(sign) for part in cell.split(";"))
    assert cell.replace("'", "").replace("\\ufeff", "\ufeff") == f"{before}{sign}1"


@pytest.mark.parametrize("separator", "\t\n\r\x0b\x85\u2028")
def test_no_field_begins_within_a_text(separator: str):
    assert separator not in str(csv_cell(f"a{separator}=1"))


def test_numbers_and_plain_texts_stay():
    cells = [-1.5, 3, "", "a-b+c=d@e", "Ö. Yılmaz; 血液", "1 - 2"]
    assert list(map(csv_cell, cells)) == cells
    text = io.StringIO()
    csv.writer(text).writerow(map(csv_cell, cells))
    assert next(csv.reader(io.StringIO(text.getvalue()))) == list(map(str, cells))


def test_json_is_read_back_and_is_ascii_where_it_would_drive_a_terminal():
    value = {"a": ["\x1b[31m", "\x9b2J", "\ud800", "\u202e", "Ö 血", "\n"]}
    text = json_text(value, indent=1)
    assert json.loads(text) == value
    assert "Ö 血" in text and not any(letter in text for letter in "\x1b\x9b\ud800\u202e")
    with pytest.raises(ValueError, match="JSON compliant"):
        json_text(float("nan"))


def test_halves_of_characters_become_text():
    assert escape_surrogates("a\udcffb\ud83d") == "a\\xffb\\ud83d"
    assert escape_surrogates("Ö 🙂\x1b") == "Ö 🙂\x1b"


def test_a_log_in_json_has_an_object_a_line_and_no_message_of_an_error(capsys: pytest.CaptureFixture[str]):
    root = logging.getLogger()
    before, root.handlers = root.handlers, [logging.StreamHandler(sys.stderr)]
    try:
        log_as_json()
        name = "Smith S-4711.png"
        try:
            raise ValueError(name)
        except ValueError:
            logging.getLogger("wbc_hf.web").exception("first\nsecond \x1b[31m")
    finally:
        root.handlers = before
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["error"]) == ("ERROR", "wbc_hf.web", "ValueError")
    assert entry["message"] == "first\nsecond \x1b[31m"
    assert "test_safe_text.py" in entry["where"] and name not in line
    assert datetime.fromisoformat(entry["time"]).utcoffset() == timedelta(0)
