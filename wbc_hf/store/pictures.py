"""Where the pictures of a kept specimen lie: in a file beside the database, or in the database itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, insert, select

from wbc_hf.errors import WbcError
from wbc_hf.smear import KeptPicture, PictureStore
from wbc_hf.store.tables import CONTENTS

if TYPE_CHECKING:
    from wbc_hf.store.postgresql import PostgresDatabase


class SpecimenPictures(PictureStore):
    """The pictures of a kept specimen, and what its transactions have to do for them.

    Here that is nothing. They lie in a file that only ever grows: a kill leaves bytes in it that no row names, and
    never a row without bytes.
    """

    def write(self, connection: Connection, pictures: Sequence[KeptPicture]) -> None:
        """Write pictures in the transaction that names them: they are in the file already."""

    def forget_written(self, pictures: Sequence[KeptPicture]) -> None:
        """Take note that the transaction has ended well."""

    def continue_at(self, end: int) -> None:
        """Go on after what another process wrote: a file does so by itself."""


class DatabasePictures(SpecimenPictures):
    """Rows of the database. Where a picture starts is counted as in a file, so that a backup has the same places.

    Args:
        database: The database.
        key: Of the specimen.
    """

    def __init__(self, database: "PostgresDatabase", key: str):
        super().__init__()
        self._database, self._key, self._end = database, key, 0
        # Those of a change that was refused go with whoever refers to them.
        self._unwritten: WeakKeyDictionary[KeptPicture, bytes] = WeakKeyDictionary()

    def keep(self, content: bytes) -> KeptPicture:
        """Take a picture, to be written with the change that it belongs to."""
        picture = KeptPicture(self, self._end, len(content))
        self._end += len(content)
        self._unwritten[picture] = content
        return picture

    def read(self, pictures: Sequence[KeptPicture]) -> list[bytes]:
        """The bytes of some pictures, in one transaction.

        Raises:
            WbcError: The database lacks one, or cannot be reached.
        """
        contents = {it.start: self._unwritten.get(it) for it in pictures}
        places = [start for start, content in contents.items() if content is None]
        if places:
            query = select(CONTENTS.c.start, CONTENTS.c.data).where(CONTENTS.c.specimen == self._key)
            with self._database.reading() as connection:
                found = connection.execute(query.where(CONTENTS.c.start.in_(places)))
                contents |= {start: bytes(data) for start, data in found}
        read = [contents[it.start] or b"" for it in pictures]
        if list(map(len, read)) != list(map(len, pictures)):
            raise WbcError(
                f"{self._database.name}: is damaged, a picture is missing. Restore a backup into another database."
            )
        return read

    def sync(self) -> None:
        """Nothing waits outside of the transaction."""

    def write(self, connection: Connection, pictures: Sequence[KeptPicture]) -> None:
        """Write pictures in the transaction that names them."""
        rows = [{"specimen": self._key, "start": it.start, "data": self._unwritten[it]} for it in pictures]
        connection.execute(insert(CONTENTS), rows)

    def forget_written(self, pictures: Sequence[KeptPicture]) -> None:
        """Take note that the transaction has ended well."""
        for picture in pictures:
            self._unwritten.pop(picture, None)

    def continue_at(self, end: int) -> None:
        """Go on after what another process wrote."""
        self._end = end
