"""`python -m ewc_hf.cli` is `ewc-hf`."""

from .commands import main

main()
