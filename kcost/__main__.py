"""`python -m kcost`."""

from kcost.cli import main

main()
