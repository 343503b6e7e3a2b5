"""Copy a store while it is in use, and make a store of such a copy."""

import os
import shutil
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
    _check_new(target)
    temporary = target.parent / f".{target.name}.{uuid4().hex}.tmp"
    try:
        (temporary / IMAGES).mkdir(parents=True)
        deleted, count = [], 0
        for key, file in store.back_up_to(temporary):
            try:
                shutil.copyfile(file, temporary / IMAGES / file.name)
                count += 1
            except FileNotFoundError:
                deleted.append(key)  # while this ran, or it has no pictures
        copy = SpecimenStore(temporary)
        gone = [key for key in deleted if copy.show(key).pictures]
        for key in gone:
            copy.delete(key)
        faults = copy.check()
        copy.close()
        if faults:
            raise WbcError(f"{store.folder}: was not copied: {faults[0]} Use an earlier backup.")
        os.replace(temporary, target)
        return count + len(deleted) - len(gone)
    except OSError as error:
        reason = "there is no room" if is_full_disk(error) else error.strerror
        raise WbcError(f"{target}: cannot be written ({reason}). Name another folder.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    store = SpecimenStore(backup)
    try:
        return back_up(store, target)
    finally:
        store.close()


def _check_new(target: Path) -> None:
    if target.exists():
        raise WbcError(f"{target}: exists already. Name a folder that does not, so that nothing is written over.")
    if not target.parent.is_dir():
        raise WbcError(f"{target}: its parent folder does not exist. Make it first.")
