"""Manifests: what a resumable folder is made from, so that no run resumes in the folder of another."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from wbc_hf.files import write_json


@dataclass(frozen=True)
class Manifest:
    """What a resumable folder is made from, kept in a JSON file beside its contents.

    Attributes:
        path: The JSON file.
        entries: By name, the values that must be the same whenever the folder is resumed. They must go into JSON.
        messages: By name, the format string that describes a changed value from its `name`, `before` and `now`.
    """

    path: Path
    entries: Mapping[str, object]
    messages: Mapping[str, str] = field(default_factory=dict)
    _DEFAULT_MESSAGE: ClassVar[str] = "{name} was {before!r}, now {now!r}"

    def exists(self) -> bool:
        """Whether the folder has been claimed."""
        return self.path.exists()

    def write(self) -> None:
        """Claim the folder by writing the file, atomically. A file that exists stays as it is.

        Raises:
            OSError: It cannot be written.
        """
        if not self.exists():
            write_json(self.path, self.entries)

    def changes(self) -> list[str]:
        """Describe every value that is not what the file says; an empty list allows to resume.

        Names that stand only in the file or only in `entries` come from another version, and are ignored.

        Raises:
            FileNotFoundError: There is no file.
        """
        return self.changes_from(json.loads(self.path.read_text(encoding="utf-8")))

    def changes_from(self, recorded: Mapping[str, object]) -> list[str]:
        """Describe every value that is not what `recorded` says, as `changes` does for the file."""
        now = json.loads(json.dumps(self.entries))  # tuples become lists, as in the file
        return [
            self.messages.get(name, self._DEFAULT_MESSAGE).format(name=name, before=recorded[name], now=value)
            for name, value in now.items()
            if name in recorded and recorded[name] != value
        ]
