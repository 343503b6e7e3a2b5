"""What programs give to the endpoints: fields with descriptions and examples, and checks of what arrives.

Gradio passes on values of whatever types it was sent. The checks name the parameter and the value.
"""

import base64
import binascii
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import gradio as gr
from gradio.utils import get_upload_folder

from wbc_hf.errors import WbcError
from wbc_hf.reports import EXPORTS
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.web.uploads import MAX_FILES, Upload

SHOWN = FIELD, CELL = "field", "cell"  # by a picture
MAX_TEXT = 80  # characters, as in the fields of the page
FILE_URL = "/gradio_api/file="  # in the URL of an upload
HOW_TO_SEND = (
    "Give a picture with handle_file of gradio_client, as a data URL (data:image/png;base64,…), or by what "
    "/gradio_api/upload answers."
)

AnyComponent = TypeVar("AnyComponent", bound=gr.components.Component)

_META = {"_type": "gradio.FileData"}
# Gradio's own schema of a file, without the definitions that MCP clients look for elsewhere.
_FILE = {
    "title": "Picture",
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "meta": {"type": "object", "properties": {"_type": {"type": "string", "const": _META["_type"]}}},
    },
}
_CLASS = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_RECORD = {"type": "object", "additionalProperties": True}
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxdict, _REPR.maxlist, _REPR.maxstring, _REPR.maxlong = 2, 3, 3, 60, 30


# ---- fields


def pictures_field(example: str) -> gr.File:
    """Pictures, of which `example` is a file name."""
    return _file_field("Pictures", {"type": "array", "items": _FILE}, [_example_file(example)])


def record_answer(label: str, *, several: bool = False) -> gr.JSON:
    """Answer with one record, or with a list of them."""
    return _set_info(
        gr.JSON(label=label, visible=False), {"type": "array", "items": _RECORD} if several else _RECORD, None
    )


def describe(component: gr.components.Component, description: str) -> None:
    """Say in the list of endpoints, and to MCP clients, what a field or an answer is."""
    info = component.api_info() | {"description": description, "additional_description": description}
    _set_info(component, info, component.example_payload())


def _file_field(label: str, schema: dict[str, Any], example: object) -> gr.File:
    field = gr.File(label=label, file_count="multiple" if isinstance(example, list) else "single", visible=False)
    vars(field)["data_model"] = None  # or Gradio answers {"error": null} to whatever does not fit it
    return _set_info(field, schema, example)


def _set_info(component: AnyComponent, schema: dict[str, Any], example: object) -> AnyComponent:
    """Override two methods of one component: for a subclass, Gradio would write a file of types beside this one."""
    vars(component).update(api_info=lambda: schema, example_payload=lambda: example)
    return component


def _example_file(name: str) -> dict[str, Any]:
    return {"path": name, "url": name, "orig_name": name, "meta": _META}


def _text_field(label: str, example: str) -> gr.Textbox:
    return _set_info(gr.Textbox("", label=label, visible=False), {"type": "string"}, example)


def _choice_field(label: str, choices: Sequence[str]) -> gr.Radio:
    schema = {"type": "string", "enum": list(choices)}
    return _set_info(gr.Radio(list(choices), value=choices[0], label=label, visible=False), schema, choices[0])


def _number_field(label: str, kind: str, default: int, example: float) -> gr.Number:
    return _set_info(gr.Number(default, label=label, visible=False), {"type": kind}, example)


def _flag_field(label: str) -> gr.Checkbox:
    return _set_info(gr.Checkbox(False, label=label, visible=False), {"type": "boolean"}, True)


def _corrections_field() -> gr.JSON:
    schema = {"type": "object", "additionalProperties": _CLASS}
    return _set_info(gr.JSON({}, label="Corrections", visible=False), schema, {"3": "monocyte", "7": None})


# What programs and MCP clients are told of an argument, by its name. What may be left out has a default.
FIELDS: dict[str, Callable[[], gr.components.Component]] = {
    "picture": partial(_file_field, "Picture", _FILE, _example_file("cell.jpg")),
    "pictures": partial(pictures_field, "field.jpg"),
    "label": partial(_text_field, "Class", "monocyte"),
    "number": partial(_number_field, "How many", "integer", 5, 3),
    "form": partial(_choice_field, "Form", [export.key for export in EXPORTS]),
    "show": partial(_choice_field, "Show", SHOWN),
    "name": partial(_text_field, "Specimen", "S 17"),
    "leucocytes": partial(_number_field, "Leucocytes", "number", 0, 6.4),
    "corrections": _corrections_field,
    "reviewer": partial(_text_field, "Reviewer", "A. Meyer"),
    "laboratory": partial(_text_field, "Laboratory", "Ward 3"),
    "keep_cells": partial(_flag_field, "Keep the corrected cells"),
}


# ---- checks


def shown(value: object) -> str:
    """A value as messages quote it: short, and without characters that cannot be sent."""
    return _REPR.repr(value)


