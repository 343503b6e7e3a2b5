"""Audit a data set: near-duplicates, contradictory labels, leakage, bad pictures, classes too small to judge."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from wbc_hf.data.loading import Leucocytes, leaked_test_images
from wbc_hf.data.near_duplicates import NearDuplicate
from wbc_hf.data.splits import SPLITS, groups_across
from wbc_hf.labels import CLASS_NAMES, ENOUGH_CELLS

_MAX_NAMED = 20

# A label to which a model gives a lower probability is doubted. Below 0.2 the class cannot be the likeliest of five.
DOUBTED_BELOW = 0.05


@dataclass(frozen=True)
class AuditedPair(NearDuplicate):
    """A pair of near-duplicates, with the class names and the splits of the two."""

    labels: tuple[str, str]
    splits: tuple[str, str]

    @property
    def contradictory(self) -> bool:
        """Whether the same cell, or two of one photograph, have two classes."""
        return self.labels[0] != self.labels[1]

    @property
    def across(self) -> bool:
        """Whether the two are in different splits."""
        return self.splits[0] != self.splits[1]


@dataclass(frozen=True)
class LabelIssue:
    """A label that a model doubts: a reason to look at the image, not a proof.

    Attributes:
        source: The image's file.
        given, predicted: Names of the class that it is labelled with, and of the likeliest one.
        probability_of_given, probability_of_predicted: Of these classes by the model, 0 to 1.
    """

    source: str
    given: str
    predicted: str
    probability_of_given: float
    probability_of_predicted: float


@dataclass(frozen=True)
class LabelIssues:
    """The labels of a set that a model doubts.

    Attributes:
        model: Its name.
        trained_on: Title of its training set; None where its folder does not say.
        seen: Titles of those of the audited sets that it was trained on, by their names.
        images: Number of labels that were compared.
        differing: Number of images of which the model predicts another class, doubted labels among them.
        issues: Labels to which it gives less than `DOUBTED_BELOW`, the least likely first.
    """

    model: str
    trained_on: str | None
    seen: tuple[str, ...]
    images: int
    differing: int
    issues: tuple[LabelIssue, ...]

    @property
    def caveat(self) -> str:
        """What the list of issues means, in a sentence."""
        if self.seen:
            return (
                f"The model was trained on a set of this name ({', '.join(self.seen)}): it has learnt labels of it, "
                "wrong ones too, so errors may be missing from the list."
            )
        if self.trained_on is None:
            return (
                "The model has no calibration, so neither what it was trained on nor what its probabilities are worth "
                "is known: errors may be missing from the list, and many labels on it may be right."
            )
        return (
            f"The model was not trained on this set, but on {self.trained_on}: it has learnt none of these labels, "
            "and is wrong more often than at home, so many labels on the list are right."
        )


@dataclass(frozen=True)
class Audit:
    """What was found in a set.

    Attributes:
        title: The set's name.
        images, cells: Images, and distinct cells or photographs among them, by split and class name.
        laboratories: Distinct cells or photographs by laboratory and class name.
        pairs: Near-duplicates, contradictory ones first, then those across splits.
        groups_across: Number of groups in more than one split.
        leaked: Number of test images whose group is also in training or validation.
        unreadable: File and reason.
        bad: File and what is wrong with the picture (blank, too dark, too bright, clipped).
        too_small: Classes with fewer than `ENOUGH_CELLS` distinct cells.
        label_issues: Labels that a model doubts; None where none was asked.
    """

    title: str
    images: dict[str, dict[str, int]]
    cells: dict[str, dict[str, int]]
    laboratories: dict[str, dict[str, int]]
    pairs: tuple[AuditedPair, ...]
    groups_across: int
    leaked: int
    unreadable: tuple[tuple[str, str], ...]
    bad: tuple[tuple[str, str], ...]
    too_small: tuple[str, ...]
    label_issues: LabelIssues | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Classes without a single image."""
        return tuple(name for name in CLASS_NAMES if not any(counts[name] for counts in self.images.values()))


