"""To and from the Hugging Face Hub: fetching models, publishing results."""

from wbc_hf.hub.fetching import NOTICE_FILE, check_hub_reachable, copy_notice, fetch_model
from wbc_hf.hub.publishing import UNNAMED_MODEL, list_published, push_folder, push_space

__all__ = [
    "NOTICE_FILE",
    "UNNAMED_MODEL",
    "check_hub_reachable",
    "copy_notice",
    "fetch_model",
    "list_published",
    "push_folder",
    "push_space",
]
