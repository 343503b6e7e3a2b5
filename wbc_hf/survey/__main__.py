"""Run one system of a survey: `python -m wbc_hf.survey FOLDER SYSTEM`, as `wbc-hf survey` starts it."""

import sys
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from wbc_hf.errors import WbcError
from wbc_hf.memory import keep_freed_memory
from wbc_hf.safe_text import say, set_up_logging
from wbc_hf.survey.running import read_plan, run_system
from wbc_hf.survey.systems import SYSTEMS


def main(folder: str, name: str) -> None:
    """Run one system of a survey.

    Raises:
        SystemExit: 2 with a message where something cannot be used, 130 after Ctrl-C.
    """
    set_up_logging()
    disable_progress_bar()  # of loading and saving weights; the training keeps its own
    keep_freed_memory()
    try:
        run_system(SYSTEMS[name], read_plan(Path(folder)), Path(folder) / name)
    except WbcError as error:
        say(f"wbc-hf: {name}: {error}", error=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
