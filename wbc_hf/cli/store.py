"""`wbc-hf store`: what is kept of specimens, its backup, and its deletion."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.safe_text import on_one_line, say

if TYPE_CHECKING:
    from wbc_hf.store import SpecimenStore, WorkItem

app = typer.Typer(
    help=(
        "Look at, back up, restore and delete the specimens that a page keeps (`wbc-hf serve --store FOLDER`).\n\n"
        "A store is a folder with a database and a file of pictures for each specimen, or a PostgreSQL database "
        "(postgresql+psycopg://user@host/database; the password in the variable PGPASSWORD or in ~/.pgpass). It is "
        "made by the page, and may be in use while these commands run."
    ),
    no_args_is_help=True,
)

_WIDTH = 110
_Store = Annotated[
    str, typer.Argument(help="Folder of the store, or its address, postgresql+psycopg://user@host/database.")
]
_Key = Annotated[str, typer.Argument(help="Key of the specimen, as `list` shows it.")]


@app.command("list")
def list_specimens(
    store: _Store,
    words: Annotated[str, typer.Option(help="Only those that have these words in name, numbers or comment.")] = "",
    most: Annotated[int, typer.Option(min=1, help="How many to list.")] = 100,
) -> None:
    """List specimens, those that changed last first.

    wbc-hf store list specimens/ --words "S-17"
    """
    from wbc_hf.evaluation import format_table, plain_table

    opened = _open(store)
    found = opened.find(words, most=most)
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
    say(f"\n{len(found.items)} of {found.total} specimens, {opened.used() / 1e6:.1f} MB of pictures.")


@app.command()
def show(store: _Store, key: _Key) -> None:
    """Show one specimen with its whole history.

    wbc-hf store show specimens/ 0f3c…
    """
    from wbc_hf.reports import history_lines

    opened = _open(store)
    item, specimen = opened.show(key), opened.open(key)
    say(f"{on_one_line(item.name) or 'not named'}: {item.state.value}")
    say(f"  {item.pictures} pictures, {item.cells} cells, {item.counted} counted, {item.waiting} waiting for review")
    for time, line in history_lines(specimen.history):
        say(f"  {time:%Y-%m-%d %H:%M:%S} UTC  {on_one_line(line)}")


@app.command()
def remove(
    store: _Store,
    key: _Key,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a specimen with its pictures and history. This cannot be undone; backups keep it.

    wbc-hf store remove specimens/ 0f3c…
    """
    opened = _open(store)
    item = opened.show(key)
    if not yes:
        typer.confirm(
            f"Delete {on_one_line(item.name) or 'a specimen without a name'} ({item.state.value})?", abort=True
        )

    def check(now: "WorkItem") -> None:
        if now.state is not item.state:
            raise WbcError(
                f"specimen {key}: was {item.state.value}, and is {now.state.value} now. It was not deleted: ask again."
            )

    opened.delete(key, check)
    say(f"Deleted {key}.")


@app.command()
def backup(store: _Store, target: Annotated[Path, typer.Argument(help="A folder that does not exist.")]) -> None:
    """Copy a store into a new folder, also while a page uses it. The copy is checked, and is a store itself.

    wbc-hf store backup specimens/ /backups/specimens-2026-11-30

    wbc-hf store backup postgresql+psycopg://wbc@db/specimens /backups/specimens-2026-11-30
    """
    with needs_extra("store"):
        from wbc_hf.store import back_up
    say(f"Copied {back_up(_open(store), target)} specimens to {target}.")


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="Folder that `backup` wrote.")],
    target: Annotated[
        str,
        typer.Argument(
            help="The new store: a folder that does not exist, or the address of an empty PostgreSQL database."
        ),
    ],
) -> None:
    """Make a store of a backup. Nothing is written over, and the backup stays.

    wbc-hf store restore /backups/specimens-2026-11-30 specimens/

    wbc-hf store restore /backups/specimens-2026-11-30 postgresql+psycopg://wbc@db/specimens
    """
    with needs_extra("store"):
        from wbc_hf.store import restore as restore_backup
    say(f"Restored {restore_backup(source, target)} specimens to {target}.")


def _open(place: str) -> "SpecimenStore":
    """Open a store that is there."""
    with needs_extra("store"):
        from wbc_hf.store import SpecimenStore
    return SpecimenStore(place, must_exist=True)
