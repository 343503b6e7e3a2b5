"""Count an archive: every specimen of many, each to its differential, resumable and on a cluster (see `Job`)."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import compute, dataset

from wbc_hf.data import NamedSource
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.files import open_atomically
from wbc_hf.hardware import use_one_blas_thread
from wbc_hf.inference import (
    CHANGES,
    NUMBER,
    ImagePlace,
    ImageSources,
    Job,
    check_bulk,
    describe_model,
    load_described,
    open_file,
    open_images,
    ray_session,
    run_as_actor,
)
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.smear.cell import Cell, CellState
from wbc_hf.smear.counting import CellCounter
from wbc_hf.smear.differential import differentiate_cells
from wbc_hf.smear.specimen import Specimen

SPECIMENS, CELLS = "specimens", "cells"
# Ray Data writes a file for each specimen here; in the end they become one.
_SINGLE = f".work/{SPECIMENS}"
_INDEX = pa.schema(
    [("specimen", pa.string()), ("source", pa.string()), ("pictures", pa.list_(pa.struct(list(ImagePlace.SCHEMA))))]
)
_SPECIMEN = pa.schema(
    [
        *((NUMBER, pa.int64()), ("specimen", pa.string()), ("source", pa.string())),
        *((name, pa.int32()) for name in ("pictures", "cells", "counted", "waiting")),
        *(
            (f"{label}{kind}", pa.float64() if kind else pa.int32())
            for label in CLASS_NAMES
            for kind in ("", "_percent", "_lower", "_upper")
        ),
        ("unreadable", pa.list_(pa.struct([("file", pa.string()), ("reason", pa.string())]))),
    ]
)
_CELL = pa.schema(
    [
        *((NUMBER, pa.int64()), ("specimen", pa.string()), ("cell", pa.int32())),
        *(("picture", pa.string()), ("picture_number", pa.int32())),
        *((edge, pa.int32()) for edge in ("x0", "y0", "x1", "y1")),
        *((name, pa.string()) for name in ("state", "class", "model_class")),
        *(("probability", pa.float32()), ("status", pa.string())),
    ]
)
_CHANGES = CHANGES | {
    "images": "other pictures: paths, files that came, went or changed since",
    "specimens": "specimens told by another column ({before}, now {now})",
    "show": "pictures read in another way ({before}, now {now})",
}


@dataclass(frozen=True)
class ArchiveSummary:
    """Summary of a counted archive.

    Attributes:
        specimens, cells: How many, whatever the state of a cell.
        unreadable: Number of pictures that could not be read or counted.
    """

    specimens: int
    cells: int
    unreadable: int


def count_archive(
    sources: Sequence[str],
    model: str,
    output: Path,
    *,
    column: str = "specimen",
    whole_fields: bool | None = None,
    address: str | None = None,
) -> ArchiveSummary:
    """Count every specimen of an archive once; resume where an earlier run stopped.

    Args:
        sources: As for `predict_many`. Pictures in one folder are one specimen, with the folder's name; so are rows of
            Parquet files with the same value in `column`.
        model: Model folder, or the id of a model on the Hub.
        output: A new folder, or one to resume; all nodes have to see it. `specimens/*.parquet` in it gets a row a
            specimen: how many pictures and cells, of each class the count, the percentage and its exact 95 % limits,
            how many cells wait for review, and which pictures could not be read. `cells/*.parquet` get a row a cell.
        column: Column of Parquet files that names the specimen.
        whole_fields: As for `count`.
        address: As for `predict_many`.

    Raises:
        WbcError: As for `predict_many`, or there is no such column.
    """
    model = check_bulk(sources, model, output, address)
    job = Job(output)
    images = ImageSources(sources)
    with job.prepared(_group(images, column), _INDEX, at_once=1), ray_session(address):
        described = run_as_actor(partial(describe_model, model))
        show = {None: "auto", True: "field", False: "cell"}[whole_fields]
        job.claim({"images": images.digest, "specimens": column, "show": show, **described}, _CHANGES)
        if not job.is_finished:
            cells = job.folder / CELLS
            cells.mkdir(exist_ok=True)
            job.run(_Counter, _SINGLE, model=model, described=described, cells=str(cells), whole_fields=whole_fields)
            _join(job.folder)
            job.finish()
    specimens = pq.read_table(output / SPECIMENS)
    found = dataset.dataset(output / CELLS, format="parquet").count_rows()
    if found != (expected := compute.sum(specimens["cells"]).as_py()):
        raise WbcError(f"{output / CELLS}: holds {found} cells of {expected}. Remove {output}, and start again.")
    unreadable = compute.sum(compute.list_value_length(specimens["unreadable"])).as_py()
    return ArchiveSummary(len(specimens), found, unreadable)


def _group(images: Iterable[ImagePlace], column: str) -> Iterator[dict[str, Any]]:
    """Rows of the index: specimens in the order of their first pictures."""
    groups: dict[tuple[str, str], list[ImagePlace]] = {}
    read, names = "", []
    for place in images:
        if place.row is None:
            folder = os.path.dirname(place.path)
            key = os.path.basename(folder), folder
        else:
            if place.path != read:
                read, names = place.path, _read_names(place.path, column)
            key = names[place.row], ""
        groups.setdefault(key, []).append(place)
    for (name, source), places in groups.items():
        pictures = [place.as_row() for place in places]
        yield {"specimen": escape_surrogates(name), "source": escape_surrogates(source), "pictures": pictures}


def _read_names(path: str, column: str) -> list[str]:
    with open_file(path) as opened:
        file = pq.ParquetFile(opened)
        if column not in file.schema_arrow.names:
            raise WbcError(
                f"{path}: has the columns {', '.join(file.schema_arrow.names)}, and none is {column!r}. Name the one "
                "that tells specimens apart by --specimen."
            )
        return ["" if name is None else str(name) for name in file.read([column])[column].to_pylist()]


class _Counter:
    """Actor: counts specimens, and writes the cells of each to a file that a second try replaces."""

    def __init__(self, model: str, described: dict[str, Any], cells: str, whole_fields: bool | None):
        use_one_blas_thread()
        self._predictor = load_described(model, described)
        self._cells, self._whole_fields = Path(cells), whole_fields

    def __call__(self, rows: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._count(row) for row in rows.to_pylist()], _SPECIMEN)

    def _count(self, row: dict[str, Any]) -> dict[str, Any]:
        unreadable: list[UnreadableImageError] = []
        counter = CellCounter(self._predictor, Specimen(row["specimen"]))
        pictures = _readable(map(ImagePlace.from_row, row["pictures"]), unreadable)
        unreadable += counter.add_images(pictures, whole_fields=self._whole_fields)
        found, cells = counter.specimen.pictures, counter.specimen.cells
        names = {picture.number: picture.name for picture in found}
        about = {NUMBER: row[NUMBER], "specimen": row["specimen"]}
        table = pa.Table.from_pylist([about | _cell_row(cell, names[cell.picture]) for cell in cells], _CELL)
        with open_atomically(self._cells / f"{row[NUMBER]:08d}.parquet") as file:
            pq.write_table(table, file)
        differential = differentiate_cells(cells)
        shares: dict[str, float | None] = {}
        for share in differential.shares:
            lower, upper = share.limits
            shares |= {share.label: share.count, f"{share.label}_percent": share.percent}
            shares |= {f"{share.label}_lower": lower, f"{share.label}_upper": upper}
        return {
            **about,
            "source": row["source"],
            "pictures": len(found),
            "cells": len(cells),
            "counted": differential.total,
            "waiting": differential.waiting,
            **shares,
            "unreadable": [
                {"file": escape_surrogates(error.name), "reason": escape_surrogates(error.reason)}
                for error in unreadable
            ],
        }


def _readable(places: Iterable[ImagePlace], unreadable: list[UnreadableImageError]) -> Iterator[NamedSource]:
    for image in open_images(places):
        if isinstance(image, UnreadableImageError):
            unreadable.append(image)
        else:
            yield image


def _cell_row(cell: Cell, picture: str) -> dict[str, Any]:
    return {
        "cell": cell.number,
        "picture": picture,
        "picture_number": cell.picture,
        **dict(zip(("x0", "y0", "x1", "y1"), cell.box, strict=True)),
        "state": cell.state.value,
        "class": cell.label if cell.state is CellState.COUNTED else None,
        "model_class": cell.prediction.label,
        "probability": cell.prediction.probability,
        "status": cell.prediction.status,
    }


def _join(folder: Path) -> None:
    """Write the rows of all specimens, in order, to one file."""
    rows = dataset.dataset(folder / _SINGLE, schema=_SPECIMEN, format="parquet").to_table().sort_by(NUMBER)
    (folder / SPECIMENS).mkdir(exist_ok=True)
    with open_atomically(folder / SPECIMENS / f"{SPECIMENS}.parquet") as file:
        pq.write_table(rows, file)
