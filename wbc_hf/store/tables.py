"""The tables of the store, as of the newest migration.

Slides, pictures and cells are records of `wbc_hf.smear.document`, in JSON, so that a specimen is described in one way
in the store and in what “Everything (JSON)” writes. What the work list shows and searches stands in columns.
"""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()
POSTGRESQL_METADATA = MetaData()  # of what is only there
# SQLite has one kind of whole number, and compares texts by their bytes.
_BYTES = Integer().with_variant(BigInteger, "postgresql")
_TIME = String(32).with_variant(String(32, collation="C"), "postgresql")

SPECIMENS = Table(
    "specimen",
    METADATA,
    Column("key", String(32), primary_key=True),
    Column("state", String(10), nullable=False),
    Column("owner", Text, nullable=False),
    Column("created", _TIME, nullable=False),  # times in UTC, ISO 8601, so that they sort as texts
    Column("changed", _TIME, nullable=False),
    Column("about", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("signed_by", Text, nullable=False),
    Column("search", Text, nullable=False),
    Column("amended", Integer, nullable=False),
    Column("revision", Integer, nullable=False),  # number of changes: two servers never write over each other
    Column("pictures", Integer, nullable=False),
    Column("cells", Integer, nullable=False),
    Column("counted", Integer, nullable=False),
    Column("waiting", Integer, nullable=False),
    Column("bytes", _BYTES, nullable=False),
    Index("specimen_changed", "changed"),
    Index("specimen_state", "state", "changed"),
)


def _of_specimen(name: str, *columns: Column) -> Table:
    return Table(
        name,
        METADATA,
        Column("specimen", String(32), ForeignKey("specimen.key", ondelete="CASCADE"), primary_key=True),
        Column("number", Integer, primary_key=True),
        *columns,
        sqlite_with_rowid=False,
    )


def _with_picture(name: str) -> Table:
    """A record, and where its thumbnail, preview or crop lies among the specimen's pictures."""
    return _of_specimen(
        name,
        Column("record", Text, nullable=False),
        Column("start", _BYTES, nullable=False),
        Column("size", Integer, nullable=False),
    )


SLIDES, PICTURES, CELLS = (_with_picture(name) for name in ("slide", "picture", "cell"))
EVENTS = _of_specimen(
    "event",
    Column("time", String(32), nullable=False),
    Column("who", Text, nullable=False),
    Column("action", String(40), nullable=False),
    Column("cell", Integer),
    Column("picture", Integer),
    Column("field", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
)
# Where SQLite has a file beside it.
CONTENTS = Table(
    "content",
    POSTGRESQL_METADATA,
    Column("specimen", String(32), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)
