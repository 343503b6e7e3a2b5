"""Locality-sensitive hashing of key points: which earlier fields may overlap a new one, in nearly constant time.

Descriptors are hashed by random hyperplanes (Charikar 2002, doi:10.1145/509907.509965) in several tables. Fields with
descriptors in one bucket vote for each other; a bucket that many fields share says less, and its votes weigh less.
"""

from collections.abc import Sequence

import numpy as np

_BITS, _TABLES = 24, 16
_SIZE = 128  # of a SIFT descriptor


class FieldVotes:
    """Descriptors of fields, to be searched for the fields that share most of them."""

    def __init__(self) -> None:
        self._planes = np.random.default_rng(0).standard_normal((_SIZE, _TABLES * _BITS), dtype=np.float32)
        # Subtracted from descriptors, which are positive: without it most lie on the same side of every plane.
        self._mean: np.ndarray | None = None
        self._buckets: dict[int, list[int]] = {}
        self._fields = 0

    def add(self, descriptors: np.ndarray, count: int) -> Sequence[int]:
        """Add a field, and return the indices of at most `count` earlier ones that share most, in order of index.

        Args:
            descriptors: uint8 (k, 128).
            count: How many earlier fields are wanted.
        """
        votes = np.zeros(self._fields)
        for bucket in self._codes(descriptors):
            fields = self._buckets.setdefault(bucket, [])
            if fields:
                votes[fields] += 1 / len(fields)
            fields.append(self._fields)
        self._fields += 1
        likeliest = np.argsort(-votes, kind="stable")[:count]
        return sorted(int(index) for index in likeliest if votes[index] > 0)

    def _codes(self, descriptors: np.ndarray) -> list[int]:
        """The buckets of the descriptors, each once."""
        if not len(descriptors):
            return []
        if self._mean is None:
            self._mean = descriptors.mean(axis=0, dtype=np.float32)
        sides = (descriptors - self._mean) @ self._planes > 0
        codes = sides.reshape(-1, _TABLES, _BITS) @ (1 << np.arange(_BITS)) + (np.arange(_TABLES) << _BITS)
        return np.unique(codes).tolist()
