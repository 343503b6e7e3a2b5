"""SHA-256 checksums of a model's weights: published beside them, and checked when they are fetched."""

from collections.abc import Sequence
from pathlib import Path

from wbc_hf.errors import WbcError
from wbc_hf.files import read_text, sha256_of_file
from wbc_hf.hub.model_files import CHECKSUMS_FILE

_WEIGHTS = ".safetensors"


def format_checksums(folder: Path, names: Sequence[str]) -> str:
    """The lines of `CHECKSUMS_FILE` for those of some files of a folder that hold weights."""
    return "".join(f"{sha256_of_file(folder / name)}  {name}\n" for name in names if name.endswith(_WEIGHTS))


def check_weights(folder: Path, repo_id: str) -> None:
    """Compare the weights in a fetched folder with its `CHECKSUMS_FILE`, if it has one.

    Raises:
        WbcError: A file with weights has another checksum, or none.
    """
    sums = folder / CHECKSUMS_FILE
    if not sums.is_file():
        return
    lines = (line.partition(" ") for line in read_text(sums).splitlines())
    expected = {name.strip().lstrip("*"): digest for digest, _, name in lines}
    for path in sorted(folder.glob(f"*{_WEIGHTS}")):
        if (found := sha256_of_file(path)) != expected.get(path.name):
            raise WbcError(
                f"{repo_id}: {path.name} is not what was published: its SHA-256 is {found}, and {CHECKSUMS_FILE} says "
                f"{expected.get(path.name, 'nothing of it')}. Delete {folder} and fetch it again; if that changes "
                "nothing, ask its owner to push it again, and do not use it before."
            )
