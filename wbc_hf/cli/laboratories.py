"""`wbc-hf laboratories`: the laboratories that models were adapted to and that are kept by name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbc_hf.safe_text import say

if TYPE_CHECKING:
    from wbc_hf.adaptation import Laboratories, Laboratory

app = typer.Typer(
    help=(
        "List, show and remove the laboratories that are kept by name.\n\n"
        "A laboratory is a model adapted to one stain, microscope and camera, with what was counted with it. It takes "
        "half a MB, or two to three after 20 labels or more. Pictures of cells are kept only where that was asked for."
    ),
    no_args_is_help=True,
)

_WIDTH = 100
_Name = Annotated[str, typer.Argument(help="Name of the laboratory, in upper or lower case.")]
_Folder = Annotated[
    Path | None,
    typer.Option(
        help="Where laboratories are kept. Default: the variable WBC_HF_LABORATORIES, else "
        "~/.local/share/wbc_hf/laboratories."
    ),
]


@app.command("list")
def list_laboratories(folder: _Folder = None) -> None:
    """List all laboratories: which model was adapted, to how many cells, when, and how much is kept.

    A date under "unlike since" is that of the first specimen in a row whose cells do not look like those that the
    model was adapted to: stain, lamp or camera may have changed.

        wbc-hf laboratories list
    """
    from wbc_hf.adaptation import Laboratories
    from wbc_hf.evaluation import format_table, plain_table

    store = Laboratories(folder)
    laboratories = store.list()
    if not laboratories:
        say(f"No laboratory is kept in {store.folder} yet.")
        return
    table = plain_table("laboratory", "model", "adapted", "cells", "counted", "unlike since", "pictures", "size")
    for laboratory in laboratories:
        table.add_row(
            laboratory.name,
            laboratory.adaptation.model,
            laboratory.changed[:10],
            str(laboratory.adaptation.cells),
            str(len(laboratory.history)),
            (laboratory.drift() or "–")[:10],
            str(sum(store.cell_counts(laboratory.name).values())),
            _size(store.size(laboratory.name)),
        )
    say(format_table(table, _WIDTH))


@app.command()
def show(name: _Name, folder: _Folder = None) -> None:
    """Show one laboratory: its base model, how good the adapted one was, what was counted, what is kept and where.

    wbc-hf laboratories show "Raabin 2026 / MGG"
    """
    from wbc_hf.adaptation import Laboratories, describe_adaptation

    store = Laboratories(folder)
    laboratory = store.show(name)
    say(laboratory.name)
    say("\n".join(f"  {title:<16}{text}" for title, text in _facts(store, laboratory)))
    say(f"\n{describe_adaptation(laboratory.adaptation)}")


@app.command()
def remove(
    name: _Name,
    cells_only: Annotated[
        bool, typer.Option("--cells-only", help="Remove the pictures of reviewed cells alone, and keep no more.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    folder: _Folder = None,
) -> None:
    """Remove a laboratory, or only its pictures of cells. This cannot be undone.

    The model that it was adapted from stays. Without the pictures the adapted model goes on working.

        wbc-hf laboratories remove "Raabin 2026 / MGG" --cells-only
    """
    from wbc_hf.adaptation import Laboratories

    store = Laboratories(folder)
    pictures = sum(store.cell_counts(name).values())
    what = f"{pictures} pictures of reviewed cells"
    if not cells_only:
        what = f"the adapted model, the record of what was counted, and {what}"
    if not yes:
        typer.confirm(f"Remove {what} of {name}?", abort=True)
    if cells_only:
        store.forget_cells(name)
    else:
        store.remove(name)
    say(f"Removed {what} of {name}.")


def _facts(store: "Laboratories", laboratory: "Laboratory") -> list[tuple[str, str]]:
    """Titles and texts about what is kept."""
    adaptation, history = laboratory.adaptation, laboratory.history
    began = laboratory.drift()
    counts = ", ".join(f"{name} {count}" for name, count in store.cell_counts(laboratory.name).items() if count)
    pictures = counts or ("none yet" if laboratory.keep_cells else "not kept")
    return [
        ("base model", f"{adaptation.model}, version {adaptation.version}"),
        ("adapted model", f"version {laboratory.version}, {adaptation.software}"),
        ("first kept", _minute(laboratory.made)),
        ("adapted", _minute(laboratory.changed)),
        ("learned from", f"{laboratory.labelled} cells with labels, {laboratory.unlabelled} without"),
        ("counted", f"{len(history)} specimens" + (f", last {_minute(history[-1].time)}" if history else "")),
        ("unlike since", "–" if began is None else _minute(began)),
        ("pictures", pictures),
        ("size", _size(store.size(laboratory.name))),
        ("folder", str(store.folder)),
    ]


def _minute(time: str) -> str:
    return f"{time[:16].replace('T', ' ')} UTC"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
