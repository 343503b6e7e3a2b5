"""Errors that a user can solve. Commands print their message and stop; nothing else is caught at the top."""


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
