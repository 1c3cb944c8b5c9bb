"""Hyperparameter search: the score on the validation split against predicted cost. Needs the extra `search`.

Framework-free: each trial is a training run in a worker process of its own.
"""

from kcost.search.request import SearchRequest
from kcost.search.result import SearchResult
from kcost.search.study import search

__all__ = ["SearchRequest", "SearchResult", "search"]
