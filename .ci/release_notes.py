"""Print what CHANGELOG.md says of a release, or say why the tag makes none.

    python .ci/release_notes.py v0.1.0

The tag, `wbc_hf.__version__`, the newest version in CHANGELOG.md and the one in CITATION.cff have to agree, dates too,
and nothing may wait under "Unreleased". It needs no package but Python.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?$", re.M)


def release_notes(tag: str, root: Path = ROOT) -> str:
    """Return the section of CHANGELOG.md on the release that a tag makes.

    Raises:
        ValueError: The tag makes no release; one line says why.
    """
    package = _only(r'^__version__ = "(.+)"$', root / "wbc_hf" / "__init__.py")
    if tag != f"v{package}":
        raise ValueError(f"The tag {tag} is not v{package}, the version in wbc_hf/__init__.py.")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased, newest, *older = HEADING.finditer(changelog)
    if changelog[unreleased.end() : newest.start()].strip():
        raise ValueError('CHANGELOG.md has lines under "Unreleased": move them to the version that this release is.')
    if newest["version"] != package:
        raise ValueError(f"The newest version in CHANGELOG.md is {newest['version']}, not {package}.")
    citation = _only(r"^version: (.+)$", root / "CITATION.cff")
    if citation != package:
        raise ValueError(f"The version in CITATION.cff is {citation}, not {package}.")
    date = _only(r'^date-released: "(.+)"$', root / "CITATION.cff")
    if date != newest["date"]:
        raise ValueError(f"The date in CITATION.cff is {date}, in CHANGELOG.md {newest['date']}.")
    end = older[0].start() if older else len(changelog)
    return changelog[newest.end() : end].strip()


def _only(pattern: str, file: Path) -> str:
    (value,) = re.findall(pattern, file.read_text(encoding="utf-8"), re.M)
    return value


if __name__ == "__main__":
    try:
        print(release_notes(sys.argv[1]))
    except ValueError as error:
        sys.exit(str(error))
