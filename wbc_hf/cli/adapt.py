"""`wbc-hf adapt`: adapt a model to another laboratory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from wbc_hf.cli.shared import MODEL_HELP, exit_if_unreadable
from wbc_hf.default_model import choose_model
from wbc_hf.safe_text import say


def adapt(
    *,
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images of one cell each, or of sub-folders named after the classes.")
    ] = None,
    fields: Annotated[
        Path | None,
        typer.Option(help="Folder of photographs of smears: the cells found in them have no labels."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="New folder for the adapted model; by default MODEL-adapted, beside a model folder."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Adapt a model to another laboratory's stain and camera, from some of its cells.

    Without labels (unsupervised), from 20 images or more: the model's last
    layer is fitted to how these cells lie together. Where that does not
    help, as far as can be told without labels, its weights stay as they
    are, with a threshold of these cells.

        wbc-hf adapt --images unsorted/ --output runs/ours

    With labels (few-shot), which is better: about 20 images of each class,
    fewer of rare ones, in sub-folders named after the classes. The model is
    scored before and after on held-back cells, by cross-validation. Fewer
    than 20 in all move its last layer alone; they need the other cells of
    their laboratory beside them (--fields).

        wbc-hf adapt runs/cells --images sorted/ --output runs/ours

    Photographs of smears will do too, alone or beside labelled cells: their
    cells are found first.

        wbc-hf adapt --fields smear/ --images sorted/ --output runs/ours

    The new folder is a model like any other; its card says what was done.
    Images that cannot be read or show no stained cell are named on standard
    error and left out. Where some cannot be read, the exit status is 1.
    """
    from transformers.utils.logging import disable_progress_bar

    from wbc_hf.adaptation import adapt as adapt_model
    from wbc_hf.adaptation import describe_adaptation

    disable_progress_bar()
    model = choose_model(model)
    output = output or _default_output(model)
    with progress_bar() as progress:
        adaptation = adapt_model(model, images, output, fields=fields, seed=seed, progress=progress)
    say(describe_adaptation(adaptation))
    say(f"The adapted model: {output}")
    exit_if_unreadable(adaptation.unreadable, adaptation.cells + adaptation.unreadable + adaptation.not_cells)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, float], None]]:
    """A bar on the terminal with the time that is left, as a callback of `adapt`."""
    from tqdm.auto import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    form = "{l_bar}{bar}| {elapsed}, {remaining} left"
    with logging_redirect_tqdm(), tqdm(total=100, bar_format=form, delay=2, leave=False) as bar:

        def update(step: str, share: float) -> None:
            bar.set_description(step, refresh=False)
            bar.update(100 * share - bar.n)

        yield update


def _default_output(model: str) -> Path:
    """MODEL-adapted beside a model folder, else in the current folder."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        return folder.with_name(f"{folder.name}-adapted")
    return Path(f"{folder.name}-adapted")
