"""Wang & Wang 2006: threshold, morphology and fuzzy logic, joined in a fuzzy cellular neural network.

"A new detection algorithm (NDA) based on fuzzy cellular neural networks for white blood cell detection", IEEE
Transactions on Information Technology in Biomedicine 10(1):5-10.

**Published.** Only the abstract was available, without a figure: "we can detect almost all white blood cells, and the
contour of each detected cell is nearly complete". The photographs are not known.

**Known.** The algorithm combines a threshold and mathematical morphology with a fuzzy cellular neural network. That is
the network of Yang & Yang 1996 (The global stability of fuzzy cellular neural network, IEEE Transactions on Circuits
and Systems I 43(10):880-883): one neuron for each pixel, connected to its nearest neighbours, whose templates take a
fuzzy minimum or maximum beside sums. Its additive form does grey-scale morphology and reconstruction (Yang & Yang
1997, International Journal of Circuit Theory and Applications 25:153-165).

**Chosen.**

- The combination: a threshold becomes a membership, a closing and an erosion by minima and maxima leave the cores of
  nuclei, and these grow within the membership by feedback, which is reconstruction.
- The channel is saturation. In grey and in green, red cells are nearly as dark as nuclei: the best of the settings
  tried left more than 1.7 false boxes in each photograph; with saturation, none left more than 0.1.
- The threshold is Otsu's for three classes: background, red cells, nuclei.
- Sizes hold for the magnification of BCCD, where leucocytes are some 170 pixels wide.

Channel, threshold and sizes were chosen on the tuning half of BCCD's photographs. The threshold assumes that there is
a nucleus: in a photograph without one, or with a pale one, the most saturated red cells fall into the third class.
"""

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image
from skimage.filters import threshold_multiotsu

from wbc_hf.data import Box
from wbc_hf.survey.system import Detector, Published

# At half the size of BCCD's photographs; sizes below are in its pixels. Nothing is lost for boxes, and the network
# settles in half the steps.
_SHRINK = 2
_CLASSES = 3
# JPEG leaves blocks in the colours.
_MEDIAN = 5
# Radii of the discs that close gaps between lobes, and that a nucleus holds but a platelet does not.
_GAP, _SEED = 8, 9
# Where a cell ends, from -1, as a pixel outside nuclei is on average, over 0, the threshold, to 1, as one inside is.
_EDGE = -0.25
_SMALLEST_AREA = 800
# In relation to the longer side of what was found: the outermost cytoplasm is as pale as the background.
_MARGIN = 0.12

# The state has settled where no neuron moves by as much as half a grey level of 256, of the range from -1 to 1.
_SETTLED = 1 / 256
_NEAREST = np.ones((3, 3), np.uint8)


class Wang2006(Detector):
    """A fuzzy cellular neural network that grows the nuclei which a threshold and an erosion leave."""

    name = "wang-2006"
    title = "After Wang & Wang 2006, fuzzy cellular neural network"
    published = Published(
        source="Wang & Wang 2006, IEEE TITB 10(1):5-10, doi 10.1109/TITB.2005.855545",
        cells="photographs, not known which; almost all leucocytes found",
    )

    def find_cells(self, field: Image.Image) -> list[Box]:
        """A box round each leucocyte, row by row of their upper edges.

        Args:
            field: RGB, any size, taken so that leucocytes are some 170 pixels wide.
        """
        size = max(1, field.width // _SHRINK), max(1, field.height // _SHRINK)
        membership = nucleus_membership(np.asarray(field.resize(size, Image.Resampling.BOX)))
        if membership is None:
            return []
        closed = cv2.erode(cv2.dilate(membership, _disc(_GAP)), _disc(_GAP))
        core = cv2.erode(closed, _disc(_SEED))
        settled = reconstruct(np.where(core > 0, core, -1), closed)
        _, _, regions, _ = cv2.connectedComponentsWithStats((settled > _EDGE).astype(np.uint8))
        scale = np.array(field.size) / size
        return [_box(region[:4], scale, field.size) for region in regions[1:] if region[4] >= _SMALLEST_AREA]


def nucleus_membership(pixels: np.ndarray) -> np.ndarray | None:
    """Compute the membership of each pixel in nuclei, the network's input.

    Args:
        pixels: RGB (height, width, 3) uint8.

    Returns:
        float32 (height, width), 0 at the threshold, -1 and 1 from the mean of either side of it outwards; None where
        the picture has too few tones for three classes.
    """
    saturation = cv2.medianBlur(np.ascontiguousarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1]), _MEDIAN)
    if len(np.unique(saturation)) < _CLASSES:
        return None
    threshold = threshold_multiotsu(saturation, _CLASSES)[-1]
    inside = saturation > threshold
    tones = saturation[~inside].mean(), threshold, saturation[inside].mean()
    return np.interp(saturation, tones, (-1, 0, 1)).astype(np.float32)


def reconstruct(seeds: np.ndarray, membership: np.ndarray) -> np.ndarray:
    """Grow seeds within the membership: grey-scale reconstruction by dilation.

    Each neuron is driven to the largest output around it, but never above its own input.

    Args:
        seeds: float32 (height, width), the state to begin with, -1 to 1, nowhere above `membership`.
        membership: float32 (height, width), the input u, -1 to 1.

    Returns:
        The output where it has settled, float32 (height, width).
    """
    return settle(seeds, lambda output: np.minimum(membership, cv2.dilate(output, _NEAREST)))


def settle(state: np.ndarray, drive: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Follow the state equation of a fuzzy cellular neural network to its equilibrium.

    C dx/dt = -x / R + drive(y), y = f(x) = (|x + 1| - |x - 1|) / 2, with C = R = 1. Euler's steps are one time
    constant long: the equilibrium is that of shorter ones where, as here, the drive never falls while the state rises.
    Without feedback the drive is constant and the state settles there at once: then a call of OpenCV is the network.

    Args:
        state: x to begin with, float32 (height, width).
        drive: What templates and input make of the output y, float32 (height, width), -1 to 1.

    Returns:
        The output at the equilibrium.
    """
    output = np.clip(state, -1, 1)
    while True:
        state = drive(output)  # x + (-x + drive(y)) * 1
        moved, output = np.abs(state - output).max(), np.clip(state, -1, 1)
        if moved < _SETTLED:
            return output


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _box(region: np.ndarray, scale: np.ndarray, size: tuple[int, int]) -> Box:
    """A region's x, y, width and height, widened, in pixels of a field of `size`, which is `scale` times as large."""
    corner, sides = region[:2], region[2:]
    margin = _MARGIN * sides.max()
    x0, y0 = np.maximum(np.floor((corner - margin) * scale), 0).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil((corner + sides + margin) * scale), size).astype(int).tolist()
    return x0, y0, x1, y1
