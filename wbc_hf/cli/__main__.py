"""`python -m wbc_hf.cli`, for launchers such as torchrun."""

from wbc_hf.cli import main

main()
