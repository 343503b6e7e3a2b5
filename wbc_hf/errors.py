"""Errors that a user can solve. Commands print their message and exit; other exceptions are not caught."""

from collections.abc import Iterator
from contextlib import contextmanager


class WbcError(Exception):
    """Invalid input. The message names the value, what is allowed, and what to do."""


class UnreadableImageError(WbcError):
    """An input that is not a readable image.

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
