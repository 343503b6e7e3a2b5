"""Layouts of folders that hold a set: which one a folder has, and its rows. `docs/data.md` has a table of them."""
