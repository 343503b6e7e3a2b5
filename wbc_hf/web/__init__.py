"""The page in which a laboratory asks a model: a cell, a specimen, what the model is. Nothing is fetched from outside.

Each tab has a module that says what happens in it, and one that says how that looks; `endpoints` opens the same to
programs.
"""

from wbc_hf.web.assembly import build_page
from wbc_hf.web.launching import launch_page

__all__ = ["build_page", "launch_page"]
