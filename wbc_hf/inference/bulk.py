"""Bulk prediction: classify very many images on Ray Data, resumable after a kill, on one machine or a cluster."""

import csv
import hashlib
import io
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import dataset

from wbc_hf.data import ImageSource
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.files import open_atomically
from wbc_hf.hub import fetch_model
from wbc_hf.inference.jobs import Job, check_ray, ray_session, run_as_actor
from wbc_hf.inference.prediction_rows import NUMBER, check_columns, describe_left_out
from wbc_hf.inference.predictor import Prediction, Predictor
from wbc_hf.inference.sources import PARQUET_SUFFIX, ImagePlace, ImageSources, open_images
from wbc_hf.modeling import Calibration
from wbc_hf.safe_text import csv_cell, escape_surrogates

UNREADABLE = "unreadable"
PREDICTIONS = "predictions"
# Images whose predictions are written together: a killed actor loses at most as many.
AT_ONCE = 1000
CHANGES = {
    "images": "other images: paths, files that came, went or changed since, or another commit of a Hub set",
    "model": "another model ({before}, this one is {now})",
    "calibration": "another wbc.json, with other thresholds ({before}, this one is {now})",
    "backend": "another backend, whose figures differ a little ({before}, this one is {now})",
    "export": "another export of the model, by when it was made ({before}, this one is {now})",
    "software": "another version of this package ({before})",
}


@dataclass(frozen=True)
class BulkSummary:
    """Summary of a bulk prediction.

    Attributes:
        images: Number of images, unreadable ones included.
        unreadable: Number of those that could not be read.
    """

    images: int
    unreadable: int


def describe_model(model: str) -> dict[str, Any]:
    """What predictions of a model depend on, for the manifest of a job; as it is where this runs.

    Raises:
        WbcError: The model cannot be loaded.
    """
    return _describe(Predictor.from_pretrained(model))


def load_described(model: str, described: dict[str, Any]) -> Predictor:
    """Load a model where an actor runs.

    Raises:
        WbcError: It is another one there.
    """
    predictor = Predictor.from_pretrained(model)
    if (here := _describe(predictor)) != described:
        raise WbcError(
            f"{model}: is another one on the node {platform.node()} ({here}) than on the first ({described}). Give "
            "all nodes the same folder, package and hardware."
        )
    return predictor


def _describe(predictor: Predictor) -> dict[str, Any]:
    return {
        "labels": list(predictor.labels),
        "model": predictor.identity.version,
        "calibration": _digest_calibration(predictor.calibration),
        "backend": predictor.backend.name,
        "export": predictor.export.made if predictor.export else "none",
        "software": predictor.identity.software,
    }


def predict_many(
    sources: Sequence[str], model: str, output: Path, *, as_csv: bool = False, address: str | None = None
) -> BulkSummary:
    """Classify every image of the sources exactly once, into Parquet files; resume where an earlier run stopped.

    Args:
        sources: See `ImageSources`.
        model: Model folder, or the id of a model on the Hub; every node of a cluster has to reach it.
        output: A new folder, or one to resume; all nodes have to see it. `predictions/*.parquet` in it get the columns
            `number` (place in the order of the sources), `file`, `label`, `probability`, `status`, one for each class
            and `reason`. An unreadable image has that status, and a reason.
        as_csv: Also write all rows in order into `predictions.csv`.
        address: See `ray_session`.

    Raises:
        WbcError: Ray is missing; sources, model or output cannot be used, or differ from those that this output was
            begun with.
    """
    model = check_bulk(sources, model, output, address)
    job = Job(output)
    images = ImageSources(sources)
    with job.prepared((place.as_row() for place in images), ImagePlace.SCHEMA, AT_ONCE), ray_session(address):
        described = run_as_actor(partial(describe_model, model))
        check_columns(described["labels"])
        job.claim({"images": images.digest, **described}, CHANGES)
        job.run(_Actor, PREDICTIONS, model=model, described=described)
    if as_csv:
        write_csv(output)
    job.finish()
    found = dataset.dataset(output / PREDICTIONS, format="parquet")
    return BulkSummary(job.count, found.count_rows(filter=dataset.field("status") == UNREADABLE))


