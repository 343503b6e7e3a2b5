"""What `make audit` makes of the answers of pip-audit."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "audit.py"
FOUND = {"id": "PYSEC-2026-1", "fix_versions": ["1.1"], "aliases": [], "description": "A hole."}
SOUND = {"name": "sound", "version": "2.0", "vulns": []}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("dependencies", "said", "status"),
    [
        ([], "nothing was looked up", 0),
        ([UNKNOWN], "nothing was looked up", 0),
        ([SOUND, UNKNOWN], "1 packages were looked up, 1 are not in the database; 0 vulnerabilities", 0),
        ([SOUND, {"name": "leaky", "version": "1.0", "vulns": [FOUND]}], "leaky 1.0: PYSEC-2026-1, mended in 1.1", 1),
    ],
)
def test_a_vulnerability_fails_and_silence_does_not_pass_for_none(dependencies: list[dict], said: str, status: int):
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text, code = script.judge(dependencies)
    assert said in text and code == status
