"""Classify white blood cells (leucocytes) in images of stained blood smears. Research use, not for diagnosis.

The six public names are imported when they are first used: `import wbc_hf` itself takes no time.
"""

import os
import sys
from typing import TYPE_CHECKING

from wbc_hf.lazy_names import lazy_names

if TYPE_CHECKING:
    from wbc_hf.adaptation import adapt
    from wbc_hf.data import load_leucocytes
    from wbc_hf.evaluation import evaluate
    from wbc_hf.inference import Predictor
    from wbc_hf.smear import count, find_cells

__version__ = "0.1.0"
__all__ = ["Predictor", "adapt", "count", "evaluate", "find_cells", "load_leucocytes"]

# Libraries that send usage statistics unless told not to. They look once, when they are imported: this comes before.
# OpenVINO and nncf have no other switch than a file in the home folder, and do without a package that is not there.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

__getattr__ = lazy_names(__name__)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
