"""`wbc-hf store`: what is kept of specimens, its backup, and its deletion."""

from pathlib import Path
from typing import Annotated

import typer

from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.safe_text import on_one_line, say

app = typer.Typer(
    help=(
        "Look at, back up, restore and delete the specimens that a page keeps (`wbc-hf serve --store FOLDER`).\n\n"
        "A store is a folder: a database, and a file of pictures for each specimen. It is made by the page, and may "
        "be in use while these commands run."
    ),
    no_args_is_help=True,
)

_WIDTH = 110
_Store = Annotated[Path, typer.Argument(help="Folder of the store.")]
_Key = Annotated[str, typer.Argument(help="Key of the specimen, as `list` shows it.")]


@app.command("list")
def list_specimens(
    folder: _Store,
    words: Annotated[str, typer.Option(help="Only those that have these words in name, numbers or comment.")] = "",
    most: Annotated[int, typer.Option(min=1, help="How many to list.")] = 100,
) -> None:
    """List specimens, those that changed last first.

    wbc-hf store list specimens/ --words "S-17"
    """
    from wbc_hf.evaluation import format_table, plain_table

    with needs_extra("store"):
        from wbc_hf.store import SpecimenStore
    store = SpecimenStore(_existing(folder))
    found = store.find(words, most=most)
    table = plain_table("key", "specimen", "state", "changed (UTC)", "pictures", "counted", "waiting", "signed by")
    for item in found.items:
        table.add_row(
            item.key,
            on_one_line(item.name) or "not named",
            item.state.value,
            f"{item.changed:%Y-%m-%d %H:%M}",
            str(item.pictures),
            str(item.counted),
            str(item.waiting),
            on_one_line(item.signed_by),
        )
    say(format_table(table, _WIDTH))
    say(f"\n{len(found.items)} of {found.total} specimens, {store.used() / 1e6:.1f} MB of pictures.")


@app.command()
def show(folder: _Store, key: _Key) -> None:
    """Show one specimen with its whole history.

    wbc-hf store show specimens/ 0f3c…
    """
    from wbc_hf.reports import history_lines

    with needs_extra("store"):
        from wbc_hf.store import SpecimenStore
    store = SpecimenStore(_existing(folder))
    item, specimen = store.show(key), store.open(key)
    say(f"{on_one_line(item.name) or 'not named'}: {item.state.value}")
    say(f"  {item.pictures} pictures, {item.cells} cells, {item.counted} counted, {item.waiting} waiting for review")
    for time, line in history_lines(specimen.history):
        say(f"  {time:%Y-%m-%d %H:%M:%S} UTC  {on_one_line(line)}")


@app.command()
def remove(
    folder: _Store,
    key: _Key,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a specimen with its pictures and history. This cannot be undone; backups keep it.

    wbc-hf store remove specimens/ 0f3c…
    """
    with needs_extra("store"):
        from wbc_hf.store import SpecimenStore
    store = SpecimenStore(_existing(folder))
    item = store.show(key)
    if not yes:
        typer.confirm(
            f"Delete {on_one_line(item.name) or 'a specimen without a name'} ({item.state.value})?", abort=True
        )
    store.delete(key)
    say(f"Deleted {key}.")


@app.command()
def backup(folder: _Store, target: Annotated[Path, typer.Argument(help="A folder that does not exist.")]) -> None:
    """Copy a store into a new folder, also while a page uses it. The copy is checked, and is a store itself.

    wbc-hf store backup specimens/ /backups/specimens-2026-11-30
    """
    with needs_extra("store"):
        from wbc_hf.store import SpecimenStore, back_up
    say(f"Copied {back_up(SpecimenStore(_existing(folder)), target)} specimens to {target}.")


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="Folder that `backup` wrote.")],
    target: Annotated[Path, typer.Argument(help="A folder that does not exist: the new store.")],
) -> None:
    """Make a store of a backup. Nothing is written over, and the backup stays.

    wbc-hf store restore /backups/specimens-2026-11-30 specimens/
    """
    with needs_extra("store"):
        from wbc_hf import store
    say(f"Restored {store.restore(source, target)} specimens to {target}.")


def _existing(folder: Path) -> Path:
    if not (folder / "store.db").is_file():
        raise WbcError(
            f"{folder}: is no store, since it has no store.db. A page makes one: wbc-hf serve --store FOLDER."
        )
    return folder
