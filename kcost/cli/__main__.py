"""`python -m kcost.cli`."""

from kcost.cli import main

main()
