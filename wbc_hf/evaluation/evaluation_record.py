"""What was evaluated, on which images, and how fast: `evaluation.json` beside a report."""

from dataclasses import dataclass
from pathlib import Path

from wbc_hf.files import read_json
from wbc_hf.hub import find_file

RECORD_FILE = "evaluation.json"


@dataclass(frozen=True)
class EvaluatedSet:
    """The images of an evaluation.

    Attributes:
        spec: As it was given to `load_leucocytes`; several with a space between.
        split: "train", "validation", "test" or "all".
        seed: Random seed of the split, for data that bring none.
        fingerprint: Of images, labels and splits; None of a stream.
    """

    spec: str
    split: str
    seed: int
    fingerprint: str | None


@dataclass(frozen=True)
class EvaluationRecord:
    """What was evaluated on which images, and how fast. Times have the names of the package `evaluate`'s evaluators.

    Attributes:
        model, version, software: As in `ModelIdentity`.
        backend: What ran the model.
        data: The images; None where the caller did not say.
        finished: When, ISO 8601 in UTC.
        total_time_in_seconds: From the first image's file to the last prediction, decoding included.
        samples_per_second: Images in that time.
        latency_in_seconds: Its inverse. Images go through in batches: a single one takes longer.
    """

    model: str
    version: str
    software: str
    backend: str
    data: EvaluatedSet | None
    finished: str
    total_time_in_seconds: float
    samples_per_second: float
    latency_in_seconds: float


def read_record(folder: Path) -> EvaluationRecord | None:
    """Read what a report's folder says of its evaluation; None where it says nothing.

    Raises:
        WbcError: The file is damaged, or lies elsewhere.
    """
    file = find_file(folder, RECORD_FILE)
    return None if file is None else read_json(file, EvaluationRecord, "Evaluate the model again.")
