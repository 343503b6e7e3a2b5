"""Serve a model as a web page. A Hugging Face Space runs this file as it is.

python app.py                                   # models/demo, or what WBC_HF_MODEL names
python app.py --model runs/cells --port 8000    # a folder that training wrote
python app.py --model owner/name                # a model on the Hub
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from wbc_hf.errors import WbcError

DEMO_MODEL = Path("models/demo")


def make_parser() -> argparse.ArgumentParser:
    """The arguments; gradio's own environment variables, which a Space sets, give the defaults of host and port."""
    parser = argparse.ArgumentParser(description="Serve a model as a web page. Research use, not for diagnosis.")
    parser.add_argument(
        "--model",
        default=os.environ.get("WBC_HF_MODEL"),
        help=f"model folder, or the id of a model on the Hub (default: the variable WBC_HF_MODEL, else {DEMO_MODEL})",
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
    return parser


def choose_model(given: str | None) -> str:
    """The model that was named, or else the demonstration model.

    Raises:
        WbcError: None was named, and there is no demonstration model.
    """
    if given:
        return given
    if DEMO_MODEL.is_dir():
        return str(DEMO_MODEL)
    raise WbcError(
        "no model to serve. `make demo` trains one on painted cells in two minutes; "
        "or name a folder or a Hub id with --model, or in the variable WBC_HF_MODEL."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until interrupted.

    Raises:
        SystemExit: 2 with a message where something that was given cannot be used.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    arguments = make_parser().parse_args(argv)
    try:
        model = choose_model(arguments.model)
        # Imported late: a wrong argument is told at once, not after the ten seconds that the libraries take.
        from wbc_hf.serving import Predictor
        from wbc_hf.serving.page import build_page, launch_page

        page = build_page(Predictor.from_pretrained(model))
        print(f"{model} answers at {launch_page(page, arguments.host, arguments.port)}  (Ctrl+C ends it)", flush=True)
    except WbcError as error:
        print(f"app.py: {error}", file=sys.stderr)
        sys.exit(2)
    page.block_thread()


if __name__ == "__main__":
    main()
