"""`wbc-hf count`: the differential of one smear."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbc_hf.cli.shared import MODEL_HELP, exit_if_unreadable, find_files, on_one_line
from wbc_hf.default_model import choose_model
from wbc_hf.errors import WbcError

if TYPE_CHECKING:
    from wbc_hf.smear import Snapshot


class Shows(StrEnum):
    """What each image shows."""

    FIELD = "field"
    CELL = "cell"


class Format(StrEnum):
    """A table on the terminal, or one of the page's exports."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PDF = "pdf"
    FHIR = "fhir"


def count(
    paths: Annotated[list[Path], typer.Argument(help="Photographs of one smear, or folders of them.")],
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    show: Annotated[Shows, typer.Option(help="What each image shows: a field, or one cell.")] = Shows.FIELD,
    specimen: Annotated[str, typer.Option(help="The laboratory's identifier of the specimen.")] = "",
    leucocytes: Annotated[float | None, typer.Option(help="Total count in 10⁹/l, for absolute counts.")] = None,
    ranges: Annotated[
        Path | None, typer.Option(help="Reference ranges in percent: YAML, `neutrophil: [39, 75]`.")
    ] = None,
    format: Annotated[Format, typer.Option(help="Format of the result.")] = Format.TABLE,
    output: Annotated[Path | None, typer.Option(help="File to write it to; required for PDF.")] = None,
) -> None:
    """Find and count leucocytes in photographs of one smear: a differential with exact 95 % limits.

    Cells of which the model is not sure wait for review and are not counted: the page (`wbc-hf serve`) shows them.
    A file that cannot be read or counted is named on standard error, the others are counted, and the exit status is 1.

        wbc-hf count smear/ --model runs/cells --leucocytes 6.4 --format pdf --output smear.pdf
    """
    from tqdm.auto import tqdm
    from transformers.utils.logging import disable_progress_bar

    from wbc_hf.inference import Predictor
    from wbc_hf.smear import DEFAULT_RANGES, check_leucocyte_count, load_ranges
    from wbc_hf.smear import count as count_cells

    if format is Format.PDF and output is None:
        raise WbcError("--format pdf: is not for a terminal. Name a file with --output.")
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise WbcError(f"{output}: is a folder, or its folder does not exist. Name a file in an existing folder.")
    disable_progress_bar()
    reference_ranges = load_ranges(ranges) if ranges else DEFAULT_RANGES
    leucocyte_count = check_leucocyte_count(leucocytes)
    files = list(find_files(paths))
    snapshot = count_cells(
        tqdm(files, desc="Counting", unit="image", delay=2, leave=False),
        Predictor.from_pretrained(choose_model(model)),
        ranges=reference_ranges,
        whole_fields=show is Shows.FIELD,
        name=specimen,
        leucocyte_count=leucocyte_count,
    )
    for error in snapshot.unreadable:
        print(f"wbc-hf: {on_one_line(str(error))}", file=sys.stderr)
    _write(snapshot, format, output)
    exit_if_unreadable(len(snapshot.unreadable), len(files), "could not be counted")


def _write(snapshot: "Snapshot", format: Format, output: Path | None) -> None:
    """Write a snapshot to a file, or to standard output."""
    from wbc_hf.reports import EXPORTS, to_text

    if format is Format.TABLE:
        content = to_text(snapshot).encode()
    else:
        content = next(export for export in EXPORTS if export.key == format).make(snapshot)
    if output is None:
        print(content.decode("utf-8-sig"), end="" if content.endswith(b"\n") else "\n")
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        raise WbcError(f"{output}: cannot be written ({error.strerror}). Name another file.") from error
