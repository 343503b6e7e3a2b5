"""To and from the Hugging Face Hub: fetching models, their files, publishing results."""

from typing import TYPE_CHECKING

from wbc_hf.lazy_names import lazy_names

if TYPE_CHECKING:
    from wbc_hf.hub.card_changes import read_changes, write_changes
    from wbc_hf.hub.datasets_cache import check_cache_is_writable
    from wbc_hf.hub.fetching import check_hub_reachable
    from wbc_hf.hub.local_models import copy_notice, fetch_model
    from wbc_hf.hub.model_files import (
        CARD_FILE,
        CONFIG_FILE,
        MAX_WEIGHT_BYTES,
        METRICS_FILE,
        NOTICE_FILE,
        PROCESSOR_FILE,
        WEIGHTS_FILE,
        find_file,
        find_weights,
    )
    from wbc_hf.hub.publishing import UNNAMED_MODEL, list_published, push_folder, push_space

__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "MAX_WEIGHT_BYTES",
    "METRICS_FILE",
    "NOTICE_FILE",
    "PROCESSOR_FILE",
    "UNNAMED_MODEL",
    "WEIGHTS_FILE",
    "check_cache_is_writable",
    "check_hub_reachable",
    "copy_notice",
    "fetch_model",
    "find_file",
    "find_weights",
    "list_published",
    "push_folder",
    "push_space",
    "read_changes",
    "write_changes",
]

__getattr__ = lazy_names(__name__)