def check_text(name: str, value: object, longest: int = MAX_TEXT) -> str:
    """A text without spaces around it; "" for None.

    Raises:
        WbcError: Of another type, too long, or not made of whole characters.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise WbcError(f"{name}: {shown(value)} is not a text.")
    if len(value) > longest:
        raise WbcError(f"{name}: {shown(value)} has {len(value)} characters, at most {longest} are allowed.")
    if any("\ud800" <= letter <= "\udfff" or letter < " " for letter in value):
        raise WbcError(f"{name}: {shown(value)} holds a control character or half a character (a lone surrogate).")
    return value.strip()


def check_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """One of several words.

    Raises:
        WbcError: It is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise WbcError(f"{name}: {shown(value)} is not one of {', '.join(choices)}.")
    return value


def check_number(name: str, value: object) -> float | None:
    """A finite number, or None.

    Raises:
        WbcError: Of another type, also a number written as a text.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WbcError(f"{name}: {shown(value)} is not a number. Numbers are written without quotes, such as 6.4.")
    if not -1e300 < value < 1e300:
        raise WbcError(f"{name}: {shown(value)} is not a finite number.")
    return value


def check_whole_number(name: str, value: object, least: int, most: int) -> int:
    """A whole number in a range.

    Raises:
        WbcError: It is none.
    """
    number = check_number(name, value)
    if number is None or not least <= number <= most or number != math.floor(number):
        raise WbcError(f"{name}: {shown(value)} is not a whole number from {least} to {most}.")
    return int(number)


def check_flag(name: str, value: object) -> bool:
    """True or false; false for None.

    Raises:
        WbcError: It is neither.
    """
    if not isinstance(value, bool | None):
        raise WbcError(f"{name}: {shown(value)} is neither true nor false.")
    return bool(value)


def check_corrections(name: str, value: object) -> dict[int, str | None]:
    """Classes, still in any spelling, by number of the cell; None for none of the five.

    Raises:
        WbcError: Of another type, or with keys that are no numbers.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise WbcError(f'{name}: {shown(value)} does not give classes by number of the cell, as {{"3": "monocyte"}}.')
    corrections: dict[int, str | None] = {}
    for number, label in value.items():
        if not number.isdecimal() or len(number) > 9:
            raise WbcError(
                f"{name}: {shown(number)} is not the number of a cell. An earlier answer numbers the cells."
            )
        if not isinstance(label, str | None):
            raise WbcError(f"{name}: {shown(label)} is not a class by name, or null for none of the five.")
        corrections[int(number)] = label if label is None else check_text(name, label)
    return corrections


def check_picture(name: str, value: object) -> Upload:
    """One picture.

    Raises:
        WbcError: There is none, there is a list, or it is not a file that was sent.
    """
    if isinstance(value, list):
        raise WbcError(f"{name}: a list of {len(value)} was given, and one picture is expected.")
    return check_pictures(name, value)[0]


def check_pictures(name: str, value: object) -> list[Upload]:
    """Pictures; a single one counts as a list of one.

    Raises:
        WbcError: There is none, there are more than `MAX_FILES`, or one is not a file that was sent.
    """
    if value is None or value == []:
        raise WbcError(f"{name}: No file was given. {HOW_TO_SEND}")
    files = value if isinstance(value, list) else [value]
    if len(files) > MAX_FILES:
        raise WbcError(
            f"{len(files)} were given, at most {MAX_FILES} are answered at once: split them, or use `wbc-hf`"
        )
    return [_check_file(name, file, number) for number, file in enumerate(files, start=1)]


def _check_file(name: str, value: object, number: int) -> Upload:
    if isinstance(value, str):
        return _check_url(name, value, number)
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise WbcError(f"{name}: {shown(value)} is not a file. {HOW_TO_SEND}")
    # Gradio has made sure that a file is one that was uploaded, if and only if it is marked so.
    if value.get("meta") != _META:
        raise WbcError(f'{name}: {shown(value["path"])} lacks "meta": {{"_type": "gradio.FileData"}}. {HOW_TO_SEND}')
    file_name = check_text(name, value.get("orig_name"), longest=255)
    return Upload(value["path"], escape_surrogates(file_name or Path(value["path"]).name))


def _check_url(name: str, value: str, number: int) -> Upload:
    """A picture as a data URL, or by the URL of an upload, which is how MCP clients send it."""
    if value.startswith("data:"):
        try:
            return Upload(base64.b64decode(value.partition(",")[2], validate=True), f"picture {number}")
        except (binascii.Error, ValueError):
            raise WbcError(f"{name}: {shown(value)} is not a data URL in base64. {HOW_TO_SEND}") from None
    path = unquote(value.partition(FILE_URL)[2])
    if _is_upload(path):
        return Upload(path, escape_surrogates(Path(path).name))
    if path:
        raise WbcError(f"{name}: {shown(value)} is not an upload, or no longer here. {HOW_TO_SEND}")
    raise WbcError(f"{name}: {shown(value)} is a text, not a file. {HOW_TO_SEND}")


def _is_upload(path: str) -> bool:
    try:
        file = Path(path).resolve()
        return file.is_relative_to(Path(get_upload_folder()).resolve()) and file.is_file()
    except (OSError, ValueError):  # no possible path
        return False
