"""`python -m kcost`."""

from kcost.cli import main

if __name__ == "__main__":
    main()
