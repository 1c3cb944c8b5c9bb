"""The child's side: one process for one backend, started as `python -m kcost.worker JOB`.

Each job of `core/jobs.py` is a function `run` from its request to its answer, in a module that is imported only when
the job is asked for.
"""
