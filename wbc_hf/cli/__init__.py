"""`wbc-hf …`: everything beside training."""

import csv
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbc_hf import __version__
from wbc_hf.cli.evaluate import evaluate
from wbc_hf.default_model import choose_model
from wbc_hf.errors import UnreadableImageError, WbcError

if TYPE_CHECKING:
    from wbc_hf.smear import Snapshot

app = typer.Typer(
    help="Tell leucocytes apart in pictures of stained blood smears. Research use, not for diagnosis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


_MODEL = "Model folder, or the id of a model on the Hub; by default what WBC_HF_MODEL names, else models/starter."


class ExportFormat(StrEnum):
    """Whose files `export` writes."""

    OPENVINO = "openvino"
    ONNX = "onnx"


class ExportPrecision(StrEnum):
    """In which numbers they are computed."""

    INT8 = "int8"
    BF16 = "bf16"
    FP32 = "fp32"


class Format(StrEnum):
    """How `predict` prints its answers."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def main() -> None:
    """Run the command; an error that the user can solve is one line and exit status 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    # File names are bytes: one that the terminal cannot show must not end the run.
    sys.stdout.reconfigure(errors="surrogateescape" if sys.stdout.encoding == "utf-8" else "backslashreplace")
    try:
        app()
    except WbcError as error:
        print(f"wbc-hf: {error}", file=sys.stderr)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if show:
        print(__version__)
        raise typer.Exit


@app.command()
def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Pictures of one cell each, or folders of them. With --output also Parquet files with a column of "
            "images, and Hub data sets: owner/name, or owner/name:split.",
        ),
    ],
    model: Annotated[str | None, typer.Option(help=_MODEL)] = None,
    format: Annotated[Format, typer.Option(help="How to print the answers.")] = Format.TABLE,
    output: Annotated[
        Path | None, typer.Option(help="For very many: .csv or .parquet file to write the answers to.")
    ] = None,
) -> None:
    """Say for each picture which leucocyte it shows.

    A file that is no readable picture is named on standard error, the others are answered, and the exit status is 1.

        wbc-hf predict cells/ --model runs/cells --format csv > answers.csv

    With --output there may be millions. Answers are kept a thousand at a time
    beside the file until it is whole: after a stop, the same command goes on.
    An unreadable picture has a row that says why. Several processes share the
    work, also on several machines that see the same sources and output:

        torchrun --nproc_per_node 2 -m wbc_hf.cli predict cells/ --model runs/cells --output answers.parquet

        accelerate launch --multi_gpu --num_processes 2 -m wbc_hf.cli predict … (with or without GPUs)
    """
    from transformers.utils.logging import disable_progress_bar

    from wbc_hf.inference import Predictor

    disable_progress_bar()
    model = choose_model(model)
    if output is not None:
        _predict_many(sources, model, format, output)
        return
    files = list(find_files(map(Path, sources)))
    predictor = Predictor.from_pretrained(model)
    failed = 0

    def answers() -> Iterator[dict]:
        nonlocal failed
        for file, answer in zip(files, predictor.predict_each(files), strict=True):
            if isinstance(answer, UnreadableImageError):
                print(f"wbc-hf: {_on_one_line(str(answer))}", file=sys.stderr)
                failed += 1
                continue
            probabilities = dict([(answer.label, answer.probability), *answer.alternatives])
            row = {
                "file": str(file),
                "label": answer.label,
                "probability": answer.probability,
                "status": answer.status,
            }
            yield row | {label: probabilities[label] for label in predictor.labels}

    _PRINTERS[format](answers(), predictor.labels)
    if failed:
        print(f"wbc-hf: {failed} of {len(files)} files are not readable pictures.", file=sys.stderr)
        raise typer.Exit(1)


def _predict_many(sources: list[str], model: str, format: Format, output: Path) -> None:
    from wbc_hf.inference.bulk import predict_many

    if format is not Format.TABLE and output.suffix != f".{format}":
        raise WbcError(f"--format {format}: is for the terminal. Of --output {output} the suffix says the form.")
    try:
        answered = predict_many(sources, model, output)
    except KeyboardInterrupt:
        print("wbc-hf: stopped. What was answered is kept: the same command goes on from there.", file=sys.stderr)
        raise typer.Exit(130) from None
    if answered is None:
        return
    print(f"{answered.images} pictures answered: {output}")
    if answered.unreadable:
        told = f"{answered.unreadable} of {answered.images} are not readable pictures; their rows say why."
        print(f"wbc-hf: {told}", file=sys.stderr)
        raise typer.Exit(1)


