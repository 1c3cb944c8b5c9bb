"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# No test asserts on time; and what fails once fails again.
settings.register_profile("kcost", deadline=None, derandomize=True)
settings.load_profile("kcost")
