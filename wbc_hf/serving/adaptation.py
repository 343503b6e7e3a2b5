"""Make a model that suits another laboratory, and measure what that changed: with labels of its cells, or without.

What a network learns from the cells stands in `wbc_hf.modeling.adaptation`. Here they are read, some are held back to
judge by, thresholds and familiarity are fitted again, and an ordinary model folder is written, whole or not at all.
"""

import copy
import hashlib
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Template
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import softmax
from sklearn.model_selection import StratifiedGroupKFold
from transformers import ResNetForImageClassification

from wbc_hf.data import (
    SUFFIXES,
    FolderImage,
    may_be_stained_cell,
    pairs_of_copies,
    photograph,
    read_image,
    scan_folder,
)
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.evaluation import bootstrap_intervals, compute_metrics, write_json
from wbc_hf.hub import fetch_model
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.machine import usable_cores
from wbc_hf.modeling import (
    LEAST_FAMILIAR,
    MIN_UNLABELLED,
    TARGET_ACCURACY,
    Colours,
    Neighbours,
    Preparation,
    Trust,
    adapt_with_labels,
    adapt_without_labels,
    consistency,
    fit_temperature,
    fold_temperature,
    load_classifier,
    load_processor,
    margin_edge,
    measure_colours,
    review_threshold,
    square,
)
from wbc_hf.serving.looking import look_at
from wbc_hf.serving.predictor import Predictor

logger = logging.getLogger(__name__)

ADAPTATION_FILE = "adaptation.json"
CARD_FILE = "README.md"

# Below that nothing can be held back and something be left to learn from.
MIN_CLASSES, MIN_CELLS = 2, 2
_FEW_CELLS = 5
_MOST_FOLDS = 4
_SUREST = 0.43
_ONE_CLASS = 0.95  # share of the answers from which on one class looks like a collapse
_UNPROVEN = (
    f"The surest {_SUREST:.0%} of these cells are confident, by the choice of the threshold: how many of them are "
    "right only labels can tell. In two laboratories whose labels were known 95 % and 73 % were."
)

STATUSES = ("confident", "review", "unfamiliar", "not_a_cell")
_SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class AdaptationCell:
    """One cell of the other laboratory.

    Attributes:
        image: RGB, as `read_image` gives it.
        label: Index into `CLASS_NAMES`, or None where nobody said.
        group: What must not be parted when cells are held back: copies of a cell, cells of one photograph.
    """

    image: Image.Image
    label: int | None
    group: str


@dataclass(frozen=True)
class Diagnosis:
    """What a model says of cells without labels.

    Attributes:
        statuses: Share of each of `STATUSES`, 0 to 1; None where the model's folder does not say when to trust it.
        confidence: Mean probability of the likeliest class, 0 to 1.
        consistency: Share of cells that get the same class in another view, 0 to 1.
    """

    statuses: dict[str, float] | None
    confidence: float
    consistency: float


