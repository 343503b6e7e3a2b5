"""From a model and cells of another laboratory to a model folder, whole or not at all.

What a network learns from the cells stands in `self_training`. Here some are held back to judge by, and thresholds and
out-of-distribution scores are fitted again.
"""

import copy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from sklearn.model_selection import StratifiedGroupKFold
from transformers import ResNetForImageClassification

from wbc_hf.adaptation.card import CARD_FILE, render_card
from wbc_hf.adaptation.cells import AdaptationCell, LeftOut, check_cells, count_classes, read_cells
from wbc_hf.adaptation.progress import Progress, part, silent
from wbc_hf.adaptation.results import SCORES, STATUSES, Adaptation, Diagnosis, Scores
from wbc_hf.adaptation.self_training import adapt_with_labels, adapt_without_labels, consistency
from wbc_hf.data import may_be_stained_cell
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import evaluate
from wbc_hf.files import write_json
from wbc_hf.hub import fetch_model
from wbc_hf.inference.predictor import Predictor
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.modeling import (
    OUT_OF_DISTRIBUTION_SHARE,
    Calibration,
    Colours,
    OutOfDistributionScore,
    Preprocessing,
    centre_squares,
    fit_temperature,
    fold_temperature,
    load_classifier,
    load_processor,
    measure_colours,
    review_threshold,
)

ADAPTATION_FILE = "adaptation.json"

_FEW_CELLS = 5
_MOST_FOLDS = 4
_SUREST = 0.43
_ONE_CLASS = 0.95  # share of the answers from which on one class looks like a collapse
_UNPROVEN = (
    f"The surest {_SUREST:.0%} of these cells are confident, by the choice of the threshold: how many of them are "
    "right only labels can tell. In two laboratories whose labels were known 95 % and 73 % were."
)


@dataclass(frozen=True)
class _Work:
    """A model, and the cells that it is adapted to.

    Attributes:
        predictor: Of the model, whose network is changed in place.
        cells: Of the other laboratory, n of them.
        squares: uint8 (n, 3, edge, edge), their pictures.
        labels: int64 (n,), -1 where nobody said.
        seed: Of everything that is drawn.
        progress: Told how far it is.
    """

    predictor: Predictor
    cells: Sequence[AdaptationCell]
    squares: torch.Tensor
    labels: np.ndarray
    seed: int
    progress: Progress

    @property
    def colours(self) -> Colours | None:
        """Those that the model learned from, where its folder says."""
        calibration = self.predictor.calibration
        return None if calibration is None else calibration.colours


@dataclass(frozen=True)
class _Outcome:
    """What one of the two ways of adapting gives: the calibration, and its own fields of `Adaptation`."""

    calibration: Calibration
    fields: dict


