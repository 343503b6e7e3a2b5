"""What Alembic runs for each migration: on the connection, and in the transaction, of whoever asks for it."""

from alembic import context

from wbc_hf.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
context.run_migrations()
