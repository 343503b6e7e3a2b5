"""How the schema of the store came to be: one file a version, each of which brings the one before up to date."""
