"""`wbc-hf push`: publish a model on the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from wbc_hf.safe_text import say


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    repo_id: Annotated[str, typer.Argument(help="Repository on the Hub: owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    changes: Annotated[
        str | None, typer.Option(help="What is new in this version, for its card.", show_default=False)
    ] = None,
) -> None:
    """Publish a model with its card and figures on the Hugging Face Hub.

    The card lists what changed, version by version: training and adapting write a line, and --changes adds one. A
    model other than the published one needs a line that is not published yet. The token comes from HF_TOKEN or
    `hf auth login`. A push that breaks off leaves the folder whole: repeat it.
    """
    from wbc_hf.hub import push_folder

    say(push_folder(folder, repo_id, private=private, changes=changes))
