"""The web page: one cell, a specimen, adaptation, the model, and the same as endpoints for programs.

Each tab is a module with its components and event handlers; `rendering` and `templates/` make its HTML.
"""

from wbc_hf.web.assembly import build_page
from wbc_hf.web.launching import launch_page
from wbc_hf.web.roles import parse_roles

__all__ = ["build_page", "launch_page", "parse_roles"]
