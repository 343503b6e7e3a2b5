"""The cache of `datasets`: what its errors mean."""

import os
from pathlib import Path

from datasets import config

from wbc_hf.errors import WbcError
from wbc_hf.files import is_full_disk


def check_cache_is_writable(spec: str, error: Exception) -> None:
    """Raises WbcError where an error of loading a set means that `datasets` cannot write to its cache."""
    reason = error.__cause__ or error
    if not isinstance(reason, OSError):
        return
    cache = Path(config.HF_DATASETS_CACHE)
    place = Path(os.fsdecode(reason.filename)) if reason.filename else cache
    in_cache = place in (cache, *cache.parents) or cache in place.parents
    if is_full_disk(reason) or (reason.errno is not None and in_cache):
        raise WbcError(
            f"{spec}: datasets cannot write to its cache, {cache} ({reason.strerror}). Make room there, or set "
            "HF_HOME to a folder that can be written to."
        ) from error
