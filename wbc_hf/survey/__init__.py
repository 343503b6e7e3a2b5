"""The literature's ways to tell leucocytes apart, one file each, run on the same cells and the same split.

Nothing else in the package needs this folder, but for the command `wbc-hf survey`.
"""

from wbc_hf.survey.conduct import conduct
from wbc_hf.survey.running import Plan

__all__ = ["Plan", "conduct"]
