"""Dollars: the price book, the cost of predictions and of training runs, and the verdict over a run."""
