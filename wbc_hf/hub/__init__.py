"""To and from the Hugging Face Hub: fetching models, publishing results."""

from wbc_hf.hub.fetching import check_hub_reachable, fetch_model
from wbc_hf.hub.publishing import UNNAMED_MODEL, push_folder

__all__ = ["UNNAMED_MODEL", "check_hub_reachable", "fetch_model", "push_folder"]
