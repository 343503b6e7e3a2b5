"""Copy a store while it is in use, and make a store of such a copy."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from wbc_hf.errors import WbcError
from wbc_hf.files import is_full_disk
from wbc_hf.store.database import FILE
from wbc_hf.store.specimens import IMAGES, SpecimenStore


def back_up(store: SpecimenStore, target: Path) -> int:
    """Copy a store into a new folder, while it is in use; the copy is a store itself.

    Args:
        store: The store.
        target: A folder that does not exist. It is there when all is copied, and not before.

    Returns:
        Number of specimens.

    Raises:
        WbcError: The folder exists, there is no room, or the store is damaged.
    """
    with _made_at_once(target) as folder:
        deleted, count = [], 0
        for key, file in store.back_up_to(folder):
            try:
                shutil.copyfile(file, folder / IMAGES / file.name)
                count += 1
            except FileNotFoundError as error:
                if key in store:
                    raise WbcError(
                        f"{file}: is missing, so that the store is damaged. Use an earlier backup."
                    ) from error
                deleted.append(key)  # while this ran
        copy = SpecimenStore(folder)
        for key in deleted:
            copy.delete(key)
        _check(copy, store.folder)
    return count


def restore(backup: Path, target: Path) -> int:
    """Make a store of a backup, in a new folder; the backup stays.

    Args:
        backup: What `back_up` wrote.
        target: A folder that does not exist.

    Returns:
        Number of specimens.

    Raises:
        WbcError: The backup is none or is damaged, or the folder exists.
    """
    if not (backup / FILE).is_file():
        raise WbcError(f"{backup}: is no backup of a store, since it has no {FILE}.")
    with _made_at_once(target) as folder:
        # Opened is the copy: a backup of an older version stays as it is.
        for file in (it for it in backup.rglob("*") if it.is_file()):
            shutil.copyfile(file, folder / file.relative_to(backup))
        copy = SpecimenStore(folder)
        count = copy.find(most=1).total
        _check(copy, backup)
    return count


@contextmanager
def _made_at_once(target: Path) -> Iterator[Path]:
    """A folder to fill that gets its name at the end of the block; an exception leaves nothing."""
    _check_new(target)
    temporary = target.parent / f".{target.name}.{uuid4().hex}.tmp"
    try:
        temporary.mkdir(mode=0o700)
        (temporary / IMAGES).mkdir()
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        reason = "there is no room" if is_full_disk(error) else error.strerror
        raise WbcError(f"{target}: cannot be written ({reason}). Name another folder.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check(copy: SpecimenStore, source: Path) -> None:
    """Check a copy, and close it."""
    faults = copy.check()
    copy.close()
    if faults:
        raise WbcError(f"{source}: was not copied, since it is damaged: {faults[0]} Use an earlier backup.")


def _check_new(target: Path) -> None:
    if target.exists():
        raise WbcError(f"{target}: exists already. Name a folder that does not, so that nothing is written over.")
    if not target.parent.is_dir():
        raise WbcError(f"{target}: its parent folder does not exist. Make it first.")
