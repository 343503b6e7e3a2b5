"""The list of changes in a card: read as it is written, by programs and by hand."""

import pytest

from wbc_hf.hub import read_changes, write_changes

CARD = "# A model\n\n## Changes\n\n- 2026-02-03: second\n- 2026-01-02: first\n\n## Licence\n\nMIT.\n"


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("", []),
        ("## Changes\n", []),
        ("## Changes\n\n## Licence\n\n- no change\n", []),
        ("## Changes\n- one\n* two\n  goes on\n", ["one", "two goes on"]),
        ("## Changes\n\nIn words.\n\n### More\n", ["In words."]),
        ("## Changes of stain\n\n- none\n", []),
    ],
)
def test_changes_are_read(section: str, changes: list[str]):
    assert read_changes(f"# A model\n\n{section}") == changes


def test_what_was_written_is_read():
    assert read_changes(CARD) == ["2026-02-03: second", "2026-01-02: first"]
    assert write_changes(CARD, read_changes(CARD)) == CARD
    assert write_changes(CARD, [r"a \\1", "b"]) == CARD.replace(
        "- 2026-02-03: second\n- 2026-01-02: first", "- a \\\\1\n- b"
    )


def test_a_card_without_the_section_gets_it_at_its_end():
    assert write_changes("# A model\n", ["first"]) == "# A model\n\n## Changes\n\n- first\n"
    assert write_changes("# A model\n\n## Changes\n", ["first"]) == "# A model\n\n## Changes\n\n- first\n"
