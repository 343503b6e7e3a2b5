"""What is signed is opened again by being amended once, and by nothing else.

Before, any other number of amendments let a signed specimen be changed and stay signed.
"""

from alembic import op

revision, down_revision = "0003", "0002"
branch_labels = depends_on = None

_REFUSED = "OLD.state = 'signed' AND NOT (NEW.state <> 'signed' AND NEW.amended = OLD.amended + 1)"
_SQLITE = (
    "DROP TRIGGER specimen_signed",
    f"CREATE TRIGGER specimen_signed BEFORE UPDATE ON specimen WHEN {_REFUSED} "
    "BEGIN SELECT RAISE(ABORT, 'signed: is only amended'); END",
)
_POSTGRESQL = (
    f"""
CREATE OR REPLACE FUNCTION specimen_signed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF {_REFUSED} THEN
        RAISE EXCEPTION 'signed: is only amended' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
""",
)


def upgrade() -> None:
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Restore a backup of the older version instead.")
