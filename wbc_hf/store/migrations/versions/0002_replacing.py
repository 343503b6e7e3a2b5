"""SQLite: what is signed or history is not replaced either.

`INSERT OR REPLACE` deletes a row without the triggers of deleting, and an update may name another specimen. PostgreSQL
has neither hole: its triggers look at both rows, and its `ON CONFLICT` is an update.
"""

from alembic import op

revision, down_revision = "0002", "0001"
branch_labels = depends_on = None

_SIGNED = "EXISTS (SELECT 1 FROM specimen WHERE key = OLD.specimen AND state = 'signed')"
_TRIGGERS = (
    "CREATE TRIGGER event_not_replaced BEFORE INSERT ON event WHEN EXISTS "
    "(SELECT 1 FROM event WHERE specimen = NEW.specimen AND number = NEW.number) "
    "BEGIN SELECT RAISE(ABORT, 'history: is only added to'); END",
    "CREATE TRIGGER specimen_not_replaced BEFORE INSERT ON specimen WHEN EXISTS "
    "(SELECT 1 FROM specimen WHERE key = NEW.key) "
    "BEGIN SELECT RAISE(ABORT, 'specimen: is there already'); END",
    *(
        f"CREATE TRIGGER {table}_signed_moved BEFORE UPDATE ON {table} WHEN {_SIGNED} "
        "BEGIN SELECT RAISE(ABORT, 'signed: is only amended'); END"
        for table in ("slide", "picture", "cell")
    ),
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for trigger in _TRIGGERS:
            op.execute(trigger)


def downgrade() -> None:
    raise NotImplementedError("Restore a backup of the older version instead.")
