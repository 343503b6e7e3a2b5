"""The command line `wbc-hf`, one module a command.

Command modules import what computes inside their functions, so that `wbc-hf --help` takes no time and no command
imports the libraries of another.
"""

from collections.abc import Callable
from typing import Annotated

import typer

from wbc_hf import __version__
from wbc_hf.cli import (
    adapt,
    audit,
    compare,
    count,
    distil,
    evaluate,
    export,
    laboratories,
    predict,
    push,
    serve,
    store,
    survey,
    train,
)
from wbc_hf.cli.shared import exit_on_error, find_files
from wbc_hf.safe_text import say

__all__ = ["app", "find_files", "main"]

app = typer.Typer(
    help="Classify white blood cells (leucocytes) in images of stained smears. Research use, not for diagnosis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

_COMMANDS: tuple[Callable[..., None], ...] = (
    predict.predict,
    count.count,
    adapt.adapt,
    audit.audit,
    evaluate.evaluate,
    compare.compare,
    export.export,
    push.push,
    serve.serve,
    survey.survey,
)
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(laboratories.app, name="laboratories")
app.add_typer(store.app, name="store")
app.command(context_settings=train.PASS_ON_EVERYTHING)(distil.distil)
app.command(add_help_option=False, context_settings=train.PASS_ON_EVERYTHING)(train.train)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if show:
        say(__version__)
        raise typer.Exit


def main() -> None:
    """Run `wbc-hf`."""
    with exit_on_error("wbc-hf"):
        app(prog_name="wbc-hf")
