"""Fine-tune a ResNet-50 to tell leucocytes apart, judge it on the test split, and publish it.

# the source study's set and network (needs Kaggle and the Hub)
python train.py --freeze stage2 --output_dir runs/study

# a folder of class sub-folders, without any Hub
python train.py --dataset cells/ --from_scratch --width 0.25 --image_size 112 --output_dir runs/cells

# arguments from a file; what follows it wins
python train.py configs/painted.yaml --num_train_epochs 3

# twenty short trials of other values first, then the run with the best of them
python train.py --dataset cells/ --freeze stage3 --cached_views 4 --search 20 --output_dir runs/cells

# several GPUs (or `torchrun --nproc_per_node 2 train.py …` for two processes without any)
accelerate launch train.py --dataset cells/ --output_dir runs/cells

# after an interruption: the same command with --resume
"""

import logging
import sys
from collections.abc import Sequence

from transformers.utils.logging import disable_progress_bar

from wbc_hf.errors import WbcError
from wbc_hf.training import parse, run


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line says.

    Raises:
        SystemExit: 2 with a message where something that was given cannot be used, 130 after Ctrl-C.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("wbc_hf").setLevel(logging.INFO)
    disable_progress_bar()  # of loading and saving weights; the training keeps its own
    try:
        run(*parse(sys.argv[1:] if argv is None else argv))
    except WbcError as error:
        print(f"train.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("train.py: stopped. With --resume the same command goes on where it was.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
