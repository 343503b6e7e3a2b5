"""`wbc-hf count`: the differential of one smear."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wbc_hf.cli.shared import ADDRESS_HELP, MODEL_HELP, exit_if_unreadable, find_files, hide_progress_bars, resumable
from wbc_hf.default_model import choose_model
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.files import write_atomically
from wbc_hf.safe_text import on_one_line, say

if TYPE_CHECKING:
    from wbc_hf.adaptation import Laboratories
    from wbc_hf.inference import Predictor
    from wbc_hf.smear import CellCounter, Picture, Snapshot

INTERRUPTED = 130  # exit status, as of every program that Ctrl+C ends
_BESIDE = "is a whole slide among photographs, which are another specimen. Count it by itself"

Shows = Literal["auto", "field", "cell"]
Format = Literal["table", "csv", "json", "pdf", "fhir"]


def count(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Photographs of one smear, folders or ZIP files of them; or one whole slide. With a folder as "
            "--output an archive: folders with a folder for each specimen, or Parquet files, also at addresses such "
            "as s3://bucket/archive."
        ),
    ],
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    show: Annotated[Shows, typer.Option(help="What each image shows: a field, one cell, or find out.")] = "auto",
    specimen: Annotated[
        str,
        typer.Option(
            help="The laboratory's identifier of the specimen; of an archive in Parquet files the column that tells "
            "specimens apart (default: specimen)."
        ),
    ] = "",
    leucocytes: Annotated[
        int | None,
        typer.Option(
            min=50,
            help="Stop when so many are counted or wait for review: 100, 200 or 500 in most laboratories. Default: "
            "200 of a slide, all of photographs.",
        ),
    ] = None,
    leucocyte_count: Annotated[
        float | None, typer.Option(help="Total leucocyte count in 10⁹/l, for absolute counts.")
    ] = None,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt",
            help="First adapt the model to these very photographs, without labels, and to the reviewed cells that are "
            "kept of the laboratory.",
        ),
    ] = False,
    laboratory: Annotated[
        str | None,
        typer.Option(help="Count under this kept laboratory; with --adapt, keep what was adapted under this name."),
    ] = None,
    laboratories: Annotated[Path | None, typer.Option(help="Folder of the kept laboratories.")] = None,
    ranges: Annotated[
        Path | None, typer.Option(help="Reference ranges in percent: YAML, `neutrophil: [39, 75]`.")
    ] = None,
    format: Annotated[Format, typer.Option(help="Format of the result.")] = "table",
    output: Annotated[
        Path | None, typer.Option(help="File to write it to; required for PDF. A folder for an archive (extra bulk).")
    ] = None,
    address: Annotated[str | None, typer.Option(help=ADDRESS_HELP)] = None,
) -> None:
    """Find and count leucocytes in photographs of one smear: a differential with exact 95 % limits.

    Cells of which the model is not sure wait for review and are not counted: the page (`wbc-hf serve`) shows them.
    A file that cannot be read or counted is named on standard error, the others are counted, and the exit status is 1,
    as it is where --adapt does not help or has too few cells; the model then counts as it is.

        wbc-hf count smear/ --model runs/cells --leucocyte-count 6.4 --format pdf --output smear.pdf

    A whole slide (.svs, .ndpi, .mrxs, .scn, .bif, DICOM, tiled TIFF) is looked at from afar first, for the monolayer,
    where red cells lie side by side; fields there are read in reading order until 200 leucocytes are found. CSV and
    JSON have the place of each cell on the slide, and the PDF a page with all places. Ctrl+C stops, and writes what
    was counted.

        wbc-hf count slide.svs --leucocytes 500 --format pdf --output slide.pdf

    Photographs of a laboratory that the model does not know are noticed. It can be adapted to them, and the result
    can be kept under a name and used from then on (see `wbc-hf laboratories`).

        wbc-hf count smear/ --adapt --laboratory "Ward 3, MGG"

        wbc-hf count next/ --laboratory "Ward 3, MGG"

    An archive of many specimens is counted into a folder, without a suffix: specimens/*.parquet gets a row a specimen
    with its differential and limits, cells/*.parquet a row a cell. Ray Data shares the specimens among the cores or
    GPUs of this machine or of a cluster (--address). After a stop the same command resumes.

        wbc-hf count archive/ --output counted
    """
    from tqdm.auto import tqdm

    from wbc_hf.adaptation import Laboratories
    from wbc_hf.hardware import use_one_blas_thread
    from wbc_hf.inference import Predictor
    from wbc_hf.smear import DEFAULT_RANGES, CellCounter, Specimen, check_leucocyte_count, load_ranges

    if output is not None and _is_folder(output, format):
        given = {"adapt": adapt, "laboratory": laboratory, "leucocytes": leucocytes, "ranges": ranges} | {
            "leucocyte-count": leucocyte_count
        }
        if wrong := [name for name, value in given.items() if value]:
            raise WbcError(
                f"--{wrong[0]}: is for one smear; --output {output} is a folder, for an archive. Name a file, or "
                "adapt a model first (wbc-hf adapt) and give it by --model."
            )
        if format != "table":
            raise WbcError(f"--format {format}: is for one smear. An archive is written to {output} as Parquet.")
        _count_archive(paths, choose_model(model), output, specimen or "specimen", show, address)
        return
    if address is not None:
        raise WbcError(f"--address {address}: is for an archive. Name a folder for it with --output.")
    if format == "pdf" and output is None:
        raise WbcError("--format pdf: is not for a terminal. Name a file with --output.")
    if output is not None and not output.parent.is_dir():
        raise WbcError(f"{output}: its folder does not exist. Name a file in an existing folder.")
    hide_progress_bars()
    use_one_blas_thread()
    reference_ranges = load_ranges(ranges) if ranges else DEFAULT_RANGES
    total = check_leucocyte_count(leucocyte_count)
    files, slide, not_read = _separate(list(find_files(map(Path, paths))))
    base = Predictor.from_pretrained(choose_model(model))
    store = Laboratories(laboratories)
    predictor = base if laboratory is None or adapt else store.load(laboratory, base)
    counter = CellCounter(predictor, Specimen(specimen, total))
    interrupted = False
    if slide is not None:
        unreadable, interrupted = _read_slide(counter, slide, leucocytes)
    else:
        unreadable = counter.add_images(
            _until(tqdm(files, desc="Counting", unit="image", delay=2, leave=False), counter, leucocytes),
            whole_fields=None if show == "auto" else show == "field",
        )
        _report_kinds(counter.specimen.pictures, show)
    if adapt:
        _adapt(counter, store, laboratory)
    else:
        _report_laboratory(counter, predictor, store, laboratory)
    identity = counter.predictor.identity
    unreadable = (*not_read, *unreadable)
    snapshot = replace(counter.specimen.snapshot(identity, reference_ranges), unreadable=unreadable)
    for error in snapshot.unreadable:
        say(f"wbc-hf: {on_one_line(str(error))}", error=True)
    _write(snapshot, format, output)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if slide is None:
        exit_if_unreadable(len(unreadable), len(files) + len(not_read), "could not be counted")
    elif unreadable:
        raise typer.Exit(1)
    if adapt and counter.predictor is base:
        raise typer.Exit(1)


def _is_folder(output: Path, format: Format) -> bool:
    """Whether results are of an archive: a table for people goes into a file with a suffix."""
    return output.is_dir() or (format == "table" and not output.suffix and not output.exists())


def _count_archive(
    sources: list[str], model: str, output: Path, column: str, show: Shows, address: str | None
) -> None:
    from wbc_hf.smear import count_archive

    whole_fields = None if show == "auto" else show == "field"
    with resumable():
        done = count_archive(sources, model, output, column=column, whole_fields=whole_fields, address=address)
    say(f"{done.specimens} specimens with {done.cells} cells counted: {output}")
    if done.unreadable:
        say(f"wbc-hf: {done.unreadable} pictures could not be counted; the rows of specimens say why.", error=True)
        raise typer.Exit(1)


def _separate(files: list[Path]) -> tuple[list[Path], Path | None, tuple[UnreadableImageError, ...]]:
    """Part photographs from slides: the photographs, or else the one slide; and the slides that are not read."""
    from wbc_hf.data import slide_kind

    # The folder beside a MIRAX file, and all files of a DICOM slide, are parts of one slide.
    parts = {file.with_suffix("") for file in files if file.suffix.lower() == ".mrxs"}
    files = [file for file in files if not parts & set(file.parents)]
    slides = {file.parent if slide_kind(file) == "DICOM" else file: file for file in files if slide_kind(file)}
    photographs = [file for file in files if not slide_kind(file)]
    if photographs:
        return photographs, None, tuple(UnreadableImageError(str(slide), _BESIDE) for slide in slides.values())
    if len(slides) > 1:
        first, second, *others = map(str, slides.values())
        more = f" and {len(others)} more" if others else ""
        raise WbcError(f"{first}, {second}{more}: are whole slides, each a specimen of its own. Count one at a time.")
    return [], next(iter(slides.values()), None), ()


def _until(files: Iterable[Path], counter: "CellCounter", leucocytes: int | None) -> Iterator[Path]:
    """Yield files until so many leucocytes are found."""
    from wbc_hf.smear import count_found

    for read, file in enumerate(files):
        if leucocytes is not None and (found := count_found(counter.specimen.cells)) >= leucocytes:
            say(f"wbc-hf: stopped at {found} leucocytes, after {read} images.", error=True)
            return
        yield file


def _read_slide(
    counter: "CellCounter", path: Path, leucocytes: int | None
) -> tuple[tuple[UnreadableImageError, ...], bool]:
    """Read a slide, show how far it is and say what was read; return what could not be, and whether it was stopped."""
    from tqdm.auto import tqdm

    from wbc_hf.smear import LEUCOCYTES, read_slide

    wanted = LEUCOCYTES if leucocytes is None else leucocytes
    with (
        tqdm(desc="Looking for the monolayer", unit="field", leave=False) as look,
        tqdm(desc="Counting", unit="leucocyte", total=wanted, leave=False, delay=1) as count,
    ):

        def show_look(done: int, total: int) -> None:
            look.total = total
            look.update(done - look.n)

        def show_count(read: int, total: int, found: int) -> None:
            count.set_postfix_str(f"field {read} of {total}", refresh=False)
            count.update(min(found, wanted) - count.n)

        reading = read_slide(counter, path, leucocytes=wanted, looking=show_look, reading=show_count)
    for note in reading.notes:
        say(f"wbc-hf: {path}: {note}", error=True)
    of_fields = f"{reading.read} of {len(reading.monolayer.fields)} fields of the monolayer were read"
    short = f", fewer than {wanted}: that is all of it" if reading.found < wanted and not reading.interrupted else ""
    stopped = "interrupted: " if reading.interrupted else ""
    say(f"wbc-hf: {path}: {stopped}{of_fields}, with {reading.found} leucocytes{short}.", error=True)
    return reading.unreadable, reading.interrupted


def _adapt(counter: "CellCounter", store: "Laboratories", name: str | None) -> None:
    """Adapt the counter's model to the cells that it found, predict them again, and keep the result under a name.

    Where that cannot be done or does not help, it says so, and the cells stay as they were counted.
    """
    from wbc_hf.adaptation import adapt, describe_adaptation, gather_cells
    from wbc_hf.cli.adapt import progress_bar
    from wbc_hf.inference import Predictor
    from wbc_hf.smear import check_laboratory

    base, found = counter.predictor, counter.specimen.cells
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "adapted"
        try:
            kept = store.cells(name) if name is not None and name in store else ()
            cells = gather_cells(found, "specimen", check_laboratory(found, base.calibration).origin, kept)
            with progress_bar() as progress:
                adaptation = adapt(base.name, cells, folder, progress=progress)
            say(describe_adaptation(adaptation), error=True)
            if adaptation.warning is not None:
                return
            adapted = Predictor.from_pretrained(folder, fresh=True)
            adapted.rename(f"{base.identity.name}, adapted")
            _ = adapted.identity  # before its folder goes
            counter.use(adapted)
            if name is not None:
                adapted.rename(store.keep(name, base, folder, adaptation).model_name(base.identity.name))
        except WbcError as error:
            say(f"wbc-hf: {error}", error=True)


def _report_kinds(pictures: Sequence["Picture"], show: Shows) -> None:
    """Say on standard error where images look like something else than --show says, or where there are both kinds."""
    otherwise = [picture for picture in pictures if picture.read_otherwise]
    if 2 * len(otherwise) > len(pictures):
        seen, right = ("one cell each", "cell") if show == "field" else ("a whole field each", "field")
        say(
            f"wbc-hf: {len(otherwise)} of {len(pictures)} images look as if they showed {seen}: --show {right} reads "
            "them so, and --show auto finds out.",
            error=True,
        )
    cells = [picture for picture in pictures if not picture.is_field]
    if show == "auto" and 0 < len(cells) < len(pictures):
        say(
            f"wbc-hf: {len(cells)} of {len(pictures)} images were read as pictures of one cell, the others as fields; "
            "--show field or --show cell reads all alike.",
            error=True,
        )


def _report_laboratory(
    counter: "CellCounter", predictor: "Predictor", store: "Laboratories", name: str | None
) -> None:
    """Say on standard error where the photographs do not look like what the model has learned."""
    from wbc_hf.adaptation import MIN_UNLABELLED, TWO_LABORATORIES, count_supply
    from wbc_hf.smear import CellState, Origin, check_laboratory

    cells = counter.specimen.cells
    check = check_laboratory(cells, predictor.calibration)
    if name is not None and check.distance is not None:
        store.record_count(name, check.cells, check.distance, check.origin is Origin.ANOTHER)
    waiting = sum(cell.state is CellState.WAITING for cell in cells)
    if check.origin is Origin.MIXED:
        say(f"wbc-hf: {TWO_LABORATORIES}", error=True)
    elif check.origin is Origin.ANOTHER:
        since = None if name is None else store.show(name).drift()
        known = "that the model has learned" if name is None else f"of {name} as it was kept"
        supply = count_supply(cells, "specimen", () if name is None else store.list_cells(name))
        can = "to them" if supply.suffices else f"to {MIN_UNLABELLED} cells or more"
        if supply.labels_suffice:
            can = f"to them, with {supply.kept} reviewed cells that are kept"
        say(
            f"wbc-hf: these {check.cells} cells do not look like those {known}"
            f"{f', since {since[:10]}' if since else ''}: another stain, microscope or camera. {waiting} wait for "
            f"review. --adapt adapts the model {can}; fewer that you label do more (wbc-hf adapt, or the page).",
            error=True,
        )


def _write(snapshot: "Snapshot", format: Format, output: Path | None) -> None:
    """Write a snapshot to a file, or to standard output."""
    from wbc_hf.reports import EXPORTS, to_text

    if format == "table":
        content = to_text(snapshot).encode()
    else:
        content = next(export for export in EXPORTS if export.key == format).make(snapshot)
    if output is None:
        say(content.decode("utf-8-sig").removesuffix("\n"))
        return
    try:
        target = output.resolve()
        if target.exists() and not target.is_file():
            target.write_bytes(content)  # a pipe or a device is not replaced
        else:
            write_atomically(target, content)
    except OSError as error:
        raise WbcError(f"{output}: cannot be written ({error.strerror}). Name another file.") from error
