"""The record of a run: `run.json`, from which it can be repeated and its card be written."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version

from datasets import IterableDatasetDict

from wbc_hf import __version__
from wbc_hf.data import Leucocytes, audit, format_audit
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import cropped_edge
from wbc_hf.provenance import describe_machine, source_commit
from wbc_hf.safe_text import say
from wbc_hf.training.arguments import Arguments
from wbc_hf.training.trainer import LeucocyteTrainer

logger = logging.getLogger(__name__)

_FEW_CLASSES = 3
_LIBRARIES = ("torch", "transformers", "datasets", "evaluate", "accelerate")


def make_record(
    arguments: Arguments,
    leucocytes: Leucocytes | IterableDatasetDict,
    trainer: LeucocyteTrainer,
    metrics: dict,
    answered_by: str,
) -> dict:
    """Describe a trained and evaluated model; `answered_by` is the backend that it was evaluated on."""
    data, model, training = arguments
    return {
        "base_model": None if model.from_scratch else model.model,
        "width": model.width if model.from_scratch else None,
        "image_size": cropped_edge(trainer.processing_class),
        "parameters": trainer.model.num_parameters(),
        "freeze": model.freeze,
        "arguments": arguments.to_dict(),
        "versions": {"wbc_hf": __version__} | {name: version(name) for name in _LIBRARIES},
        "commit": source_commit(),
        "machine": describe_machine(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step if training.load_best_model_at_end else None,
        "data": _describe(leucocytes, " ".join(data.dataset), metrics),
        "answered_by": answered_by,
    }


def title(leucocytes: Leucocytes | IterableDatasetDict, spec: str) -> str:
    """The name of a data set; a stream has none but what it was loaded by."""
    return leucocytes.provenance.title if isinstance(leucocytes, Leucocytes) else spec


def print_audit(leucocytes: Leucocytes | IterableDatasetDict) -> None:
    """Audit the images and print the result; a stream is not audited.

    One warning if there are images of one or two classes only.
    """
    if not isinstance(leucocytes, Leucocytes):
        return
    found = audit(leucocytes)
    say(f"{format_audit(found)}\n", flush=True)
    present = [name for name in CLASS_NAMES if name not in found.missing]
    if len(present) < _FEW_CLASSES:
        logger.warning(
            "%s: has images of %s only, so the model will call every cell one of these.",
            found.title,
            " and ".join(present),
        )


def _describe(leucocytes: Leucocytes | IterableDatasetDict, spec: str, metrics: dict) -> dict:
    if isinstance(leucocytes, IterableDatasetDict):
        tested = {name: figures["support"] for name, figures in metrics["per_class"].items()}
        known = {"spec": spec, "title": spec, "splits": {"test": tested}, "skipped": []}
        return dict.fromkeys(("licence", "homepage", "fingerprint", "given_splits", "groups_across")) | known
    provenance = leucocytes.provenance
    description = dataclasses.asdict(dataclasses.replace(provenance, skipped=())) | {
        **{name: getattr(provenance, name) for name in ("spec", "title", "licence", "homepage", "given_splits")},
        "splits": {name: _count_by_class(split["label"]) for name, split in leucocytes.items()},
        "skipped": [{"name": error.name, "reason": error.reason} for error in provenance.skipped],
    }
    if description["near_duplicates"] is not None:
        cells = {name: set(zip(split["label"], split["group"], strict=True)) for name, split in leucocytes.items()}
        groups = {group for split in cells.values() for _, group in split}
        description["audit"] = {
            "distinct_cells": {name: _count_by_class(label for label, _ in split) for name, split in cells.items()},
            "near_duplicates": sum(map(len, leucocytes.values())) - len(groups),
            "contradictions": description["contradictions"],
            "across": description["groups_across"],
        }
    return description


def _count_by_class(labels: Iterable[int]) -> dict[str, int]:
    counts = Counter(labels)
    return {name: counts[index] for index, name in enumerate(CLASS_NAMES)}
