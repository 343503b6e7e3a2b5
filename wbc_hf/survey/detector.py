"""What every detector of the survey offers: a system that finds leucocytes and does not tell them apart."""

from abc import ABC, abstractmethod
from typing import ClassVar

from PIL import Image

from wbc_hf.data import Box
from wbc_hf.survey.system import Published


class Detector(ABC):
    """A way to find the leucocytes of a photograph.

    Attributes:
        name: What files call it: "wang-2006".
        title: What the table calls it.
        published: What its paper says.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    published: ClassVar[Published]

    @abstractmethod
    def find_cells(self, field: Image.Image) -> list[Box]:
        """A box round each leucocyte, within the field.

        Args:
            field: RGB, any size.
        """
