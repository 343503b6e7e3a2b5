"""`wbc-hf predict`: classify images of single cells."""

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wbc_hf.cli.shared import ADDRESS_HELP, MODEL_HELP, exit_if_unreadable, find_files, hide_progress_bars, resumable
from wbc_hf.default_model import choose_model
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.safe_text import csv_cell, escape_surrogates, json_text, on_one_line, say

if TYPE_CHECKING:
    from wbc_hf.inference import Predictor


Format = Literal["table", "csv", "json"]


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Images of one cell each, or folders of them. With --output also Parquet files with a column of "
            "images, Hub data sets (owner/name, owner/name:split), and addresses such as s3://bucket/cells.",
        ),
    ],
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    format: Annotated[Format, typer.Option(help="How to print predictions.")] = "table",
    output: Annotated[
        Path | None,
        typer.Option(help="Write predictions to Parquet files in this folder; for very many images (extra bulk)."),
    ] = None,
    address: Annotated[str | None, typer.Option(help=ADDRESS_HELP)] = None,
) -> None:
    """Classify images of single cells.

    A file that is no readable image is named on standard error, the others are classified, and the exit status is 1.

        wbc-hf predict cells/ --model runs/cells --format csv > predictions.csv

    With --output there may be millions. Ray Data shares them among the cores or
    GPUs of this machine, or of a Ray cluster (--address) whose nodes all see
    sources, model and output. After a stop the same command resumes. An
    unreadable image has a row that says why. With --format csv all rows also
    go into one file there, in order:

        wbc-hf predict cells/ s3://bucket/more --model runs/cells --output predictions --format csv
    """
    from wbc_hf.hardware import use_one_blas_thread
    from wbc_hf.inference import Predictor, check_columns

    hide_progress_bars()
    use_one_blas_thread()
    model = choose_model(model)
    if output is not None:
        _predict_many(sources, model, format, output, address)
        return
    if address is not None:
        raise WbcError(f"--address {address}: is for very many images. Name a folder for them with --output.")
    files = list(find_files(map(Path, sources)))
    predictor = Predictor.from_pretrained(model)
    check_columns(predictor.labels)
    unreadable: list[UnreadableImageError] = []
    _PRINTERS[format](_rows(predictor, files, unreadable), predictor.labels)
    exit_if_unreadable(len(unreadable), len(files))


def _rows(predictor: "Predictor", files: list[Path], unreadable: list[UnreadableImageError]) -> Iterator[dict]:
    """Yield a row for each readable file; report the others and append their errors to `unreadable`."""
    from wbc_hf.inference import describe_left_out

    for file, prediction in zip(files, predictor.predict_each(files), strict=True):
        if isinstance(prediction, UnreadableImageError):
            say(f"wbc-hf: {on_one_line(str(prediction))}", error=True)
            unreadable.append(prediction)
            continue
        if left_out := describe_left_out(file):
            say(f"wbc-hf: {on_one_line(f'{file}: {left_out}')}", error=True)
        probabilities = dict([(prediction.label, prediction.probability), *prediction.alternatives])
        yield {
            "file": escape_surrogates(str(file)),
            "label": prediction.label,
            "probability": prediction.probability,
            "status": prediction.status,
            **{label: probabilities[label] for label in predictor.labels},
        }


def _predict_many(sources: list[str], model: str, format: Format, output: Path, address: str | None) -> None:
    from wbc_hf.inference import predict_many

    if format == "json":
        raise WbcError(f"--format json: is for the terminal. --output {output} gets Parquet, and with csv a file too.")
    with resumable():
        written = predict_many(sources, model, output, as_csv=format == "csv", address=address)
    say(f"{written.images} images classified: {output}")
    if written.unreadable:
        say(
            f"wbc-hf: {written.unreadable} of {written.images} are not readable images; their rows say why.",
            error=True,
        )
        raise typer.Exit(1)


def _print_table(rows: Iterable[dict], labels: Iterable[str]) -> None:
    say(f"{'class':<12} {'probability':>11}  {'status':<14} file")
    for row in rows:
        say(f"{row['label']:<12} {row['probability']:>11.3f}  {row['status']:<14} {on_one_line(row['file'])}")


def _print_csv(rows: Iterable[dict], labels: Iterable[str]) -> None:
    columns = ["file", "label", "probability", "status", *labels]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(map(csv_cell, columns))
    for row in rows:
        values = [row[name] for name in columns]
        writer.writerow(f"{value:.6f}" if isinstance(value, float) else csv_cell(value) for value in values)


def _print_json(rows: Iterable[dict], labels: Iterable[str]) -> None:
    say(json_text(list(rows), indent=2))


_PRINTERS = {"table": _print_table, "csv": _print_csv, "json": _print_json}
