"""Copy a store while it is in use, and make a store of such a copy."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from wbc_hf.errors import WbcError
from wbc_hf.files import is_full_disk
from wbc_hf.store.copying import copy_specimens
from wbc_hf.store.postgresql import is_address
from wbc_hf.store.specimens import SpecimenStore
from wbc_hf.store.sqlite import FILE, IMAGES, SqliteDatabase


def back_up(store: SpecimenStore, target: Path) -> int:
    """Copy a store into a new folder, while it is in use; the copy is a store itself, whatever the store is.

    Args:
        store: The store.
        target: A folder that does not exist. It is there when all is copied, and not before.

    Returns:
        Number of specimens.

    Raises:
        WbcError: The folder exists, there is no room, or the store is damaged.
    """
    with _made_at_once(target) as folder:
        if isinstance(store.database, SqliteDatabase):
            store.database.copy_to(folder / FILE)
        with closing(SpecimenStore(folder)) as copy:
            if isinstance(store.database, SqliteDatabase):
                _copy_files(store, store.database, copy)
            else:
                copy_specimens(store.database, copy.database)
            _check(copy, store.name)
            return copy.find(most=1).total


def restore(backup: Path, target: Path | str) -> int:
    """Make a store of a backup; the backup stays.

    Args:
        backup: What `back_up` wrote.
        target: A folder that does not exist, or the address of a PostgreSQL database in which no specimens are kept.

    Returns:
        Number of specimens.

    Raises:
        WbcError: The backup is none or is damaged, or there is something in its place.
    """
    if not (backup / FILE).is_file():
        raise WbcError(f"{backup}: is no backup of a store, since it has no {FILE}.")
    if is_address(target):
        with closing(SpecimenStore(target)) as store:
            return _restore_into(backup, store)
    with _made_at_once(Path(target)) as folder:
        # Opened is the copy: a backup of an older version stays as it is.
        for file in (it for it in backup.rglob("*") if it.is_file()):
            shutil.copyfile(file, folder / file.relative_to(backup))
        with closing(SpecimenStore(folder)) as copy:
            _check(copy, str(backup))
            return copy.find(most=1).total


def _restore_into(backup: Path, store: SpecimenStore) -> int:
    """Copy a backup into a database. Opened is a copy of its rows: a backup of an older version stays as it is."""
    with TemporaryDirectory(prefix="wbc_hf-restore-") as folder:
        shutil.copyfile(backup / FILE, Path(folder, FILE))
        Path(folder, IMAGES).symlink_to((backup / IMAGES).resolve())
        with closing(SpecimenStore(Path(folder))) as source:
            if source.reading_only:
                raise WbcError(source.reading_only.replace(folder, str(backup)))
            _check(source, str(backup))
            copy_specimens(source.database, store.database)
    return store.find(most=1).total


def _copy_files(store: SpecimenStore, database: SqliteDatabase, copy: SpecimenStore) -> None:
    """Copy the files of what a copied database holds; they only ever grow."""
    assert isinstance(copy.database, SqliteDatabase)
    for key in copy.all_keys():
        file, target = database.file_of(key), copy.database.file_of(key)
        try:
            shutil.copyfile(file, target)
        except FileNotFoundError as error:
            if key in store:
                raise WbcError(f"{file}: is missing, so that the store is damaged. Use an earlier backup.") from error
            copy.delete(key)  # as it was while this ran


@contextmanager
def _made_at_once(target: Path) -> Iterator[Path]:
    """A folder to fill that gets its name at the end of the block; an exception leaves nothing."""
    if target.exists():
        raise WbcError(f"{target}: exists already. Name a folder that does not, so that nothing is written over.")
    if not target.parent.is_dir():
        raise WbcError(f"{target}: its parent folder does not exist. Make it first.")
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


def _check(copy: SpecimenStore, source: str) -> None:
    if faults := copy.check():
        raise WbcError(f"{source}: was not copied, since it is damaged: {faults[0]} Use an earlier backup.")