def audit(leucocytes: Leucocytes) -> Audit:
    """Audit a loaded set. Opens no image: loading has done that. Writes nothing."""
    columns = ["source", "label", "group", "laboratory"]
    splits = {split: rows.select_columns(columns).to_pandas() for split, rows in leucocytes.items()}
    table = pd.concat(splits, names=["split"]).reset_index(level="split")
    place = {row.source: (CLASS_NAMES[row.label], row.split) for row in table.itertuples()}
    pairs = []
    for pair in leucocytes.near_duplicates:
        (first_label, first_split), (second_label, second_split) = place[pair.first], place[pair.second]
        pairs.append(AuditedPair(**vars(pair), labels=(first_label, second_label), splits=(first_split, second_split)))
    cells = table.groupby("label")["group"].nunique()
    return Audit(
        title=leucocytes.provenance.title,
        images=_count_distinct(table, "source", "split", SPLITS),
        cells=_count_distinct(table, "group", "split", SPLITS),
        laboratories=_count_distinct(table, "group", "laboratory", leucocytes.provenance.laboratories),
        pairs=tuple(sorted(pairs, key=lambda pair: (not pair.contradictory, not pair.across))),
        groups_across=len(groups_across({split: rows["group"] for split, rows in leucocytes.items()})),
        leaked=int(leaked_test_images(leucocytes).sum()),
        unreadable=tuple((error.name, error.reason) for error in leucocytes.provenance.skipped),
        bad=tuple((source, leucocytes.faults[source]) for source in table["source"] if source in leucocytes.faults),
        too_small=tuple(CLASS_NAMES[label] for label, count in cells.items() if count < ENOUGH_CELLS),
    )


def _count_distinct(table: pd.DataFrame, column: str, by: str, rows: Sequence[str]) -> dict[str, dict[str, int]]:
    """Distinct values of a column in each of the rows that are told apart `by` another column, by class name."""
    counts = table.groupby([by, "label"])[column].nunique()
    return {row: {name: int(counts.get((row, label), 0)) for label, name in enumerate(CLASS_NAMES)} for row in rows}


def format_audit(found: Audit) -> str:
    """The audit as plain text for a terminal; images, and distinct cells where they are fewer."""
    lines = [found.title, "", f"{'class':<12}" + "".join(f"{split:>20}" for split in found.images)]
    for name in CLASS_NAMES:
        counts = [_format_count(found.images[split][name], found.cells[split][name]) for split in found.images]
        lines.append(f"{name:<12}" + "".join(f"{count:>20}" for count in counts))
    if len(found.laboratories) > 1:
        width = max(map(len, ("distinct cells", *found.laboratories))) + 2
        lines += ["", f"{'distinct cells':<{width}}" + "".join(f"{name:>12}" for name in CLASS_NAMES)]
        for laboratory, cells in found.laboratories.items():
            lines.append(f"{laboratory:<{width}}" + "".join(f"{cells[name]:>12}" for name in CLASS_NAMES))
    contradictory = sum(pair.contradictory for pair in found.pairs)
    lines += [
        "",
        f"{len(found.pairs)} pairs of near-duplicates; {contradictory} of them with different classes",
        f"{found.groups_across} groups across splits; {found.leaked} test images also in training or validation",
        f"{len(found.unreadable)} unreadable files, {len(found.bad)} blank or badly exposed",
    ]
    lines += _format_named([f"{name}: {reason}" for name, reason in (*found.unreadable, *found.bad)])
    if found.too_small:
        lines.append(f"Too small to judge (fewer than {ENOUGH_CELLS} distinct cells): {', '.join(found.too_small)}")
    if found.missing:
        lines.append(f"No images at all, so that a model of this set never predicts it: {', '.join(found.missing)}")
    if found.label_issues is not None:
        lines += ["", *_format_label_issues(found.label_issues)]
    return "\n".join(lines)


def _format_named(named: Sequence[str]) -> list[str]:
    lines = [f"  {each}" for each in named[:_MAX_NAMED]]
    return [*lines, f"  and {len(named) - _MAX_NAMED} more, all in audit.json"] if len(named) > _MAX_NAMED else lines


def _format_label_issues(found: LabelIssues) -> list[str]:
    """Counts by pair of classes, then the gravest by name, with the probabilities of the two classes."""
    lines = [
        f"{len(found.issues)} of {found.images} labels are doubted by the model {found.model}",
        f"It gives them less than {DOUBTED_BELOW:.0%}; it predicts another class than the label for {found.differing}",
        found.caveat,
    ]
    pairs = Counter((issue.given, issue.predicted) for issue in found.issues)
    lines += [f"  {given:<11}→ {predicted:<11}{count:>6}" for (given, predicted), count in pairs.most_common()]
    return lines + _format_named(
        [
            f"{issue.source}: {issue.given} {issue.probability_of_given:.2f}, "
            f"{issue.predicted} {issue.probability_of_predicted:.2f}"
            for issue in found.issues
        ]
    )


def _format_count(images: int, cells: int) -> str:
    return str(images) if images == cells else f"{images} ({cells} cells)"
