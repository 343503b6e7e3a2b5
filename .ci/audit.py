"""Look for known vulnerabilities in requirements.lock with pip-audit: `make audit` runs this.

Where the database cannot be reached, or knows none of the packages, it says that nothing was looked up, and succeeds.
"""

import json
import subprocess
import sys
from pathlib import Path

LOCK = "requirements.lock"
OPTIONS = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]


def judge(dependencies: list[dict]) -> tuple[str, int]:
    """Sum up what pip-audit found.

    Args:
        dependencies: A record for each package, from its JSON; none where it could not ask.

    Returns:
        What to say, and the exit status: 1 where there is a vulnerability.
    """
    known = [it for it in dependencies if "skip_reason" not in it]
    if not known:
        return "The database of vulnerabilities cannot be reached: nothing was looked up.", 0
    lines = [
        f"{it['name']} {it['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none yet'}"
        for it in known
        for found in it["vulns"]
    ]
    unknown = len(dependencies) - len(known)
    summary = f"{len(known)} packages were looked up, {unknown} are not in the database; {len(lines)} vulnerabilities."
    return "\n".join([*lines, summary]), int(bool(lines))


def main() -> int:
    command = [Path(sys.executable).with_name("pip-audit"), "--requirement", LOCK, *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(*done.stderr.splitlines()[-1:])
        dependencies = []
    said, status = judge(dependencies)
    print(said)
    return status


if __name__ == "__main__":
    sys.exit(main())
