"""A specimen as it stands at one moment: what every export is made of, so that all of them say the same."""

from dataclasses import dataclass
from datetime import UTC, datetime

from wbc_hf.inference.predictor import ModelIdentity
from wbc_hf.smear.differential import Differential, ReferenceRanges, differentiate
from wbc_hf.smear.specimen import Cell, Picture, Specimen, State, count_cells


@dataclass(frozen=True)
class Snapshot:
    """What an export tells.

    Attributes:
        specimen: How the laboratory calls it; may be empty.
        time: When this was taken down, in UTC.
        model: Which model answered.
        pictures: All of them.
        cells: All of them, the counted, waiting, rejected, cut and copied.
        differential: Of the counted ones.
    """

    specimen: str
    time: datetime
    model: ModelIdentity
    pictures: tuple[Picture, ...]
    cells: tuple[Cell, ...]
    differential: Differential

    @property
    def reviewers(self) -> tuple[str, ...]:
        """Who looked at cells, each once, in order of name; "" stands for those who gave none."""
        return tuple(sorted({cell.review.reviewer for cell in self.reviewed}))

    @property
    def reviewed(self) -> tuple[Cell, ...]:
        """The cells that a person said something of, without those of pictures that were taken out."""
        return tuple(cell for cell in self.cells if cell.review is not None and not cell.removed)

    def cells_in(self, state: State) -> tuple[Cell, ...]:
        """The cells of one state."""
        return tuple(cell for cell in self.cells if cell.state is state)


def take_snapshot(specimen: Specimen, model: ModelIdentity, ranges: ReferenceRanges) -> Snapshot:
    """A specimen as it stands now."""
    pictures, cells = specimen.contents()
    return Snapshot(
        specimen=specimen.name,
        time=datetime.now(UTC).replace(microsecond=0),
        model=model,
        pictures=pictures,
        cells=cells,
        differential=differentiate(count_cells(cells), ranges, specimen.leucocytes),
    )
