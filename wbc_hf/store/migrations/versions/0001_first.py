"""The first schema: specimens, their slides, pictures, cells and events."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None
branch_labels = depends_on = None

# What no program may do, also none but this one: change or take out what the history says, or change what is signed.
# Deleting a whole specimen removes its row first, so that the others may follow.
_SIGNED = "EXISTS (SELECT 1 FROM specimen WHERE key = {row}.specimen AND state = 'signed')"
_TRIGGERS = (
    "CREATE TRIGGER event_stays BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'history: is only added to'); END",
    "CREATE TRIGGER event_goes BEFORE DELETE ON event WHEN EXISTS (SELECT 1 FROM specimen WHERE key = OLD.specimen) "
    "BEGIN SELECT RAISE(ABORT, 'history: is only added to'); END",
    "CREATE TRIGGER specimen_signed BEFORE UPDATE ON specimen WHEN OLD.state = 'signed' AND NEW.amended = OLD.amended "
    "BEGIN SELECT RAISE(ABORT, 'signed: is only amended'); END",
    *(
        f"CREATE TRIGGER {table}_signed_{verb.lower()} BEFORE {verb} ON {table} "
        f"WHEN {_SIGNED.format(row='NEW' if verb != 'DELETE' else 'OLD')} "
        "BEGIN SELECT RAISE(ABORT, 'signed: is only amended'); END"
        for table in ("slide", "picture", "cell", "event")
        for verb in ("INSERT", "UPDATE", "DELETE")
    ),
)


def upgrade() -> None:
    op.create_table(
        "specimen",
        sa.Column("key", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("changed", sa.String(32), nullable=False),
        sa.Column("about", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("signed_by", sa.Text, nullable=False),
        sa.Column("search", sa.Text, nullable=False),
        sa.Column("amended", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("pictures", sa.Integer, nullable=False),
        sa.Column("cells", sa.Integer, nullable=False),
        sa.Column("counted", sa.Integer, nullable=False),
        sa.Column("waiting", sa.Integer, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
    )
    op.create_index("specimen_changed", "specimen", ["changed"])
    op.create_index("specimen_state", "specimen", ["state", "changed"])
    for table in ("slide", "picture", "cell"):
        _create(
            table,
            sa.Column("record", sa.Text, nullable=False),
            sa.Column("start", sa.Integer, nullable=False),
            sa.Column("size", sa.Integer, nullable=False),
        )
    _create(
        "event",
        sa.Column("time", sa.String(32), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("cell", sa.Integer),
        sa.Column("picture", sa.Integer),
        sa.Column("field", sa.Text, nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
    )
    for trigger in _TRIGGERS:
        op.execute(trigger)


def downgrade() -> None:
    raise NotImplementedError("Restore a backup of the older version instead.")


def _create(name: str, *columns: sa.Column) -> None:
    op.create_table(
        name,
        sa.Column("specimen", sa.String(32), sa.ForeignKey("specimen.key", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        *columns,
        sqlite_with_rowid=False,
    )
