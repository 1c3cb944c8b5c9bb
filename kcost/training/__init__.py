"""Training on any backend: a task says what is learnt, `fit` how."""
