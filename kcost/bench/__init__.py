"""The parent's side of measuring: start workers, take turns, store results. Imports no framework."""
