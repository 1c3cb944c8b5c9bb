"""Bringing a model to TensorFlow Serving, the parent's side. Nothing in here imports a framework."""