@dataclass(frozen=True)
class Scores:
    """How right a model is on labelled cells.

    Attributes:
        accuracy, balanced_accuracy, macro_f1: 0 to 1.
        intervals: 95 % limits of these three by name, [low, high], or None where all cells are of one group.
        recall: Of each class by name, 0 to 1; None for one without cells.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    intervals: dict[str, list[float] | None]
    recall: dict[str, float | None]


@dataclass(frozen=True)
class Adaptation:
    """What was done to a model, and what it changed. Names no file and no folder of the laboratory.

    Attributes:
        model, version: Name of the model before, and the first digits of its weights' SHA-256.
        software: Name and version of this package.
        made: When, in UTC, ISO 8601.
        seed: Of everything that was drawn.
        cells: Number of cells.
        unreadable, not_cells: Numbers of pictures that were left out: broken ones, and those without a stained cell.
        review_threshold: Answers with a lower probability should be looked at.
        target_reached: Whether held-back cells above it are right in `TARGET_ACCURACY` of cases.
        remarks: What limits the figures, in sentences.
        warning: A sentence where the adaptation did not help, else None.
        diagnosis_before, diagnosis_after: Without labels; with labels None.
        proportions: Without labels, the estimated share of each class by name, 0 to 1; with labels None.
        labelled: With labels, the number of cells of each class by name; without them None, as all that follow.
        held_back: Number of cells that the scores are of.
        folds: Number of parts in which they were held back.
        temperature: What logits are divided by, part of the weights.
        scores_before: Of the model as it was.
        scores_after: Each cell answered by a network that was adapted without it.
    """

    model: str
    version: str
    software: str
    made: str
    seed: int
    cells: int
    unreadable: int
    not_cells: int
    review_threshold: float
    target_reached: bool
    remarks: tuple[str, ...] = ()
    warning: str | None = None
    diagnosis_before: Diagnosis | None = None
    diagnosis_after: Diagnosis | None = None
    proportions: dict[str, float] | None = None
    labelled: dict[str, int] | None = None
    held_back: int | None = None
    folds: int | None = None
    temperature: float | None = None
    scores_before: Scores | None = None
    scores_after: Scores | None = None


@dataclass(frozen=True)
class _LeftOut:
    """Numbers of pictures in a folder that cannot be used."""

    unreadable: int = 0
    not_cells: int = 0


@dataclass(frozen=True)
class _Outcome:
    """What one of the two ways of adapting gives: when to trust the network, and its own fields of `Adaptation`."""

    trust: Trust
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
        return _adapt(_load(model), cells, _LeftOut(), made, seed, progress or _silent)


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
    progress = progress or _silent
    with _new_folder(output) as made:
        predictor = _load(model)
        cells, left_out = read_cells(images, _part(progress, 0, 0.15))
        return _adapt(predictor, cells, left_out, made, seed, _part(progress, 0.15, 1))


# ---- the model before


def _load(model: str | Path) -> Predictor:
    """A model in memory: torch runs it, so that what changes in its weights shows at once.

    Raises:
        WbcError: No such model, or none that can be adapted.
    """
    folder = fetch_model(model)
    network, processor = load_classifier(folder), load_processor(folder)
    if not isinstance(network, ResNetForImageClassification) or Preparation(processor).mean is None:
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
    return Predictor(network, processor, str(model), Trust.load(folder), folder=folder)


# ---- the cells


def read_cells(folder: Path, progress: Progress) -> tuple[list[AdaptationCell], _LeftOut]:
    """All cells in a folder, with their labels where its sub-folders name them, and what was left out."""
    labelled = _labelled_files(folder)
    paths = _pictures(folder) if labelled is None else [file.path for file in labelled]
    usable: list[int] = []
    images: list[Image.Image] = []
    unreadable = not_cells = 0
    with ThreadPoolExecutor(usable_cores()) as pool:
        for index, image in enumerate(pool.map(_read, paths)):
            progress("Reading the pictures", index / len(paths))
            if isinstance(image, UnreadableImageError):
                logger.warning("Left out %s", image)
                unreadable += 1
            elif not may_be_stained_cell(image):
                logger.warning("Left out %s: shows no stained cell.", paths[index])
                not_cells += 1
            else:
                usable.append(index)
                images.append(image)
    left_out = _LeftOut(unreadable, not_cells)
    if labelled is None:
        return [
            AdaptationCell(image, None, str(paths[index])) for index, image in zip(usable, images, strict=True)
        ], left_out
    progress("Looking for copies", 1)
    kept = [labelled[index] for index in usable]
    groups = _group(kept, images)
    return [
        AdaptationCell(image, class_index(file.class_name), group)
        for image, file, group in zip(images, kept, groups, strict=True)
    ], left_out


def _read(path: Path) -> Image.Image | UnreadableImageError:
    try:
        return read_image(path)
    except UnreadableImageError as error:
        return error


def _labelled_files(folder: Path) -> list[FolderImage] | None:
    """The files in class folders; None where no folder is named like a class.

    Raises:
        WbcError: There is no such folder, or pictures lie in sub-folders of which only some name a class.
    """
    if not folder.is_dir():
        raise WbcError(f"{folder}: is no folder. Give a folder of pictures, or of class sub-folders with pictures.")
    if not any(class_index(path.name) is not None for path in folder.rglob("*") if path.is_dir()):
        return None
    if loose := [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]:
        logger.warning("Left out %d pictures in %s itself, beside its class folders.", len(loose), folder)
    found = scan_folder(folder)
    unknown = sorted({file.class_name for file in found if class_index(file.class_name) is None})
    if unknown:
        raise WbcError(
            f"{folder}: its sub-folders {', '.join(unknown)} name no class, beside others that do. The classes are "
            f"{', '.join(CLASS_NAMES)}. Rename or remove them; without any class folder all pictures count as cells "
            "without labels."
        )
    return found


def _pictures(folder: Path) -> list[Path]:
    found = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not found:
        raise WbcError(f"{folder}: no pictures in this folder ({', '.join(sorted(SUFFIXES))}).")
    return found


def _group(cells: Sequence[FolderImage], images: Sequence[Image.Image]) -> list[str]:
    """For each picture what it must not be parted from: copies, its photograph, and what `metadata.csv` says."""
    digests = [hashlib.sha256(file.path.read_bytes()).hexdigest() for file in cells]
    place = {file.source: index for index, file in enumerate(cells)}
    copies = pairs_of_copies(digests, list(place), images.__getitem__, look=True)
    links = [(place[pair.first], place[pair.second]) for pair in copies]
    first: dict[str, int] = {}
    for index, file in enumerate(cells):
        if name := file.group or photograph(file.source):
            links.append((first.setdefault(name, index), index))
    ends = np.array(links, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links)), tuple(ends)), shape=(len(cells), len(cells)))
    return [str(part) for part in connected_components(graph, directed=False)[1]]


def _check_cells(labels: np.ndarray, left_out: _LeftOut) -> None:
    """Whether there are enough of them."""
    told = [
        f"{count} {what}"
        for count, what in (
            (left_out.unreadable, "that cannot be read"),
            (left_out.not_cells, "that show no stained cell"),
        )
        if count
    ]
    beside = f" (left out: {', '.join(told)})" if told else ""
    counts = _count(labels)
    if not any(counts.values()):
        if len(labels) < MIN_UNLABELLED:
            raise WbcError(
                f"{len(labels)} pictures without labels{beside}: at least {MIN_UNLABELLED} are needed. Give more, or "
                "sort them into sub-folders named after the classes, of which fewer will do."
            )
    elif sum(count >= MIN_CELLS for count in counts.values()) < MIN_CLASSES:
        given = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise WbcError(
            f"{given} labelled cells{beside}: at least {MIN_CELLS} cells in each of {MIN_CLASSES} classes are needed, "
            "and about 20 of each class are good. Label more."
        )


def _count(labels: np.ndarray) -> dict[str, int]:
    return {name: int((labels == index).sum()) for index, name in enumerate(CLASS_NAMES)}


# ---- adapting


def _adapt(
    predictor: Predictor,
    cells: Sequence[AdaptationCell],
    left_out: _LeftOut,
    made: Path,
    seed: int,
    progress: Progress,
) -> Adaptation:
    """Adapt the model of a predictor in place, and write everything that belongs to it into the folder `made`."""
    labels = np.array([-1 if cell.label is None else cell.label for cell in cells], dtype=np.int64)
    _check_cells(labels, left_out)
    identity = predictor.identity
    edge = margin_edge(predictor.processor)
    pixels = np.stack([square(cell.image, edge) for cell in cells])
    squares = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    way = _with_labels if (labels >= 0).any() else _without_labels
    outcome = way(predictor, cells, squares, labels, seed, progress)
    adaptation = Adaptation(
        model=identity.name,
        version=identity.version,
        software=identity.software,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        cells=len(cells),
        unreadable=left_out.unreadable,
        not_cells=left_out.not_cells,
        review_threshold=outcome.trust.review_threshold,
        target_reached=outcome.trust.target_reached,
        **outcome.fields,
    )
    predictor.model.save_pretrained(made)
    predictor.processor.save_pretrained(made)
    outcome.trust.save(made)
    write_json(made / ADAPTATION_FILE, asdict(adaptation))
    (made / CARD_FILE).write_text(_render_card(predictor.folder, adaptation), encoding="utf-8")
    progress("Done", 1)
    return adaptation


def _without_labels(
    predictor: Predictor,
    cells: Sequence[AdaptationCell],
    squares: torch.Tensor,
    labels: np.ndarray,
    seed: int,
    progress: Progress,
) -> _Outcome:
    network, processor = predictor.model, predictor.processor
    images = [cell.image for cell in cells]
    may_be_cell = [may_be_stained_cell(image) for image in images]

    def diagnose(trust: Trust | None, logits: np.ndarray, features: np.ndarray) -> Diagnosis:
        confidence = softmax(logits, axis=1).max(1)
        shares = None
        if trust is not None:
            given = np.array(trust.statuses(confidence, features, may_be_cell))
            shares = {status: float((given == status).mean()) for status in STATUSES}
        return Diagnosis(shares, float(confidence.mean()), consistency(network, squares, processor, seed=seed))

    progress("Looking at the cells", 0)
    before = diagnose(predictor.trust, *look_at(predictor, images))
    report = _part(progress, 0.25, 0.75)
    proportions = adapt_without_labels(
        network,
        squares,
        processor,
        colours=None if predictor.trust is None else predictor.trust.colours,
        seed=seed,
        progress=lambda share: report("Adapting", share),
    )
    progress("Looking at the cells again", 0.75)
    network.eval()
    logits, features = look_at(predictor, images)
    trust = _fit_trust(
        predictor.trust,
        features,
        measure_colours(squares, _alike(logits.argmax(1))),
        temperature=1.0 if predictor.trust is None else predictor.trust.temperature,
        threshold=unlabelled_review_threshold(softmax(logits, axis=1)),
        target_reached=False,
        fitted_on=len(cells),
    )
    after = diagnose(trust, logits, features)
    warning = None
    likeliest = np.bincount(logits.argmax(1), minlength=len(CLASS_NAMES))
    if likeliest.max() >= _ONE_CLASS * len(cells):
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
        trust,
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


def _with_labels(
    predictor: Predictor,
    cells: Sequence[AdaptationCell],
    squares: torch.Tensor,
    labels: np.ndarray,
    seed: int,
    progress: Progress,
) -> _Outcome:
    network, processor = predictor.model, predictor.processor
    folds = hold_back(labels, [cell.group for cell in cells], seed)
    held = np.concatenate([held for _, held in folds])
    groups = [cells[index].group for index in held]
    steps = 1 + len(folds)

    def adapt(network: ResNetForImageClassification, chosen: np.ndarray, step: int, what: str) -> None:
        report = _part(progress, 0.05 + 0.9 * step / steps, 0.05 + 0.9 * (step + 1) / steps)
        adapt_with_labels(
            network,
            squares[chosen],
            labels[chosen],
            processor,
            colours=None if predictor.trust is None else predictor.trust.colours,
            seed=seed,
            progress=lambda share: report(what, share),
        )

    progress("Looking at the cells", 0)
    before, _ = look_at(predictor, [cells[index].image for index in held])
    answers = []
    for step, (rest, fold) in enumerate(folds):
        without = copy.deepcopy(network)
        adapt(without, rest, step, f"Adapting without the cells held back, {step + 1} of {len(folds)}")
        judge = Predictor(without, processor, predictor.name)
        answers.append(look_at(judge, [cells[index].image for index in fold])[0])
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
    _, features = look_at(predictor, [cell.image for cell in cells])
    trust = _fit_trust(
        predictor.trust,
        features,
        measure_colours(squares, _alike(labels)),
        temperature=temperature,
        threshold=threshold,
        target_reached=reached,
        fitted_on=len(held),
    )
    scores = [_score(labels[held], logits, groups, seed) for logits in (before, after)]
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
        trust,
        {
            "labelled": _count(labels),
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


def _alike(labels: np.ndarray) -> np.ndarray:
    """Weights of cells with which each class counts alike, (n,); 0 where the label is -1."""
    known = labels >= 0
    weights = np.zeros(len(labels))
    weights[known] = 1 / np.bincount(labels[known])[labels[known]]
    return weights


def _fit_trust(
    before: Trust | None,
    features: np.ndarray,
    colours: Colours,
    *,
    temperature: float,
    threshold: float,
    target_reached: bool,
    fitted_on: int,
) -> Trust:
    """What is familiar from now on: the laboratory's own cells, by features of the adapted network, (n, d).

    The colours are those of the same cells: whoever adapts the model again starts from them.
    """
    familiarity = Neighbours.fit(features, np.zeros(len(features)))
    trained_on = "cells that its folder does not name" if before is None else before.trained_on
    return Trust(
        temperature=temperature,
        review_threshold=threshold,
        target_reached=target_reached,
        unfamiliar_threshold=float(np.quantile(leave_one_out(familiarity, features), 1 - LEAST_FAMILIAR)),
        method="neighbours",
        doubted={},
        fitted_on=fitted_on,
        trained_on=f"{trained_on}, adapted to {len(features)} cells of another laboratory",
        familiarity=familiarity,
        colours=colours,
    )


def leave_one_out(familiarity: Neighbours, features: np.ndarray) -> np.ndarray:
    """The score of each reference among the others, (n,): it would be its own nearest neighbour."""
    references = familiarity.references
    scores = [
        replace(familiarity, references=np.delete(references, index, axis=0)).score(features[[index]])
        for index in range(len(references))
    ]
    return np.concatenate(scores)


def _score(labels: np.ndarray, logits: np.ndarray, groups: Sequence[str], seed: int) -> Scores:
    probabilities = softmax(logits, axis=1)
    figures = compute_metrics(labels, probabilities.argmax(1))
    intervals = bootstrap_intervals(labels, probabilities, groups, seed=seed)
    return Scores(
        **{name: figures[name] for name in _SCORES},
        intervals={name: intervals[name] for name in _SCORES},
        recall={name: of_class["recall"] for name, of_class in figures["per_class"].items()},
    )


def _remarks(labels: np.ndarray, held: np.ndarray) -> tuple[str, ...]:
    given, judged = _count(labels), _count(labels[held])
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


def _render_card(folder: Path, adaptation: Adaptation) -> str:
    """The card of the model before, with what was done to it right under its title.

    Its figures leave the front matter, which would show them as those of the adapted model, and its charts stay with
    the model before.
    """
    if (folder / CARD_FILE).exists():
        card = ModelCard((folder / CARD_FILE).read_text(encoding="utf-8"))
        card.data.model_name = card.data.eval_results = None
    else:
        data = ModelCardData(library_name="transformers", pipeline_tag="image-classification")
        card = ModelCard(f"---\n{data}\n---\n\n# {adaptation.model}\n")
    template = files("wbc_hf.evaluation").joinpath("templates/adaptation.md").read_text(encoding="utf-8")
    section = Template(template).render(
        adaptation=adaptation,
        heading=_heading(adaptation),
        rows=_rows(adaptation),
        labelled=_listing(adaptation.labelled or {}, "{}"),
        proportions=_listing(adaptation.proportions or {}, "{:.0%}"),
        target=f"{TARGET_ACCURACY:.0%}",
    )
    body = re.sub(r"^!\[.*\]\(figures/.*\)\n+", "", card.text, flags=re.MULTILINE)
    title, rest = re.match(r"(\s*# [^\n]*\n)?(.*)", body, flags=re.DOTALL).groups(default="")
    return f"---\n{card.data}\n---\n{title}\n{section}\n\n{rest.lstrip()}"


def describe_adaptation(adaptation: Adaptation) -> str:
    """What was done and measured, in lines for a terminal."""
    labels = "without labels"
    if adaptation.labelled:
        labels = f"with labels ({_listing(adaptation.labelled, '{}')})"
    lines = [f"{adaptation.model}: adapted to {adaptation.cells} cells, {labels}"]
    lines += [
        f"{name:<28}{before:>22}{after:>22}"
        for name, before, after in ((_heading(adaptation), "before", "after"), *_rows(adaptation))
    ]
    if adaptation.proportions:
        lines.append(f"Estimated proportions: {_listing(adaptation.proportions, '{:.0%}')}")
    lines += adaptation.remarks
    if adaptation.warning:
        lines.append(f"Warning: {adaptation.warning}")
    return "\n".join([*lines, "Research use, not for diagnosis."])


def _heading(adaptation: Adaptation) -> str:
    return f"on {adaptation.held_back} held-back cells" if adaptation.labelled else f"on {adaptation.cells} cells"


def _rows(adaptation: Adaptation) -> list[tuple[str, str, str]]:
    """Name, value before and value after of everything that was measured."""
    if adaptation.labelled:
        scores = (adaptation.scores_before, adaptation.scores_after)
        rows = [
            (title, *(_estimate(getattr(one, name), one.intervals[name]) for one in scores))
            for name, title in _SCORES.items()
        ]
        return rows + [
            (f"recall of {name}", *(_number(one.recall[name]) for one in scores))
            for name, count in adaptation.labelled.items()
            if count
        ]
    diagnoses = (adaptation.diagnosis_before, adaptation.diagnosis_after)
    rows = [
        (f"share {status}", *(_number(one.statuses and one.statuses[status]) for one in diagnoses))
        for status in STATUSES
    ]
    return [
        *rows,
        *(
            (title, *(_number(getattr(one, name)) for one in diagnoses))
            for name, title in (("confidence", "mean confidence"), ("consistency", "consistency"))
        ),
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _estimate(value: float, interval: list[float] | None) -> str:
    return _number(value) if interval is None else f"{value:.3f} ({interval[0]:.3f}–{interval[1]:.3f})"


def _listing(values: dict[str, float], form: str) -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())


# ---- progress


def _silent(what: str, share: float) -> None:
    """Tell nobody."""


def _part(progress: Progress, start: float, end: float) -> Progress:
    """Progress of a part of the work, which begins and ends at these shares of the whole."""
    return lambda what, share: progress(what, start + share * (end - start))
