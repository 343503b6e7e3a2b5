"""The first schema: specimens, their slides, pictures, cells and events."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None
branch_labels = depends_on = None

# What no program may do, also none but this one: change or take out what the history says, or change what is signed.
# Deleting a whole specimen removes its row first, so that the others may follow.
# On PostgreSQL, which this schema is the first of, `content` holds the pictures.
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
_REFUSE = """
CREATE FUNCTION history_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF NOT EXISTS (SELECT 1 FROM specimen WHERE key = OLD.specimen) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'history: is only added to' USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
_LOCK_SPECIMEN = """
CREATE FUNCTION specimen_signed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'signed' AND NEW.amended = OLD.amended THEN
        RAISE EXCEPTION 'signed: is only amended' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""
# The row of the specimen is locked, so that nobody signs it while another transaction changes what is signed.
_LOCK_PARTS = """
CREATE FUNCTION part_signed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    locked boolean;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        SELECT state = 'signed' INTO locked FROM specimen WHERE key = OLD.specimen FOR SHARE;
    END IF;
    IF TG_OP <> 'DELETE' AND NOT coalesce(locked, false) THEN
        SELECT state = 'signed' INTO locked FROM specimen WHERE key = NEW.specimen FOR SHARE;
    END IF;
    IF locked THEN
        RAISE EXCEPTION 'signed: is only amended' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$
"""
_PARTS = ("slide", "picture", "cell", "event", "content")
_POSTGRESQL = (
    "ALTER TABLE content ALTER COLUMN data SET STORAGE EXTERNAL",  # pictures are compressed already
    _REFUSE,
    _LOCK_SPECIMEN,
    _LOCK_PARTS,
    "CREATE TRIGGER event_stays BEFORE UPDATE OR DELETE ON event FOR EACH ROW EXECUTE FUNCTION history_stays()",
    "CREATE TRIGGER specimen_signed BEFORE UPDATE ON specimen FOR EACH ROW EXECUTE FUNCTION specimen_signed()",
    *(
        f"CREATE TRIGGER {table}_signed BEFORE INSERT OR UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION part_signed()"
        for table in _PARTS
    ),
    *(
        f"CREATE TRIGGER {table}_whole BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION history_stays()"
        for table in ("specimen", *_PARTS)
    ),
)
_BYTES = sa.Integer().with_variant(sa.BigInteger, "postgresql")
_TIME = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "specimen",
        sa.Column("key", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("changed", _TIME, nullable=False),
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
        sa.Column("bytes", _BYTES, nullable=False),
    )
    op.create_index("specimen_changed", "specimen", ["changed"])
    op.create_index("specimen_state", "specimen", ["state", "changed"])
    for table in ("slide", "picture", "cell"):
        _create(
            table,
            sa.Column("record", sa.Text, nullable=False),
            sa.Column("start", _BYTES, nullable=False),
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
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    if on_postgresql:
        op.create_table(
            "content",
            sa.Column("specimen", sa.String(32), sa.ForeignKey("specimen.key", ondelete="CASCADE"), primary_key=True),
            sa.Column("start", sa.BigInteger, primary_key=True),
            sa.Column("data", sa.LargeBinary, nullable=False),
        )
    for statement in _POSTGRESQL if on_postgresql else _TRIGGERS:
        op.execute(statement)


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
