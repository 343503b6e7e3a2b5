"""Compare detectors on photographs in which people boxed the leucocytes."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from wbc_hf.data import Box, BoxedField, split_boxed_fields
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import DetectionFigures, detection_figures
from wbc_hf.smear import find_cells
from wbc_hf.survey.system import Detector, Published
from wbc_hf.survey.wang_2006 import Wang2006


class PageFinder(Detector):
    """The cell finder of the web page."""

    name = "page-finder"
    title = "Ours: the page's cell finder"
    published = Published(
        source="this repository, wbc_hf/smear/finder.py",
        cells="BCCD and four other sources",
        near_duplicates_apart=True,
    )

    def find_cells(self, field: Image.Image) -> list[Box]:
        return [cell.box for cell in find_cells(field)]


DETECTORS: dict[str, type[Detector]] = {detector.name: detector for detector in (Wang2006, PageFinder)}


@dataclass(frozen=True)
class DetectorRow(DetectionFigures):
    """Figures of one detector.

    Attributes:
        name: A key of `DETECTORS`.
        milliseconds: Median for a photograph, without reading it.
        boxes: Detections by name of the photograph.
    """

    name: str
    milliseconds: float
    boxes: dict[str, list[Box]]


def score_detectors(folder: Path) -> list[DetectorRow]:
    """Score every detector on the scoring half of a folder's photographs; settings were chosen on BCCD's tuning half.

    Args:
        folder: Photographs with boxes, as `split_boxed_fields` takes them.

    Raises:
        WbcError: The folder holds no photographs with boxes, or no leucocyte is boxed in that half of them.
    """
    fields = split_boxed_fields(folder)["scoring"]
    if not any(field.boxes for field in fields):
        raise WbcError(
            f"{folder}: no leucocyte is boxed in its scoring half ({len(fields)} photographs). Expected are objects "
            'of the name "WBC" in annotations/. Name a folder whose upper half by name has some.'
        )
    return [_score(detector(), fields) for detector in DETECTORS.values()]


def _score(detector: Detector, fields: list[BoxedField]) -> DetectorRow:
    boxes, seconds = {}, []
    for field in tqdm(fields, desc=detector.name, delay=2, leave=False):
        image = field.read()
        start = time.perf_counter()
        boxes[field.name] = detector.find_cells(image)
        seconds.append(time.perf_counter() - start)
    figures = detection_figures([field.boxes for field in fields], list(boxes.values()))
    return DetectorRow(
        **vars(figures),
        name=detector.name,
        milliseconds=1000 * statistics.median(seconds),
        boxes=boxes,
    )
