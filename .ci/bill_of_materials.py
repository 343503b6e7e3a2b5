"""Put a CycloneDX bill of materials into a wheel, where PEP 770 has tools look for it.

    python .ci/bill_of_materials.py dist/wbc_hf-0.1.0-py3-none-any.whl

It lists the versions of requirements.lock, with which the release was tested. Needs cyclonedx-bom and wheel.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def add_bill(wheel: Path) -> None:
    """Replace a wheel by one that holds a bill of materials, in its folder `sboms` beside the metadata."""
    with tempfile.TemporaryDirectory() as folder:
        _run("wheel", "unpack", "--dest", folder, str(wheel))
        (unpacked,) = Path(folder).iterdir()
        (metadata,) = unpacked.glob("*.dist-info")
        (metadata / "sboms").mkdir()
        options = ["--output-reproducible", "--pyproject", str(ROOT / "pyproject.toml")]
        bill = metadata / "sboms" / "wbc-hf.cdx.json"
        _run("cyclonedx_py", "requirements", *options, "--output-file", str(bill), str(ROOT / "requirements.lock"))
        content = json.loads(bill.read_text(encoding="utf-8"))
        # pyproject.toml takes the version from the package, which cyclonedx-py does not import.
        content["metadata"]["component"]["version"] = unpacked.name.partition("-")[2]
        bill.write_text(json.dumps(content, indent=1), encoding="utf-8")
        _run("wheel", "pack", "--dest-dir", str(wheel.parent), str(unpacked))


def _run(*words: str) -> None:
    subprocess.run([sys.executable, "-m", *words], check=True)


if __name__ == "__main__":
    add_bill(Path(sys.argv[1]))