class Shows(StrEnum):
    """What each picture shows."""

    FIELD = "field"
    CELL = "cell"


class Form(StrEnum):
    """How `count` gives its result: as a table in the terminal, or as one of the page's exports."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PDF = "pdf"
    FHIR = "fhir"


@app.command()
def count(
    paths: Annotated[list[Path], typer.Argument(help="Photographs of one smear, or folders of them.")],
    model: Annotated[str | None, typer.Option(help=_MODEL)] = None,
    show: Annotated[Shows, typer.Option(help="What each picture shows: a field, or one cell.")] = Shows.FIELD,
    specimen: Annotated[str, typer.Option(help="How the laboratory calls the specimen.")] = "",
    leucocytes: Annotated[float | None, typer.Option(help="Total count in 10⁹/l, for absolute counts.")] = None,
    ranges: Annotated[Path | None, typer.Option(help="Reference ranges: YAML, `neutrophil: [39, 75]`.")] = None,
    format: Annotated[Form, typer.Option(help="How to give the result.")] = Form.TABLE,
    output: Annotated[Path | None, typer.Option(help="File to write it to; PDF needs one.")] = None,
) -> None:
    """Find and count the leucocytes in photographs of one smear: a differential with its exact limits.

    Cells of which the model is not sure wait for a person and are not counted: the page (`python app.py`) shows them.
    A file that is no readable picture is named on standard error, the others are counted, and the exit status is 1.

        wbc-hf count smear/ --model runs/cells --leucocytes 6.4 --format pdf --output smear.pdf
    """
    from tqdm.auto import tqdm
    from transformers.utils.logging import disable_progress_bar

    from wbc_hf.data import read_image
    from wbc_hf.inference import Predictor
    from wbc_hf.smear import DEFAULT_RANGES, Examiner, Specimen, check_leucocytes, load_ranges, take_snapshot

    if format is Form.PDF and output is None:
        raise WbcError("--format pdf: is not for a terminal. Name a file with --output.")
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise WbcError(f"{output}: is a folder, or lies in one that is not there. Name a file in a folder that is.")
    disable_progress_bar()
    reference = load_ranges(ranges) if ranges else DEFAULT_RANGES
    counted = Specimen(specimen)
    counted.leucocytes = check_leucocytes(leucocytes)
    files = list(find_files(paths))
    predictor = Predictor.from_pretrained(choose_model(model))
    examiner = Examiner(predictor, counted)
    failed = 0
    for file in tqdm(files, desc="Counting", unit="picture", delay=2, leave=False):
        try:
            examiner.examine(read_image(file), file.name, is_field=show is Shows.FIELD)
        except UnreadableImageError as error:
            tqdm.write(f"wbc-hf: {_on_one_line(str(error))}", file=sys.stderr)
            failed += 1
    _give(take_snapshot(counted, predictor.identity, reference), format, output)
    if failed:
        print(f"wbc-hf: {failed} of {len(files)} files are not readable pictures.", file=sys.stderr)
        raise typer.Exit(1)


def _give(record: "Snapshot", form: Form, output: Path | None) -> None:
    """Write a record to a file, or to standard output."""
    from wbc_hf.reports import EXPORTS, to_text

    if form is Form.TABLE:
        content = to_text(record).encode()
    else:
        content = next(export for export in EXPORTS if export.key == form).make(record)
    if output is not None:
        try:
            output.write_bytes(content)
        except OSError as error:
            raise WbcError(f"{output}: cannot be written ({error.strerror}). Name another file.") from error
    else:
        print(content.decode("utf-8-sig"), end="" if content.endswith(b"\n") else "\n")


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files that are meant: each path itself, or every picture below it where it is a folder, in order of name.

    Raises:
        WbcError: A folder without pictures.
    """
    from wbc_hf.data import find_pictures

    for path in paths:
        if path.is_dir():
            yield from find_pictures(path)
        else:
            yield path


