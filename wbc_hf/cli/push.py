"""`wbc-hf push`: publish a model on the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from wbc_hf.safe_text import say


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    repo_id: Annotated[str, typer.Argument(help="Repository on the Hub: owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Publish a model with its card and figures on the Hugging Face Hub.

    The token comes from HF_TOKEN or `hf auth login`. A push that breaks off leaves the folder whole: repeat it.
    """
    from wbc_hf.hub import push_folder

    say(push_folder(folder, repo_id, private=private))
