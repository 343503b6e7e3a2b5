"""`wbc-hf compare`: two models on the same test cells."""

from pathlib import Path
from typing import Annotated

import typer

from wbc_hf.safe_text import say


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    second: Annotated[Path, typer.Argument(help="Folder of another run, evaluated on the same test cells.")],
) -> None:
    """Compare two models on the same test cells, with paired 95 % confidence intervals."""
    from wbc_hf.evaluation import compare_reports, format_comparison

    say(format_comparison(compare_reports(first, second)))
