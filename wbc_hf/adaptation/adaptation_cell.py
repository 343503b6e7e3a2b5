"""One cell that a model is adapted to, and how many of them are needed."""

from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from wbc_hf.data import WHOLE, Framing, cut_framing

# With fewer, nothing would be left to learn from beside the held-back cells.
MIN_CLASSES, MIN_CELLS = 2, 2
# With 20 cells of a laboratory that a model had not seen, the adapted one was right in three points more of them, on
# average over six mixtures of types, and in three fewer at worst; the constants were chosen on cells of these
# laboratories. See docs/unseen-laboratory.md.
MIN_UNLABELLED = 20


@dataclass(frozen=True)
class AdaptationCell:
    """One cell of the other laboratory.

    Attributes:
        image: RGB, as `read_image` gives it.
        label: Index into `CLASS_NAMES`, or None where unknown.
        group: Cells of one group are held back together: near-duplicates, cells of one photograph.
        framings: Parts of the image that the model sees.
    """

    image: Image.Image
    label: int | None
    group: str
    framings: tuple[Framing, ...] = (WHOLE,)

    @property
    def views(self) -> list[Image.Image]:
        """A picture for each framing."""
        return [cut_framing(self.image, framing) for framing in self.framings]


def enough_labelled(counts: Mapping[str, int]) -> bool:
    """Whether labelled cells suffice for cross-validation, by the number of each class."""
    return sum(count >= MIN_CELLS for count in counts.values()) >= MIN_CLASSES
