"""The verbs of kcost, one function each. Nothing in here prints, and nothing loads a framework in this process.

`kcost` has them all by name; each module here is a kind of them, as the modules of the command line are.
"""
