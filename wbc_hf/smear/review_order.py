"""Which cell to review next, so that a model learns most from the first few reviews of another laboratory."""

from collections import Counter
from collections.abc import Sequence

from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear.cell import Cell, CellState


def next_to_teach(cells: Sequence[Cell]) -> Cell | None:
    """The waiting cell that teaches most: the first of the class, by its prediction, that was reviewed least.

    In turns over the predicted classes rare ones come early, so that adaptation can begin. With 40 labels it was about
    as good as a random order; the most uncertain cell of each class next was worse. See docs/unseen-laboratory.md.

    Args:
        cells: Of a specimen.

    Returns:
        None where no cell waits.
    """
    reviewed = Counter(cell.suggestion for cell in cells if cell.review is not None)
    waiting = [cell for cell in cells if cell.state is CellState.WAITING]
    order = {name: index for index, name in enumerate(CLASS_NAMES)}
    return min(
        waiting,
        key=lambda cell: (
            reviewed[cell.suggestion],
            order.get(cell.suggestion or "", len(order)),
            cell.number,
        ),
        default=None,
    )
