"""Import what a folder of the package exports when it is first used (PEP 562).

A command then waits for no library that it does without.
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module


def lazy_names(package: str) -> Callable[[str], object]:
    """Make the `__getattr__` of a package: each name under its `if TYPE_CHECKING` is imported when it is first used.

    They are its `__all__` too, unless it has one. Type checkers and editors take the imports there for ordinary ones.
    No name may be that of a module of the package, which Python would find in its place.

        if TYPE_CHECKING:
            from wbc_hf.data.reading import read_image

        __getattr__ = lazy_names(__name__)
    """
    module = sys.modules[package]
    assert module.__spec__ is not None and module.__spec__.loader is not None
    source = module.__spec__.loader.get_source(package)  # type: ignore[attr-defined]
    homes = {
        alias.name: node.module
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }
    module.__dict__.setdefault("__all__", sorted(homes))

    def import_name(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(module, name, value)
        return value

    return import_name
