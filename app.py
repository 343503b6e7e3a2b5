"""Serve a model as a web page. A Hugging Face Space runs this file as it is.

python app.py                                   # models/starter, or what WBC_HF_MODEL names
python app.py --model runs/cells --port 8000    # a folder that training wrote
python app.py --model owner/name                # a model on the Hub
python app.py --ranges ranges.yaml --references cells/   # the laboratory's own ranges, and cells to compare with
WBC_HF_USERS="ana:secret" python app.py --host 0.0.0.0 --auth --root-path /leucocytes   # behind a reverse proxy
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from wbc_hf.default_model import VARIABLE, choose_model
from wbc_hf.errors import WbcError

if TYPE_CHECKING:
    import gradio as gr

USERS = "WBC_HF_USERS"  # not an argument: those are seen by everybody on the machine


def make_parser() -> argparse.ArgumentParser:
    """The arguments; gradio's own environment variables, which a Space sets, give the defaults of host and port."""
    parser = argparse.ArgumentParser(description="Serve a model as a web page. Research use, not for diagnosis.")
    parser.add_argument(
        "--model",
        help=f"model folder, or the id of a model on the Hub (default: the variable {VARIABLE}, else models/starter)",
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="address to listen at; 0.0.0.0 lets other machines in (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("GRADIO_SERVER_PORT", "7860"),
        help="port to listen at (default: %(default)s)",
    )
    parser.add_argument(
        "--ranges",
        type=Path,
        help="reference ranges of the laboratory: a YAML file with lines such as `neutrophil: [39, 75]`, in percent",
    )
    parser.add_argument(
        "--references",
        type=Path,
        help="folder of known cells, a sub-folder per class: the most alike are shown beside an answer",
    )
    parser.add_argument(
        "--auth",
        action="store_true",
        help=f"let in only those whom the variable {USERS} names: name:password, several parted by white space",
    )
    parser.add_argument("--root-path", help="path below which a reverse proxy serves the page, such as /leucocytes")
    parser.add_argument(
        "--mcp",
        action="store_true",
        help="let language models use the page's endpoints as tools; needs pip install 'wbc-hf[mcp]'",
    )
    return parser


def read_users(given: str | None) -> list[tuple[str, str]]:
    """`"ana:secret ben:other"` → names and passwords.

    Raises:
        WbcError: There are none, or one has no name or no password.
    """
    users = [tuple(user.partition(":")[::2]) for user in (given or "").split()]
    if not users or not all(name and password for name, password in users):
        raise WbcError(
            f"--auth: the variable {USERS} names those who may come in, as name:password, several parted by white "
            "space. It is empty or has one without name or password."
        )
    return users


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until interrupted.

    Raises:
        SystemExit: 2 with a message where something that was given cannot be used.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    arguments = make_parser().parse_args(argv)
    # A folder of its own for uploads: Gradio names them after their content and removes them when a page ends, also
    # those of another page on the same machine. It goes with this one.
    with TemporaryDirectory(prefix="wbc_hf-page-") as folder:
        os.environ.setdefault("GRADIO_TEMP_DIR", folder)
        try:
            page = serve(arguments)
        except WbcError as error:
            print(f"app.py: {error}", file=sys.stderr)
            sys.exit(2)
        page.block_thread()


def serve(arguments: argparse.Namespace) -> "gr.Blocks":
    """Load the model, serve the page in the background, and say where.

    Raises:
        WbcError: Something that was given cannot be used.
    """
    model = choose_model(arguments.model)
    users = read_users(os.environ.get(USERS)) if arguments.auth else []
    # Imported late: a wrong argument is told at once, not after the ten seconds that the libraries take.
    from wbc_hf.inference import Predictor, ReferenceCells
    from wbc_hf.memory import keep_memory_level
    from wbc_hf.smear import DEFAULT_RANGES, load_ranges
    from wbc_hf.web import build_page, launch_page

    ranges = load_ranges(arguments.ranges) if arguments.ranges else DEFAULT_RANGES
    keep_memory_level()
    predictor = Predictor.from_pretrained(model)
    references = ReferenceCells.from_folder(arguments.references, predictor) if arguments.references else None
    page = build_page(predictor, ranges=ranges, references=references)
    url = launch_page(
        page, arguments.host, arguments.port, users=users, root_path=arguments.root_path, mcp=arguments.mcp
    )
    print(f"{model} answers at {url}  (Ctrl+C ends it)", flush=True)
    return page


if __name__ == "__main__":
    main()