def adapt_to_cells(
    model: str | Path,
    cells: Sequence[AdaptationCell],
    output: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Adaptation:
    """Adapt a model to cells of another laboratory, and write it as a model folder, whole or not at all.

    Args:
        model: A folder or a Hub id; a ResNet of the five classes.
        cells: Without labels at least `MIN_UNLABELLED`. With labels of some, at least `MIN_CELLS` cells in each of
            `MIN_CLASSES` classes, from two groups or more.
        output: A new folder.
        seed: Of everything that is drawn.
        progress: Told what is being done and how far all of it is, 0 to 1.

    Raises:
        WbcError: The model cannot be adapted, the cells are too few, or the folder exists or cannot be written.
    """
    with _new_folder(output) as made:
        return _adapt(_load(model), cells, LeftOut(), made, seed, progress or silent)


def adapt_to_folder(
    model: str | Path, images: Path, output: Path, *, seed: int = 0, progress: Progress | None = None
) -> Adaptation:
    """Adapt a model to the pictures in a folder: `adapt_to_cells`.

    Sub-folders named like classes, in any known spelling, are labels. Without such, every picture below the folder is
    a cell that nobody named. Pictures that cannot be read or show no stained cell are left out, each with a warning.

    Args:
        model, output, seed, progress: As for `adapt_to_cells`.
        images: Of one cell each.

    Raises:
        WbcError: As `adapt_to_cells`; or the folder is none, or has sub-folders of pictures that name no class beside
            some that do.
    """
    progress = progress or silent
    with _new_folder(output) as made:
        predictor = _load(model)
        cells, left_out = read_cells(images, part(progress, 0, 0.15))
        return _adapt(predictor, cells, left_out, made, seed, part(progress, 0.15, 1))


# ---- the model before


def _load(model: str | Path) -> Predictor:
    """A model in memory: torch runs it, so that what changes in its weights shows at once.

    Raises:
        WbcError: No such model, or none that can be adapted.
    """
    folder = fetch_model(model)
    network, processor = load_classifier(folder), load_processor(folder)
    if not isinstance(network, ResNetForImageClassification) or Preprocessing(processor).mean is None:
        raise WbcError(
            f"{model}: is a {network.config.model_type!r} model with a {type(processor).__name__}. Only the ResNet "
            "family with its own processor can be adapted."
        )
    names = [network.config.id2label[index] for index in sorted(network.config.id2label)]
    if [class_index(name) for name in names] != list(range(len(CLASS_NAMES))):
        raise WbcError(
            f"{model}: tells {', '.join(names)} apart. Only a model of {', '.join(CLASS_NAMES)}, in this order, can "
            "be adapted."
        )
    return Predictor(network, processor, str(model), Calibration.load(folder), folder=folder)


# ---- adapting


def _adapt(
    predictor: Predictor,
    cells: Sequence[AdaptationCell],
    left_out: LeftOut,
    made: Path,
    seed: int,
    progress: Progress,
) -> Adaptation:
    """Adapt the model of a predictor in place, and write everything that belongs to it into the folder `made`."""
    labels = np.array([-1 if cell.label is None else cell.label for cell in cells], dtype=np.int64)
    check_cells(labels, left_out)
    identity = predictor.identity
    squares = centre_squares([cell.image for cell in cells], predictor.processor)
    way = _with_labels if (labels >= 0).any() else _without_labels
    outcome = way(_Work(predictor, cells, squares, labels, seed, progress))
    adaptation = Adaptation(
        model=identity.name,
        version=identity.version,
        software=identity.software,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        cells=len(cells),
        unreadable=left_out.unreadable,
        not_cells=left_out.not_cells,
        review_threshold=outcome.calibration.review_threshold,
        target_reached=outcome.calibration.target_reached,
        **outcome.fields,
    )
    predictor.model.save_pretrained(made)
    predictor.processor.save_pretrained(made)
    outcome.calibration.save(made)
    write_json(made / ADAPTATION_FILE, asdict(adaptation))
    (made / CARD_FILE).write_text(render_card(predictor.folder, adaptation), encoding="utf-8")
    progress("Done", 1)
    return adaptation


def _without_labels(work: _Work) -> _Outcome:
    predictor, squares, progress = work.predictor, work.squares, work.progress
    network, processor = predictor.model, predictor.processor
    images = [cell.image for cell in work.cells]
    may_be_cell = [may_be_stained_cell(image) for image in images]

    def diagnose(calibration: Calibration | None, logits: np.ndarray, features: np.ndarray) -> Diagnosis:
        confidence = softmax(logits, axis=1).max(1)
        shares = None
        if calibration is not None:
            given = np.array(calibration.statuses(confidence, features, may_be_cell))
            shares = {status: float((given == status).mean()) for status in STATUSES}
        return Diagnosis(shares, float(confidence.mean()), consistency(network, squares, processor, seed=work.seed))

    progress("Looking at the cells", 0)
    before = diagnose(predictor.calibration, *predictor.logits_and_features(images))
    report = part(progress, 0.25, 0.75)
    proportions = adapt_without_labels(
        network,
        squares,
        processor,
        colours=work.colours,
        seed=work.seed,
        progress=lambda share: report("Adapting", share),
    )
    progress("Looking at the cells again", 0.75)
    network.eval()
    logits, features = predictor.logits_and_features(images)
    calibration = _fit_calibration(
        predictor.calibration,
        features,
        measure_colours(squares, logits.argmax(1)),
        temperature=1.0 if predictor.calibration is None else predictor.calibration.temperature,
        threshold=unlabelled_review_threshold(softmax(logits, axis=1)),
        target_reached=False,
        fitted_on=len(work.cells),
    )
    after = diagnose(calibration, logits, features)
    warning = None
    likeliest = np.bincount(logits.argmax(1), minlength=len(CLASS_NAMES))
    if likeliest.max() >= _ONE_CLASS * len(work.cells):
        warning = (
            f"Nearly all cells are answered {CLASS_NAMES[likeliest.argmax()]}: unless they are, the adaptation led "
            "astray. Label about 20 cells of each class, and adapt with these."
        )
    elif after.consistency <= before.consistency:
        warning = (
            f"Adaptation did not help by the one criterion that needs no labels: {after.consistency:.1%} of the "
            f"cells get the same class in another view, {before.consistency:.1%} before. Label about 20 cells of "
            "each class, and adapt with these."
        )
    return _Outcome(
        calibration,
        {
            "diagnosis_before": before,
            "diagnosis_after": after,
            "proportions": dict(zip(CLASS_NAMES, map(float, proportions), strict=True)),
            "remarks": (_UNPROVEN,),
            "warning": warning,
        },
    )


def unlabelled_review_threshold(probabilities: np.ndarray) -> float:
    """The probability below which a person should look, where no labels tell how often the model is right.

    Only the surest answers are accepted, `_SUREST` of all. In one laboratory, with which this share was chosen, 95 %
    of those were right, in another 73 %: see docs/unseen-laboratory.md.

    Args:
        probabilities: Of the adapted network, (n, classes).
    """
    return float(np.quantile(probabilities.max(1), 1 - _SUREST))


def _with_labels(work: _Work) -> _Outcome:
    predictor, cells, squares, labels, progress = work.predictor, work.cells, work.squares, work.labels, work.progress
    network, processor = predictor.model, predictor.processor
    folds = hold_back(labels, [cell.group for cell in cells], work.seed)
    held = np.concatenate([held for _, held in folds])
    groups = [cells[index].group for index in held]
    steps = 1 + len(folds)

    def adapt(network: ResNetForImageClassification, chosen: np.ndarray, step: int, what: str) -> None:
        report = part(progress, 0.05 + 0.9 * step / steps, 0.05 + 0.9 * (step + 1) / steps)
        adapt_with_labels(
            network,
            squares[chosen],
            labels[chosen],
            processor,
            colours=work.colours,
            seed=work.seed,
            progress=lambda share: report(what, share),
        )

    progress("Looking at the cells", 0)
    before, _ = predictor.logits_and_features([cells[index].image for index in held])
    answers = []
    for step, (rest, fold) in enumerate(folds):
        without = copy.deepcopy(network)
        adapt(without, rest, step, f"Adapting without the cells held back, {step + 1} of {len(folds)}")
        judge = Predictor(without, processor, predictor.name)
        answers.append(judge.logits_and_features([cells[index].image for index in fold])[0])
    after = np.concatenate(answers)
    adapt(network, np.arange(len(cells)), len(folds), "Adapting to all cells")

    unseen = [not set(labels[fold]) <= set(labels[rest]) for rest, fold in folds]
    # Mistakes about classes that a part could not learn say nothing of the network that learns them all.
    temperature = 1.0 if any(unseen) else _temperature(after, labels[held])
    fold_temperature(network, temperature)
    probabilities = softmax(after / temperature, axis=1)
    threshold, reached = review_threshold(probabilities.max(1), probabilities.argmax(1) == labels[held])
    if not reached:
        # Too few cells, or too many mistakes, to say from which probability on answers can be trusted.
        threshold = 1.0
    progress("Learning what is familiar", 0.95)
    network.eval()
    _, features = predictor.logits_and_features([cell.image for cell in cells])
    calibration = _fit_calibration(
        predictor.calibration,
        features,
        measure_colours(squares, labels),
        temperature=temperature,
        threshold=threshold,
        target_reached=reached,
        fitted_on=len(held),
    )
    scores = [_score(labels[held], logits, groups, work.seed) for logits in (before, after)]
    warning = None
    if scores[1].accuracy <= scores[0].accuracy:
        warning = (
            f"Adaptation did not help: {scores[1].accuracy:.1%} of the held-back cells are answered right, "
            f"{scores[0].accuracy:.1%} before. Keep the model as it was, or label more cells."
        )
    elif scores[1].balanced_accuracy < scores[0].balanced_accuracy:
        warning = (
            f"Adaptation helped common classes and harmed rare ones: balanced accuracy is "
            f"{scores[1].balanced_accuracy:.1%}, {scores[0].balanced_accuracy:.1%} before. Label more rare ones."
        )
    return _Outcome(
        calibration,
        {
            "labelled": count_classes(labels),
            "held_back": len(held),
            "folds": len(folds),
            "temperature": temperature,
            "scores_before": scores[0],
            "scores_after": scores[1],
            "remarks": _remarks(labels, held),
            "warning": warning,
        },
    )


def hold_back(labels: np.ndarray, groups: Sequence[str], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut labelled cells into parts that are held back one after the other.

    Four parts, or as many as the rarest class has groups, but at least two; stratified by class, and never through a
    group. A class whose cells are all of one group is never held back: the rest would hold none of it. Only where
    that leaves too little to hold back it is.

    Args:
        labels: int (n,), class indices, -1 where nobody said: such a cell is in no part, and is left out with its
            group.
        groups: Of each cell.
        seed: Of the cut.

    Returns:
        For each part the indices of the cells to learn from, and of those held back.

    Raises:
        WbcError: All labelled cells are of one group.
    """
    _, group = np.unique(groups, return_inverse=True)
    labelled = np.flatnonzero(labels >= 0)
    if len(np.unique(group[labelled])) < 2:
        raise WbcError(
            f"{len(labelled)} labelled cells: are all copies of one cell, or of one photograph, so that none can be "
            "held back to judge by. Add cells of another photograph."
        )
    homes = [np.unique(group[labels == label]) for label in np.unique(labels[labelled])]
    needed = [home[0] for home in homes if len(home) == 1]
    pool = labelled[~np.isin(group[labelled], needed)]
    if max(_groups_of_each_class(labels[pool], group[pool]), default=0) < 2:
        pool = labelled
    rarest = min(_groups_of_each_class(labels[pool], group[pool]))
    cut = StratifiedGroupKFold(min(_MOST_FOLDS, max(2, rarest)), shuffle=True, random_state=seed)
    parts = [pool[part] for _, part in cut.split(pool, labels[pool], group[pool])]
    return [(np.flatnonzero(~np.isin(group, group[part])), part) for part in parts]


def _groups_of_each_class(labels: np.ndarray, group: np.ndarray) -> list[int]:
    return [len(np.unique(group[labels == label])) for label in np.unique(labels)]


def _temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """`fit_temperature`, or 1 where all answers are right: sharper would then be better without end."""
    return 1.0 if (logits.argmax(1) == labels).all() else fit_temperature(logits, labels)


def _fit_calibration(
    before: Calibration | None,
    features: np.ndarray,
    colours: Colours,
    *,
    temperature: float,
    threshold: float,
    target_reached: bool,
    fitted_on: int,
) -> Calibration:
    """What is familiar from now on: the laboratory's own cells, by features of the adapted network, (n, d).

    The colours are those of the same cells: whoever adapts the model again starts from them.
    """
    score = OutOfDistributionScore.fit(features)
    trained_on = "cells that its folder does not name" if before is None else before.trained_on
    return Calibration(
        temperature=temperature,
        review_threshold=threshold,
        target_reached=target_reached,
        out_of_distribution_threshold=float(np.quantile(score.leave_one_out(features), 1 - OUT_OF_DISTRIBUTION_SHARE)),
        fitted_on=fitted_on,
        trained_on=f"{trained_on}, adapted to {len(features)} cells of another laboratory",
        out_of_distribution_score=score,
        colours=colours,
    )


def _score(labels: np.ndarray, logits: np.ndarray, groups: Sequence[str], seed: int) -> Scores:
    metrics = evaluate(labels, softmax(logits, axis=1), groups=groups, seed=seed).metrics
    return Scores(
        **{name: metrics[name] for name in SCORES},
        intervals={name: metrics["intervals"][name] for name in SCORES},
        recall={name: of_class["recall"] for name, of_class in metrics["per_class"].items()},
    )


def _remarks(labels: np.ndarray, held: np.ndarray) -> tuple[str, ...]:
    given, judged = count_classes(labels), count_classes(labels[held])
    few = [f"{name} ({count})" for name, count in given.items() if 0 < count < _FEW_CELLS]
    missing = [name for name, count in given.items() if count == 0]
    unjudged = [name for name, count in given.items() if count and not judged[name]]
    return tuple(
        f"{text}: {', '.join(names)}."
        for text, names in (
            (f"Fewer than {_FEW_CELLS} cells, too few to learn or judge a class by", few),
            ("No cells were given, so that nothing is known of these classes here", missing),
            ("All cells are of one photograph or copies of one, and were never held back", unjudged),
        )
        if names
    )


# ---- what is written


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """A folder that becomes `output` when all has gone well, and vanishes otherwise."""
    output = output.expanduser().absolute()
    if output.exists():
        raise WbcError(f"{output}: is there already. Give the name of a new folder for the adapted model.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=".adapt-", dir=output.parent)
    except OSError as error:
        raise WbcError(f"{output}: cannot be written ({error.strerror}). Name a folder in another place.") from error
    with temporary as place:
        made = Path(place) / output.name
        made.mkdir()
        yield made
        made.rename(output)
