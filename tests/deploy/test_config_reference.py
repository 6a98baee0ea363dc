"""The page of keys is what the schema says, and every type of the schema is on it."""

import config_reference
from facts import DEPLOY


def test_the_page_is_made_of_the_schema():
    assert (DEPLOY / "CONFIG.md").read_text() == config_reference.made(), "run: tests/deploy/config_reference.py > deploy/CONFIG.md"


def test_no_key_is_without_a_word():
    rows = [line.rsplit(" | ", 1) for line in config_reference.made().splitlines() if line.startswith(("| `", "| **`"))]
    assert len(rows) > 400
    assert [row[0] for row in rows if not row[1].rstrip(" |")] == []
