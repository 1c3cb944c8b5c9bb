"""Weights and units that go: which, when, and what of the model that touches."""