def check_bulk(sources: Sequence[str], model: str, output: Path, address: str | None = None) -> str:
    """Check what a bulk job is given before anything is read; return the model's absolute path, or its Hub id.

    Raises:
        WbcError: Ray is not installed; there is no such model; the output has the name of a file, or lies in a source.
    """
    if output.suffix in (".csv", PARQUET_SUFFIX) and not output.is_dir():
        raise WbcError(
            f"--output {output}: results are written to a folder. Name one, such as {output.with_suffix('')}; with "
            "--format csv, `predict` joins its predictions in a file there."
        )
    for source in sources:
        folder = Path(source).expanduser()
        if folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
            raise WbcError(
                f"--output {output}: lies in {source}, whose files are all taken for images. Name a folder outside of "
                f"{source}."
            )
    fetch_model(model)
    check_ray(address)
    return str(Path(model).absolute()) if Path(model).is_dir() else model


class _Actor:
    def __init__(self, model: str, described: dict[str, Any]):
        self._predictor = load_described(model, described)
        classes = [(label, pa.float32()) for label in self._predictor.labels]
        texts = [(NUMBER, pa.int64()), ("file", pa.string()), ("label", pa.string())]
        columns = [*texts, ("probability", pa.float32()), ("status", pa.string()), *classes, ("reason", pa.string())]
        self._schema = pa.schema(columns)

    def __call__(self, rows: pa.Table) -> pa.Table:
        found: list[dict[str, Any]] = []

        def sources() -> Iterator[ImageSource | None]:
            """The images; keeps what goes into their rows, and not their bytes."""
            images = open_images(map(ImagePlace.from_row, rows.to_pylist()))
            for number, image in zip(rows[NUMBER].to_pylist(), images, strict=True):
                row = {NUMBER: number, "file": escape_surrogates(image.name)}
                if isinstance(image, UnreadableImageError):
                    found.append(row | _columns_of(image))
                    yield None
                else:
                    found.append(row | {"reason": describe_left_out(image.source)})
                    yield image.source

        for place, prediction in enumerate(self._predictor.predict_each(sources())):
            if "status" not in found[place]:
                found[place] |= _columns_of(prediction)
        return pa.Table.from_pylist(found, self._schema)


def _columns_of(prediction: Prediction | UnreadableImageError) -> dict[str, Any]:
    if isinstance(prediction, UnreadableImageError):
        return {"status": UNREADABLE, "reason": escape_surrogates(prediction.reason)}
    columns = {"label": prediction.label, "probability": prediction.probability, "status": prediction.status}
    return {**columns, prediction.label: prediction.probability, **dict(prediction.alternatives)}


def _digest_calibration(calibration: Calibration | None) -> str:
    """Digest of a calibration: the same for the same `wbc.json` and export."""
    if calibration is None:
        return "none"
    digest = hashlib.sha256(json.dumps(calibration.numbers, sort_keys=True).encode())
    for array in vars(calibration.out_of_distribution_score).values():
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]


def write_csv(output: Path) -> None:
    """Join the predictions of a folder in order, in the format of `predict --format csv`; all are in memory.

    Raises:
        OSError: It cannot be written.
    """
    rows = dataset.dataset(output / PREDICTIONS, format="parquet").to_table().sort_by(NUMBER).drop_columns(NUMBER)
    with open_atomically(output / f"{PREDICTIONS}.csv") as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(map(csv_cell, rows.column_names))
        for batch in rows.to_batches(AT_ONCE):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                writer.writerow(f"{value:.6f}" if isinstance(value, float) else csv_cell(value) for value in row)
        text.detach()
