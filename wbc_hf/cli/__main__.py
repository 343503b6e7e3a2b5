"""`python -m wbc_hf.cli`: the command of this very Python."""

from wbc_hf.cli import main

main()
