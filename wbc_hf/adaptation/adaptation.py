"""Adapt a model to another laboratory, and write the result as an ordinary model folder."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from wbc_hf.adaptation.adaptation_cell import AdaptationCell
from wbc_hf.adaptation.card import read_card, render_card
from wbc_hf.adaptation.progress import ProgressCallback, no_progress, subprogress
from wbc_hf.adaptation.results import Adaptation
from wbc_hf.errors import WbcError
from wbc_hf.files import write_json
from wbc_hf.hub import CARD_FILE, copy_notice, fetch_model
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.modeling import Calibration, Preprocessing, digest_weights

ADAPTATION_FILE = "adaptation.json"


def adapt(
    model: str | Path,
    cells: str | Path | Sequence[AdaptationCell] | None,
    output: str | Path,
    *,
    fields: str | Path | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Adaptation:
    """Adapt a model to cells of another laboratory, and write it as a model folder.

    Without labels this is unsupervised domain adaptation by another last layer; with labels of some cells, few-shot
    domain adaptation, of the last layer or, with 20 or more, by fine-tuning; evaluated by cross-validation.

    Args:
        model: A folder or a Hub id; a ResNet of the five classes.
        cells: Cells, or a folder of images of one cell each. Sub-folders named like classes, in any known spelling,
            are labels; without any, all images below the folder have none. Images that cannot be read or show no
            stained cell are left out, each with a warning. At least `MIN_UNLABELLED` cells are needed without
            labels; with labels, `MIN_CELLS` in each of `MIN_CLASSES` classes, from two groups or more.
            None where all come from `fields`.
        output: A new folder. After an error it does not exist.
        fields: A folder of photographs of smears; the cells that are found in them are learned from without labels.
        seed: Random seed.
        progress: Called with what is being done and the share of the whole that is done, 0 to 1.

    Returns:
        What was done and measured, as in the folder's `adaptation.json`.

    Raises:
        WbcError: The model cannot be adapted, the cells are too few, a sub-folder names no class beside some that do,
            or the output exists or cannot be written.
    """
    # The page imports this module when it starts: PyTorch waits until something is adapted.
    from wbc_hf.adaptation.cells import LeftOut, check_cells, read_cells, read_fields
    from wbc_hf.adaptation.few_shot import adapt_few_shot
    from wbc_hf.adaptation.task import Task
    from wbc_hf.adaptation.unsupervised import adapt_unsupervised

    progress = progress or no_progress
    with _new_folder(Path(output)) as folder:
        source = fetch_model(model)
        predictor, card = _load(model, source), read_card(source)
        left_out = LeftOut()
        if isinstance(cells, str | Path):
            cells, left_out = read_cells(Path(cells), subprogress(progress, 0, 0.15))
            progress = subprogress(progress, 0.15, 1)
        cells = list(cells or ())
        if fields is not None:
            found, unreadable = read_fields(Path(fields), predictor, subprogress(progress, 0, 0.15))
            cells, left_out = cells + found, replace(left_out, unreadable=left_out.unreadable + unreadable)
            progress = subprogress(progress, 0.15, 1)
        labels = np.array([-1 if cell.label is None else cell.label for cell in cells], dtype=np.int64)
        check_cells(labels, left_out)
        identity = predictor.identity
        task = Task(predictor, cells, labels, seed, progress)
        calibration, facts = adapt_few_shot(task) if (labels >= 0).any() else adapt_unsupervised(task)
        adaptation = Adaptation(
            model=identity.name,
            version=identity.version,
            software=identity.software,
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            seed=seed,
            cells=len(cells),
            unreadable=left_out.unreadable,
            not_cells=left_out.not_cells,
            review_threshold=calibration.review_threshold,
            target_reached=calibration.target_reached,
            **facts,
        )
        predictor.model.save_pretrained(folder)
        predictor.processor.save_pretrained(folder)
        calibration.save(folder)
        copy_notice(source, folder)
        write_json(folder / ADAPTATION_FILE, asdict(adaptation))
        (folder / CARD_FILE).write_text(render_card(card, adaptation), encoding="utf-8")
        progress("Done", 1)
    return adaptation


def _load(model: str | Path, folder: Path) -> Predictor:
    """Load a model into memory, where changed weights take effect at once."""
    from transformers import ResNetForImageClassification

    from wbc_hf.modeling import load_classifier, load_processor

    network, processor = load_classifier(folder), load_processor(folder)
    if not isinstance(network, ResNetForImageClassification) or Preprocessing(processor).mean is None:
        raise WbcError(
            f"{model}: is a {network.config.model_type!r} model with a {type(processor).__name__}. Only the ResNet "
            "family with its own processor can be adapted."
        )
    # The version is that of the folder, also where its weights are in half precision and the network's are not.
    weights = digest_weights(folder)
    predictor = Predictor(network, processor, str(model), Calibration.load(folder), folder=folder, weights=weights)
    if [class_index(name) for name in predictor.labels] != list(range(len(CLASS_NAMES))):
        raise WbcError(
            f"{model}: tells {', '.join(predictor.labels)} apart. Only a model of {', '.join(CLASS_NAMES)}, in this "
            "order, can be adapted."
        )
    predictor.check()
    return predictor


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `output` at the end of the block, and removed after an error."""
    output = output.expanduser().absolute()
    if output.exists():
        raise WbcError(f"{output}: exists already. Give the name of a new folder for the adapted model.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=".adapt-", dir=output.parent)
    except OSError as error:
        raise WbcError(f"{output}: cannot be written ({error.strerror}). Name a folder in another place.") from error
    with temporary as parent:
        folder = Path(parent) / output.name
        folder.mkdir()
        yield folder
        try:
            folder.rename(output)
        except OSError as error:
            raise WbcError(
                f"{output}: cannot be made ({error.strerror}). Another program may have made it since this one began. "
                "Give the name of a new folder, and start again."
            ) from error