def _on_one_line(text: str) -> str:
    """Line breaks and control characters of a file name, spelt out: they would break lines or colour terminals."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode()
        for letter in text
    )


def _print_table(answers: Iterable[dict], labels: Iterable[str]) -> None:
    print(f"{'class':<12} {'probability':>11}  {'status':<14} file")
    for answer in answers:
        name = _on_one_line(answer["file"])
        print(f"{answer['label']:<12} {answer['probability']:>11.3f}  {answer['status']:<14} {name}")


def _print_csv(answers: Iterable[dict], labels: Iterable[str]) -> None:
    writer = csv.DictWriter(sys.stdout, ["file", "label", "probability", "status", *labels], lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        writer.writerow({key: f"{value:.6f}" if isinstance(value, float) else value for key, value in answer.items()})


def _print_json(answers: Iterable[dict], labels: Iterable[str]) -> None:
    print(json.dumps(list(answers), indent=2, ensure_ascii=False))


_PRINTERS = {Format.TABLE: _print_table, Format.CSV: _print_csv, Format.JSON: _print_json}


@app.command()
def audit(
    spec: Annotated[str, typer.Argument(help="A folder, kaggle:owner/name, or the id of a data set on the Hub.")],
    output: Annotated[Path | None, typer.Option(help="Folder for audit.json and audit.html.")] = None,
    resplit: Annotated[Path | None, typer.Option(help="New folder for a clean split of the files.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
) -> None:
    """Look through a data set: copies of one cell, contradicting labels, bad pictures, classes too small to judge.

    Nothing is written into the set itself.

        wbc-hf audit cells/ --output audit/ --resplit clean/
    """
    import dataclasses

    from wbc_hf.data import load_leucocytes
    from wbc_hf.data.audit import audit as audit_set
    from wbc_hf.data.audit import check_new_folder, format_audit
    from wbc_hf.data.audit import resplit as write_split
    from wbc_hf.data.audit_page import write_page

    if resplit is not None:
        check_new_folder(resplit)
    leucocytes = load_leucocytes(spec, seed=seed)
    found = audit_set(leucocytes)
    print(format_audit(found))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        content = json.dumps(dataclasses.asdict(found), indent=2, ensure_ascii=False)
        (output / "audit.json").write_text(content + "\n", encoding="utf-8")
        write_page(found, leucocytes, output / "audit.html")
    if resplit is not None:
        write_split(leucocytes, resplit, seed)


app.command()(evaluate)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    second: Annotated[Path, typer.Argument(help="Of another one, judged on the same test cells.")],
) -> None:
    """Say whether one model is better than another on the same cells, with paired intervals."""
    from wbc_hf.evaluation import compare_reports, format_comparison

    print(format_comparison(compare_reports(first, second)))


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    repo_id: Annotated[str, typer.Argument(help="Where to: owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Publish a model with its card and figures on the Hugging Face Hub.

    The token comes from HF_TOKEN or `hf auth login`. A push that breaks off leaves the folder whole: repeat it.
    """
    from wbc_hf.hub import push_folder

    print(push_folder(folder, repo_id, private=private))


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Model folder, or the id of a model on the Hub.")],
    format: Annotated[ExportFormat, typer.Option(help="Whose files to write.")] = ExportFormat.OPENVINO,
    precision: Annotated[
        ExportPrecision, typer.Option(help="int8 is fastest; bf16 needs OpenVINO.")
    ] = ExportPrecision.INT8,
    dataset: Annotated[
        str | None, typer.Option(help="Set to calibrate int8 and to check on; by default that of the training run.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="New folder that stands by itself, without weights.")] = None,
) -> None:
    """Write a model as OpenVINO or ONNX, checked on validation images first.

    The page and every command answer with the export in a model's folder, OpenVINO's before ONNX's. It is refused
    where macro F1 falls by more than half a point. int8 and ONNX need what the package's extra `export` brings.

        wbc-hf export runs/cells --precision int8
    """
    from transformers.utils.logging import disable_progress_bar

    from wbc_hf.inference.exporting import describe_export, export_model

    disable_progress_bar()
    folder, exported = export_model(model, format.value, precision.value, dataset=dataset, output=output)
    print(describe_export(folder, exported))


@app.command()
def adapt(
    *,
    model: Annotated[str | None, typer.Argument(help=_MODEL)] = None,
    images: Annotated[
        Path, typer.Option(help="Folder of pictures of one cell each, or of sub-folders named after the classes.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="New folder for the adapted model; by default MODEL-adapted, beside a model folder."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
) -> None:
    """Make a model that suits another laboratory's stain and camera, from some of its cells.

    Without labels, from 50 pictures or more: the model learns their colours,
    and the shares of the classes are estimated.

        wbc-hf adapt --images unsorted/ --output runs/ours

    With labels, which is better: about 20 pictures of each class, fewer of
    rare ones, in sub-folders named after the classes. A part at a time is held
    back, and the model is scored on it before and after.

        wbc-hf adapt runs/cells --images sorted/ --output runs/ours

    The new folder is a model like any other; its card says what was done.
    Pictures that cannot be read or show no stained cell are named on standard
    error and left out. Where some cannot be read, the exit status is 1.
    """
    from tqdm.auto import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm
    from transformers.utils.logging import disable_progress_bar

    from wbc_hf.adaptation import adapt_to_folder, describe_adaptation

    disable_progress_bar()
    model = choose_model(model)
    output = output or _beside(model)
    form = "{l_bar}{bar}| {elapsed}"
    with logging_redirect_tqdm(), tqdm(total=100, bar_format=form, delay=2, leave=False) as bar:

        def show(what: str, share: float) -> None:
            bar.set_description(what, refresh=False)
            bar.update(100 * share - bar.n)

        adaptation = adapt_to_folder(model, images, output, seed=seed, progress=show)
    print(describe_adaptation(adaptation))
    print(f"The adapted model: {output}")
    if adaptation.unreadable:
        total = adaptation.cells + adaptation.unreadable + adaptation.not_cells
        print(f"wbc-hf: {adaptation.unreadable} of {total} files are not readable pictures.", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def survey(
    spec: Annotated[str, typer.Argument(help="A folder, kaggle:owner/name, or a Hub data set: what all learn from.")],
    system: Annotated[
        list[str] | None, typer.Option(help="Run this one only; may be given several times. By default all.")
    ] = None,
    laboratory: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SPEC", help="Another laboratory's cells to test on; may be given several times."),
    ] = None,
    fields: Annotated[
        Path | None, typer.Option(help="Photographs in images/ and VOC boxes in annotations/, to find leucocytes in.")
    ] = None,
    most: Annotated[int | None, typer.Option(help="Training cells of a class at most; by default all.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the survey.")] = Path("runs/survey"),
    seed: Annotated[int, typer.Option(help="Of the split and of everything that is drawn.")] = 0,
) -> None:
    """Run the literature's ways to tell leucocytes apart on the same cells and the same split.

    Each is fitted and judged in a process of its own, with progress. What is
    finished is kept: after a stop, the same command goes on. Tables are in
    OUTPUT/survey.md, the plot in OUTPUT/survey.png, and each system's answers
    in OUTPUT/SYSTEM/test and OUTPUT/SYSTEM/NAME, where `wbc-hf compare` takes
    any two of them. It needs what the package's extra `survey` brings.

        wbc-hf survey pbc/ --most 600 --laboratory bccd=bccd/crops --fields bccd/fields

        wbc-hf compare runs/survey/ours/test runs/survey/huang-2012/test
    """
    try:
        from wbc_hf.survey import Plan, conduct
    except ModuleNotFoundError as error:
        if error.name != "skimage":
            raise
        raise WbcError("survey: needs scikit-image. Install it with `pip install 'wbc-hf[survey]'`.") from None

    plan = Plan(spec, tuple(_named_set(given) for given in laboratory or ()), most, seed)
    try:
        failed = conduct(plan, system or (), fields, output)
    except KeyboardInterrupt:
        print("wbc-hf: stopped. What is finished is kept: the same command goes on from there.", file=sys.stderr)
        raise typer.Exit(130) from None
    if failed:
        print(
            f"wbc-hf: failed: {', '.join(failed)}. The others are done; the same command tries again.", file=sys.stderr
        )
        raise typer.Exit(1)


def _named_set(given: str) -> tuple[str, str]:
    """`bccd=cells/bccd` → its two halves."""
    name, equals, spec = given.partition("=")
    if not (equals and spec and name.isidentifier()):
        raise WbcError(
            f"--laboratory {given}: NAME=SPEC is expected, the name of letters and digits, such as bccd=cells/bccd."
        )
    return name, spec


def _beside(model: str) -> Path:
    """Where an adapted model goes by default: beside the folder of the model, else into the current folder."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        return folder.with_name(f"{folder.name}-adapted")
    return Path(f"{folder.name}-adapted")


if __name__ == "__main__":
    main()
