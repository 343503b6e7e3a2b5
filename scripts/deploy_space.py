"""Assemble the page as a Hugging Face Space, and push it.

    python scripts/deploy_space.py me/leucocytes                        # with the default model
    python scripts/deploy_space.py me/leucocytes --model runs/pbc       # with the model of a finished run
    python scripts/deploy_space.py --output space/                      # only assemble it, to look at or to run
    cd space/ && pip install -r requirements.txt && python app.py       # what the Space does

The token comes from HF_TOKEN or `hf auth login`.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from wbc_hf.cli.shared import exit_on_error
from wbc_hf.errors import WbcError
from wbc_hf.hub import list_published, push_space

ROOT = Path(__file__).resolve().parents[1]
# An allow-list: a working tree also holds data, runs and whatever else lies about.
FILES = ("app.py", "requirements.txt", "LICENSE", "NOTICE")
FOLDERS = ("wbc_hf", "models/finder")
MODEL = "models/starter"


def assemble(folder: Path, model: Path = ROOT / MODEL) -> None:
    """Write all that the Space runs into a new folder.

    Args:
        folder: Made by this.
        model: Folder of the model that the page serves; the files that `wbc-hf push` publishes are taken.

    Raises:
        WbcError: `folder` exists, or `model` is no model.
    """
    if folder.exists():
        raise WbcError(f"{folder}: exists. Name a new folder, or delete it first.")
    published = list_published(model)
    shutil.copytree(ROOT / "scripts/space", folder)
    for name in FILES:
        if (ROOT / name).is_file():
            shutil.copyfile(ROOT / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in published:
        target = folder / MODEL / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model / name, target)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo_id", nargs="?", help="The Space on the Hub: owner/name.")
    parser.add_argument("--model", type=Path, default=ROOT / MODEL, help="Folder of the model that it serves.")
    parser.add_argument("--output", type=Path, help="A new folder for it; without repo_id nothing is pushed.")
    parser.add_argument("--private", action="store_true", help="Make a new Space private.")
    arguments = parser.parse_args(argv)
    if arguments.repo_id is None and arguments.output is None:
        parser.error("give the Space's owner/name, or --output for a folder")
    with exit_on_error("deploy_space.py"), tempfile.TemporaryDirectory() as temporary:
        folder = arguments.output or Path(temporary) / "space"
        assemble(folder, arguments.model)
        print(
            folder if arguments.repo_id is None else push_space(folder, arguments.repo_id, private=arguments.private)
        )


if __name__ == "__main__":
    main()
