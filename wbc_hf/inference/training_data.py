"""What a model's folder says of the data that it was trained on."""

from pathlib import Path

from pydantic import BaseModel

from wbc_hf.files import read_json
from wbc_hf.hub import find_file


class _Origin(BaseModel):
    spec: str


class TrainingData(BaseModel):
    """What is read of a training's data in its `run.json`; `fingerprint` is None for a stream."""

    spec: str
    fingerprint: str | None
    origins: list[_Origin] = []

    @property
    def specs(self) -> set[str]:
        """Of each set alone, where there were several."""
        return {origin.spec for origin in self.origins} or {self.spec}


class _Run(BaseModel):
    data: TrainingData


def read_training_data(folder: Path) -> TrainingData | None:
    """What the record of a training run says of its data; None where a model's folder holds no record.

    Raises:
        WbcError: The record is damaged, or of another program.
    """
    file = find_file(folder, "run.json")
    return None if file is None else read_json(file, _Run, "Mend it, or remove it.").data
