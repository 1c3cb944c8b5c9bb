"""The forward pass of a model as kcost measures it, for the measuring worker and for a user's own process."""
