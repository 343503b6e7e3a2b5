"""Locality-sensitive hashing of key points: which earlier fields may overlap a new one, in nearly constant time.

Descriptors are hashed by random hyperplanes (Charikar 2002, doi:10.1145/509907.509965) in several tables. Fields with
descriptors in one bucket vote for each other; a bucket that many fields share says less, and its votes weigh less.
"""

import cv2
import numpy as np

_BITS, _TABLES = 24, 16
_SIZE = 128  # of a SIFT descriptor
# Subtracted from descriptors, which are positive: without it most lie on the same side of every plane.
_MEAN = 16
# An entry is one number: the bucket, and in the lower bits the field. Sorted, they take 30 kB a field; a dictionary of
# lists takes twenty times as much.
_FIELD_BITS = 32
# The entries of so many fields are sorted apart from the others: merging takes as long as there are entries.
_RECENT = 64


class FieldVotes:
    """Descriptors of fields, to be searched for the fields that share most of them."""

    def __init__(self) -> None:
        self._planes = np.random.default_rng(0).standard_normal((_SIZE, _TABLES * _BITS), dtype=np.float32)
        self._old = self._recent = np.zeros(0, np.int64)
        self._fields = 0

    def add(self, descriptors: np.ndarray, count: int) -> list[int]:
        """Add a field, and return the indices of at most `count` earlier ones that share most, in order of index.

        Args:
            descriptors: uint8 (k, 128).
            count: How many earlier fields are wanted.
        """
        buckets = self._buckets(descriptors)
        votes = self._vote(buckets)
        self._recent = np.sort(np.concatenate([self._recent, (buckets << _FIELD_BITS) + self._fields]), kind="stable")
        self._fields += 1
        if self._fields % _RECENT == 0:
            self._old = np.sort(np.concatenate([self._old, self._recent]), kind="stable")
            self._recent = self._recent[:0].copy()
        likeliest = np.argsort(-votes, kind="stable")[:count]
        return sorted(int(index) for index in likeliest if votes[index] > 0)

    def _vote(self, buckets: np.ndarray) -> np.ndarray:
        """The votes for each field in these buckets, float (fields,)."""
        found = [
            (entries, *(np.searchsorted(entries, bound << _FIELD_BITS) for bound in (buckets, buckets + 1)))
            for entries in (self._old, self._recent)
        ]
        weights = 1 / np.maximum(sum(ends - starts for _, starts, ends in found), 1)
        votes = np.zeros(self._fields)
        for entries, starts, ends in found:
            sizes = ends - starts
            # The places of all entries, bucket after bucket.
            places = np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
            fields = entries[places] & ((1 << _FIELD_BITS) - 1)
            votes += np.bincount(fields, np.repeat(weights, sizes), minlength=self._fields)
        return votes

    def _buckets(self, descriptors: np.ndarray) -> np.ndarray:
        """The buckets of the descriptors, each once: int64, below 2 ** 28."""
        if not len(descriptors):
            return np.zeros(0, np.int64)
        # Not numpy's product: see `wbc_hf.data.key_points`.
        product = cv2.gemm(descriptors.astype(np.float32) - _MEAN, self._planes, 1, None, 0)  # type: ignore[call-overload]
        sides = (product > 0).reshape(-1, _TABLES, _BITS)
        high, middle, low = np.moveaxis(np.packbits(sides, axis=2).astype(np.int64), 2, 0)
        return np.unique((high << 16) + (middle << 8) + low + (np.arange(_TABLES) << _BITS))
