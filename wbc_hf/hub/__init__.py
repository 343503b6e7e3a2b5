"""To and from the Hugging Face Hub: fetching models, publishing results."""

from wbc_hf.hub.datasets_cache import check_cache_is_writable
from wbc_hf.hub.fetching import NOTICE_FILE, check_hub_reachable, copy_notice, fetch_model
from wbc_hf.hub.publishing import UNNAMED_MODEL, push_folder

__all__ = [
    "NOTICE_FILE",
    "UNNAMED_MODEL",
    "check_cache_is_writable",
    "check_hub_reachable",
    "copy_notice",
    "fetch_model",
    "push_folder",
]
