"""Read boxes: text files of YOLO, XML of Pascal VOC, JSON of COCO."""

import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import TypeVar, cast
from xml.etree import ElementTree

import numpy as np
import yaml

from wbc_hf.data.framing import Box
from wbc_hf.data.reading import read_image
from wbc_hf.errors import WbcError

logger = logging.getLogger(__name__)

Label = TypeVar("Label")

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
CLASS_FILES = ("classes.txt", "obj.names")


def read_yolo(path: Path, photograph: Path) -> list[tuple[int, Box]]:
    """Read the boxes of one photograph from a text file of YOLO, each with the number of its class.

    Raises:
        WbcError: The file is not there, or not of that form.
        UnreadableImageError: The photograph, by whose sides the boxes are given, cannot be read.
    """
    width, height = read_image(photograph).size
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        numbers = [int(row[0]) for row in rows]
        values = np.array([row[1:5] for row in rows], float).reshape(-1, 4)
    except (FileNotFoundError, ValueError, IndexError) as error:
        raise WbcError(
            f"{path}: boxes cannot be read ({error}). Expected are lines of class, centre x, y, width, height in "
            "shares of the photograph. Mend it or remove its photograph."
        ) from error
    centres, halves = values[:, :2] * (width, height), values[:, 2:] * (width, height) / 2
    corners = np.hstack([centres - halves, centres + halves]).round().astype(int).tolist()
    return _with_area(path, [(number, tuple(box)) for number, box in zip(numbers, corners, strict=True)])


def read_yolo_classes(path: Path) -> list[str]:
    """Read the names of YOLO's classes by their numbers, from a text file of a name a line or from `data.yaml`.

    Raises:
        WbcError: The file cannot be read, or holds no names.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yaml", ".yml"):
            names = yaml.safe_load(text)["names"]
            return [str(names[number]) for number in range(len(names))]
        return [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise WbcError(f"{path}: the names of the classes cannot be read ({reason}).") from error


def read_voc(path: Path) -> list[tuple[str, Box]]:
    """Read the boxes of one photograph from XML of Pascal VOC, each with the name of its class.

    Raises:
        WbcError: The file is not there, or not of that form.
    """
    try:
        boxes = []
        for one in ElementTree.parse(path).iter("object"):
            corners = tuple(round(float(one.findtext(f"bndbox/{corner}", ""))) for corner in _CORNERS)
            boxes.append((one.findtext("name", "").strip(), cast(Box, corners)))
    except (FileNotFoundError, ElementTree.ParseError, ValueError) as error:
        raise WbcError(
            f"{path}: boxes cannot be read ({error}). Expected is XML of Pascal VOC. Mend it or remove its photograph."
        ) from error
    return _with_area(path, boxes)


def read_coco(path: Path) -> dict[str, list[tuple[str, Box]]] | None:
    """Read the boxes of photographs from JSON of COCO: for each file name, each box with the name of its class.

    Returns:
        None where a file has not the keys of COCO.

    Raises:
        WbcError: It has them and is not of that form.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return None
    if not (isinstance(content, dict) and content.keys() >= {"images", "annotations", "categories"}):
        return None
    try:
        classes = {each["id"]: str(each["name"]) for each in content["categories"]}
        boxes: dict[int, list[tuple[str, Box]]] = defaultdict(list)
        for each in content["annotations"]:
            x, y, width, height = map(float, each["bbox"])
            corners = (round(x), round(y), round(x + width), round(y + height))
            boxes[each["image_id"]].append((classes[each["category_id"]], corners))
        return {str(each["file_name"]): _with_area(path, boxes[each["id"]]) for each in content["images"]}
    except (ValueError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise WbcError(f"{path}: boxes cannot be read ({reason}). Expected is JSON of COCO.") from error


def _with_area(path: Path, boxes: list[tuple[Label, Box]]) -> list[tuple[Label, Box]]:
    """The boxes without those that have no area, as of a slip of the mouse; each of these is a warning."""
    kept = []
    for label, box in boxes:
        if box[0] < box[2] and box[1] < box[3]:
            kept.append((label, box))
        else:
            logger.warning("%s: the box %s (left, top, right, bottom) has no area and is left out.", path, box)
    return kept
