"""Errors that a user can solve. Commands print their message and stop; nothing else is caught at the top."""

from collections.abc import Iterator
from contextlib import contextmanager


class WbcError(Exception):
    """Something the user gave cannot be used. The message names the value, what was allowed, and what to do."""


class UnreadableImageError(WbcError):
    """One input is not an image that can be classified.

    Attributes:
        name: The file or input, as the user named it.
        reason: Why it cannot be used, in plain words.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class HubUnreachableError(WbcError):
    """The Hugging Face Hub did not answer in time."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a missing optional package into an error that names the extra to install.

        with needs_extra("openvino"):
            import openvino

    Raises:
        WbcError: A package that was imported inside is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("wbc_hf"):
            raise
        raise WbcError(
            f"The package {error.name} is not installed. Install it with `pip install 'wbc-hf[{extra}]'`."
        ) from error
