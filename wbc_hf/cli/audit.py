"""`wbc-hf audit`: check a data set before a figure measured on it is believed."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbc_hf.cli.shared import OTHER_CLASSES_HELP, OtherClasses, make_output_folder
from wbc_hf.errors import WbcError
from wbc_hf.files import write_json
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.safe_text import say

if TYPE_CHECKING:
    from wbc_hf.data import LabelIssues, Leucocytes
    from wbc_hf.inference import Predictor


def audit(
    specs: Annotated[
        list[str],
        typer.Argument(help="A folder, kaggle:owner/name, or the id of a data set on the Hub; several together."),
    ],
    model: Annotated[
        str | None, typer.Option(help="Model folder or Hub id: also list the labels that this model doubts.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for audit.json and audit.html.")] = None,
    resplit: Annotated[Path | None, typer.Option(help="New folder for a clean split of the files.")] = None,
    other_classes: Annotated[OtherClasses, typer.Option(help=OTHER_CLASSES_HELP)] = "refuse",
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = 0,
) -> None:
    """Audit a data set: near-duplicates, contradictory labels, bad images, classes too small to evaluate.

    Nothing is written into the set itself.

        wbc-hf audit cells/ --output audit/ --resplit clean/

    With a model it also lists labels that this model doubts. Take one that
    was not trained on the set, and look before you change a label.

        wbc-hf audit cells/ --model runs/elsewhere --output audit/
    """
    from wbc_hf.data import audit as audit_set
    from wbc_hf.data import check_new_folder, format_audit, load_leucocytes, write_audit_page, write_clean_split

    if resplit is not None:
        check_new_folder(resplit)
    if output is not None:
        make_output_folder(output)
    predictor = None
    if model is not None:  # now, so that a mistake shows before the images are compared
        from transformers.utils.logging import disable_progress_bar

        from wbc_hf.evaluation import columns_of_classes
        from wbc_hf.inference import Predictor

        disable_progress_bar()
        predictor = Predictor.from_pretrained(model)
        columns_of_classes(predictor.labels)
    leucocytes = load_leucocytes(specs, other_classes=other_classes, seed=seed)
    label_issues = None if predictor is None else _find_label_issues(predictor, leucocytes)
    found = dataclasses.replace(audit_set(leucocytes), label_issues=label_issues)
    say(format_audit(found))
    if output is not None:
        record = dataclasses.asdict(found)
        if found.label_issues is None:
            del record["label_issues"]
        write_json(output / "audit.json", record)
        write_audit_page(found, leucocytes, output / "audit.html")
    if resplit is not None:
        write_clean_split(leucocytes, resplit, seed)


def _find_label_issues(predictor: "Predictor", leucocytes: "Leucocytes") -> "LabelIssues":
    """The labels of all splits that a model doubts."""
    import numpy as np
    from datasets import concatenate_datasets
    from tqdm.auto import tqdm

    from wbc_hf.data import LabelIssues, read_image
    from wbc_hf.evaluation import columns_of_classes, find_label_issues

    rows = concatenate_datasets(list(leucocytes.values()))
    columns = columns_of_classes(predictor.labels)
    lacking = [CLASS_NAMES[label] for label in sorted(set(rows["label"])) if not columns[:, label].any()]
    if lacking:
        raise WbcError(
            f"{predictor.name}: does not know the class {', '.join(lacking)} of this set, and would doubt each such "
            f"label. A model of {', '.join(CLASS_NAMES)} is needed."
        )
    images = (read_image(row["image"]) for row in tqdm(rows, "Predicting", unit="image", delay=2, leave=False))
    labels, probabilities = np.array(rows["label"]), predictor.probabilities(images) @ columns
    return LabelIssues(
        model=predictor.identity.name,
        trained_on=predictor.identity.trained_on,
        seen=_seen_sets(predictor, leucocytes),
        images=len(rows),
        differing=int((probabilities.argmax(axis=1) != labels).sum()),
        issues=find_label_issues(labels, probabilities, rows["source"]),
    )


def _seen_sets(predictor: "Predictor", leucocytes: "Leucocytes") -> tuple[str, ...]:
    """Titles of the sets that the model was trained on, by its thresholds' title of them and its run's fingerprint."""
    from wbc_hf.inference import read_training_data

    titles = tuple(origin.title for origin in leucocytes.provenance.origins)
    data = None if predictor.folder is None else read_training_data(predictor.folder)
    if data is not None and data.fingerprint == leucocytes.provenance.fingerprint:
        return titles
    # Titles hold commas of their own: the list is searched as a whole.
    return tuple(title for title in titles if f", {title}, " in f", {predictor.identity.trained_on}, ")
