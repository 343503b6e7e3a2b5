"""An extra that no other room imports: systems from the literature, one file each, on the same cells and split.

Only the command `wbc-hf survey` uses it.
"""

from wbc_hf.survey.conduct import conduct
from wbc_hf.survey.running import Plan

__all__ = ["Plan", "conduct"]
