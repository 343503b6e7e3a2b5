"""Copy all specimens from one database into another, also of another kind."""

from sqlalchemy import bindparam, insert, select, update

from wbc_hf.errors import WbcError
from wbc_hf.inference import batches
from wbc_hf.store.database import Database
from wbc_hf.store.tables import CELLS, EVENTS, PICTURES, SLIDES, SPECIMENS
from wbc_hf.store.work_list import State

_AT_ONCE = 500  # rows


def copy_specimens(source: Database, target: Database) -> None:
    """Copy all specimens as they are at one moment, pictures and histories included; all or none.

    Args:
        source: May be in use.
        target: Keeps no specimen.

    Raises:
        WbcError: The source is damaged, or the target keeps specimens already or has no room.
    """
    with source.reading() as reading, target.writing() as writing:
        if writing.execute(select(SPECIMENS.c.key).limit(1)).first():
            raise WbcError(f"{target.name}: keeps specimens. Name a new database, so that nothing is written over.")
        states: dict[str, str] = {}
        for row in reading.execute(select(SPECIMENS)).mappings():
            states[row["key"]] = row["state"]
            # What is signed takes nothing: that comes last.
            writing.execute(insert(SPECIMENS).values(**dict(row) | {"state": State.NEW.value}))
        for table in (SLIDES, PICTURES, CELLS, EVENTS):
            rows = reading.execute(select(table).execution_options(yield_per=_AT_ONCE)).mappings()
            for some in batches(map(dict, rows), _AT_ONCE):
                writing.execute(insert(table), some)
        for key in states:
            target.write_pictures(writing, key, source.read_pictures(reading, key))
        if states:
            kept = update(SPECIMENS).where(SPECIMENS.c.key == bindparam("of")).values(state=bindparam("kept"))
            writing.execute(kept, [{"of": key, "kept": state} for key, state in states.items()])
