"""The same tests on whichever backend KERAS_BACKEND names, in a process that sees no other framework.

Run as `KERAS_BACKEND=jax python -m pytest tests/contract`; `make test` does it for each.
"""

from testing.one_backend import BACKEND, backend, same_seed

__all__ = ["BACKEND", "backend", "same_seed"]
