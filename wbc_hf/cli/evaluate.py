"""`wbc-hf evaluate`: how good a model is on labelled images."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbc_hf.cli.shared import OTHER_CLASSES_HELP, OtherClasses, make_output_folder
from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.safe_text import say

if TYPE_CHECKING:
    from wbc_hf.data import Leucocytes

logger = logging.getLogger(__name__)


class Split(StrEnum):
    """Which images `evaluate` classifies."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    ALL = "all"


def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.")],
    data: Annotated[
        list[str],
        typer.Argument(help="Labelled images: a folder, kaggle:owner/name, synthetic, or a Hub data set; or several."),
    ],
    split: Annotated[
        Split, typer.Option(help="Which of its images; all, if the model was not trained on any of them.")
    ] = Split.TEST,
    other_classes: Annotated[OtherClasses, typer.Option(help=OTHER_CLASSES_HELP)] = OtherClasses.REFUSE,
    seed: Annotated[int, typer.Option(help="Random seed of the split, for data without a test split.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Folder for metrics.json, predictions.csv and figures/.")] = None,
) -> None:
    """Evaluate a model on labelled images: metrics with 95 % confidence intervals.

    Intervals are by bootstrap over distinct cells. Two folders written with
    --output for the same images can be compared: `wbc-hf compare`.

        wbc-hf evaluate runs/cells other-laboratory/ --split all --output runs/cells-elsewhere

    Of several sets each is a laboratory, with figures of its own.
    """
    from datasets import concatenate_datasets
    from transformers.utils.logging import disable_progress_bar

    from wbc_hf.data import leaked_test_images, load_leucocytes
    from wbc_hf.inference import Predictor, evaluate_predictor

    disable_progress_bar()
    if output is not None:
        _check_output(output)
    predictor = Predictor.from_pretrained(model)
    leucocytes = load_leucocytes(data, other_classes=other_classes.value, seed=seed)
    rows = concatenate_datasets(list(leucocytes.values())) if split is Split.ALL else leucocytes[split]
    trained_on = predictor.folder is not None and _was_trained_on(predictor.folder, leucocytes)
    if trained_on and split is not Split.TEST:
        logger.warning(
            "%s: the model was trained on images of this set; only --split test tells how good it is.",
            leucocytes.provenance.spec,
        )
    leaked = leaked_test_images(leucocytes) if trained_on and split is Split.TEST else None
    evaluation = evaluate_predictor(predictor, rows, output, leaked=leaked)
    say(f"{model} on {leucocytes.provenance.spec}, split {split}\n\n{evaluation}\n")
    say(f"Fingerprint of the data and their splits: {leucocytes.provenance.fingerprint}")
    if output is not None:
        say(f"The report is in {output}")


def _check_output(output: Path) -> None:
    """Make the folder, so that a mistake shows before the images are classified.

    Raises:
        WbcError: It cannot be made, or holds a model, whose own report would be replaced, or matplotlib is missing.
    """
    with needs_extra("figures"):
        import matplotlib  # noqa: F401
    if (output / "config.json").exists():
        raise WbcError(f"{output}: holds a model, whose own report would be replaced. Give another --output.")
    make_output_folder(output)


def _was_trained_on(folder: Path, leucocytes: "Leucocytes") -> bool:
    """Whether the training run of a model had these images in these splits; one warning if it had other splits."""
    from wbc_hf.cli.training_data import read_training_data

    data = read_training_data(folder)
    if data is None:
        return False
    if data.fingerprint == leucocytes.provenance.fingerprint:
        return True
    if shared := [origin.spec for origin in leucocytes.provenance.origins if origin.spec in data.specs]:
        logger.warning(
            "%s: the model was trained on images of this set, in other splits. Evaluate it on %s, and give --seed the "
            "run's --split_seed.",
            " ".join(shared),
            data.spec,
        )
    return False
