"""Time of the 95 % confidence intervals of an evaluation: `python benchmarks/confidence_intervals.py`.

On one busy core 1.0 s for 1,300 cells and 3.5 s for 5,000.
"""

import time

import numpy as np

from wbc_hf.evaluation.confidence_intervals import bootstrap_intervals
from wbc_hf.labels import CLASS_NAMES

COUNTS = (300, 1300, 5000)


def main() -> None:
    random = np.random.default_rng(0)
    classes = len(CLASS_NAMES)
    for count in COUNTS:
        references = random.integers(classes, size=count)
        probabilities = random.dirichlet(np.ones(classes), count) / 2 + np.eye(classes)[references] / 2
        start = time.perf_counter()
        bootstrap_intervals(references, probabilities, range(count))
        print(f"{count:6,} cells  {time.perf_counter() - start:6.2f} s")


if __name__ == "__main__":
    main()
