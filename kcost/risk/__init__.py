"""Pure maths over stored predictions: how far a model can be trusted, with intervals. No clock, no disk, no backend."""
