"""Benchmarks of one backend, named by KERAS_BACKEND, in a process that sees no other: `make bench` runs each."""

from testing.one_backend import BACKEND, backend, same_seed

__all__ = ["BACKEND", "backend", "same_seed"]
