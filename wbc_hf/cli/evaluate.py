"""`wbc-hf evaluate`: how good a model is on labelled images."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wbc_hf.cli.shared import OTHER_CLASSES_HELP, OtherClasses, make_output_folder
from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.safe_text import say

if TYPE_CHECKING:
    from wbc_hf.data import Leucocytes
    from wbc_hf.inference import Predictor

logger = logging.getLogger(__name__)

Split = Literal["train", "validation", "test", "all"]


def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.")],
    data: Annotated[
        list[str],
        typer.Argument(help="Labelled images: a folder, kaggle:owner/name, synthetic, or a Hub data set; or several."),
    ],
    split: Annotated[
        Split, typer.Option(help="Which of its images; all, if the model was not trained on any of them.")
    ] = "test",
    other_classes: Annotated[OtherClasses, typer.Option(help=OTHER_CLASSES_HELP)] = "refuse",
    seed: Annotated[int, typer.Option(help="Random seed of the split, for data without a test split.")] = 0,
    compare: Annotated[
        str | None, typer.Option(help="Another model folder or Hub id, for paired differences on the same images.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for report.html, metrics.json, predictions.csv and figures/.")
    ] = None,
) -> None:
    """Evaluate a model on labelled images: metrics with 95 % confidence intervals.

    Intervals are by bootstrap over distinct cells. --output writes the report
    that a training run has: report.html opens in a browser.

        wbc-hf evaluate runs/cells other-laboratory/ --split all --output runs/cells/evaluations/elsewhere

    What lies in `evaluations` of a model's folder, the page's Model tab shows too.

        wbc-hf evaluate runs/cells other-laboratory/ --split all --compare models/starter

    tells which of two models is better there. (`wbc-hf compare` does so from
    two reports, without the images.) Of several sets each is a laboratory,
    with figures of its own.
    """
    from datasets import concatenate_datasets
    from transformers.utils.logging import disable_progress_bar

    from wbc_hf.data import leaked_test_images, load_leucocytes
    from wbc_hf.evaluation import REPORT_PAGE, EvaluatedSet, format_comparison
    from wbc_hf.hardware import use_one_blas_thread
    from wbc_hf.inference import Predictor, evaluate_predictor

    disable_progress_bar()
    use_one_blas_thread()
    if output is not None:
        _check_output(output)
    predictor = Predictor.from_pretrained(model)
    other = None if compare is None else Predictor.from_pretrained(compare)
    leucocytes = load_leucocytes(data, other_classes=other_classes, seed=seed)
    rows = concatenate_datasets(list(leucocytes.values())) if split == "all" else leucocytes[split]
    trained_on = _was_trained_on(predictor, leucocytes, split)
    if other is not None:
        _was_trained_on(other, leucocytes, split)
    leaked = leaked_test_images(leucocytes) if trained_on and split == "test" else None
    provenance = leucocytes.provenance
    evaluated = EvaluatedSet(provenance.spec, split, seed, provenance.fingerprint)
    evaluation = evaluate_predictor(predictor, rows, output, leaked=leaked, data=evaluated, other=other)
    say(f"{model} on {provenance.spec}, split {split}\n\n{evaluation}\n")
    if other is not None:
        say(f"First {model}, second {compare}:\n{format_comparison(evaluation.metrics['comparison'])}\n")
    say(f"Fingerprint of the data and their splits: {provenance.fingerprint}")
    if output is not None:
        say(f"The report is in {output}: open {output / REPORT_PAGE}")


def _check_output(output: Path) -> None:
    """Make the folder, so that a mistake shows before the images are classified."""
    with needs_extra("figures"):
        import matplotlib  # noqa: F401
    if (output / "config.json").exists():
        raise WbcError(f"{output}: holds a model, whose own report would be replaced. Give another --output.")
    make_output_folder(output)


def _was_trained_on(predictor: "Predictor", leucocytes: "Leucocytes", split: Split) -> bool:
    """Whether a model's training run had these images in these splits; a warning if its figures are too good."""
    from wbc_hf.inference import read_training_data

    data = None if predictor.folder is None else read_training_data(predictor.folder)
    if data is None:
        return False
    if data.fingerprint == leucocytes.provenance.fingerprint:
        if split != "test":
            logger.warning(
                "%s: %s was trained on images of this set; only --split test tells how good it is.",
                leucocytes.provenance.spec,
                predictor.name,
            )
        return True
    if shared := [origin.spec for origin in leucocytes.provenance.origins if origin.spec in data.specs]:
        logger.warning(
            "%s: %s was trained on images of this set, in other splits. Evaluate it on %s, and give --seed the "
            "run's --split_seed.",
            " ".join(shared),
            predictor.name,
            data.spec,
        )
    return False
