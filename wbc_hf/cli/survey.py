"""`wbc-hf survey`: the literature's systems on the same cells and the same split."""

from pathlib import Path
from typing import Annotated

import typer

from wbc_hf.cli.shared import make_output_folder, resumable
from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.safe_text import say


def survey(
    spec: Annotated[str, typer.Argument(help="Training data: a folder, kaggle:owner/name, or a Hub data set.")],
    system: Annotated[
        list[str] | None, typer.Option(help="Run only this system; may be given several times. By default all.")
    ] = None,
    laboratory: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SPEC", help="Another laboratory's cells to test on; may be given several times."),
    ] = None,
    fields: Annotated[
        Path | None,
        typer.Option(help="Photographs in images/ and VOC boxes in annotations/, to test detectors on."),
    ] = None,
    most: Annotated[int | None, typer.Option(help="Maximum of training cells per class; by default all.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the survey.")] = Path("runs/survey"),
    seed: Annotated[int, typer.Option(help="Random seed, of the split too.")] = 0,
) -> None:
    """Run the literature's systems for leucocytes on the same cells and the same split.

    Each is fitted and evaluated in a process of its own, with progress. What
    is finished is kept: after a stop, the same command resumes. Tables are in
    OUTPUT/survey.md, the plot in OUTPUT/survey.png, and each system's
    predictions in OUTPUT/SYSTEM/test and OUTPUT/SYSTEM/NAME, where
    `wbc-hf compare` takes any two of them. It needs the extra `survey`.

        wbc-hf survey pbc/ --most 600 --laboratory bccd=bccd/crops --fields bccd/fields

        wbc-hf compare runs/survey/ours/test runs/survey/huang-2012/test
    """
    with needs_extra("survey"):
        from wbc_hf.survey import Plan, conduct

    if output.exists():  # else it is made once the sets are found
        make_output_folder(output)
    plan = Plan(spec, tuple(_named_set(given) for given in laboratory or ()), most, seed)
    with resumable():
        failed = conduct(plan, system or (), fields, output)
    if failed:
        say(f"wbc-hf: failed: {', '.join(failed)}. The others are done; the same command tries again.", error=True)
        raise typer.Exit(1)


def _named_set(given: str) -> tuple[str, str]:
    """Split `bccd=cells/bccd` into name and data set."""
    name, equals, spec = given.partition("=")
    if not (equals and spec and name.isidentifier()):
        raise WbcError(
            f"--laboratory {given}: NAME=SPEC is expected, the name of letters and digits, such as bccd=cells/bccd."
        )
    return name, spec
