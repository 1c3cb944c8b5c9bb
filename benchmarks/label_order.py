"""How many labels an order by doubt saves against a random one, on real data with several seeds.

The models are scikit-learn's, so that it takes minutes: logistic regression on MNIST at 14 x 14 pixels, and on
BTC a linear tagger on the words around each word. What they save need not be what a network saves.

An order is given in rounds: the model that was trained with the labels so far says which of the pool come next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from kcost import data
from kcost.core.predictions import LEAST_PROBABILITY, SplitPredictions
from kcost.core.scores import entity_f1_of, sentence_counts
from kcost.cost.label_order import ORDERS, Order, label_order, labels_saved

SEEDS = range(5)


class Learner(Protocol):
    """A set of examples, of which some are labelled, and the model that learns from these."""

    name: str
    sizes: tuple[int, ...]
    pool: int

    def fit(self, labelled: np.ndarray, seed: int) -> tuple[float, Callable[[np.ndarray], SplitPredictions]]:
        """The score of the test split, and what the model answers on examples of the pool."""
        ...


class Digits:
    """MNIST."""

    name = "mnist"
    sizes = (100, 200, 400, 800, 1600)
    pool = 10_000

    def __init__(self) -> None:
        images = data.load("mnist")
        assert isinstance(images, data.ImageSet)
        self._x, self._y = self._small(images.splits["train"].x[: self.pool]), images.splits["train"].y[: self.pool]
        self._test_x, self._test_y = self._small(images.splits["test"].x), images.splits["test"].y

    @staticmethod
    def _small(x: np.ndarray) -> np.ndarray:
        """Means of 2 x 2 pixels, shape (n, 196)."""
        return x[..., 0].reshape(len(x), 14, 2, 14, 2).mean((2, 4)).reshape(len(x), 196)

    def fit(self, labelled: np.ndarray, seed: int) -> tuple[float, Callable[[np.ndarray], SplitPredictions]]:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=0.5, max_iter=60, tol=1e-3).fit(self._x[labelled], self._y[labelled])
        score = float((model.predict(self._test_x) == self._test_y).mean())

        def answer(rest: np.ndarray) -> SplitPredictions:
            logs = np.log(np.maximum(model.predict_proba(self._x[rest]), LEAST_PROBABILITY)).astype(np.float32)
            one_each = np.arange(len(rest))
            return SplitPredictions(self._y[rest].astype(np.int64), logs.argmax(-1), logs, one_each, rest)

        return score, answer


class Words(NamedTuple):
    """Sentences as rows of features, one a word."""

    x: Any
    tags: list[tuple[str, ...]]
    begins: np.ndarray
    """The first row of each sentence, and after the last: shape (sentences + 1,)."""


class Tweets:
    """The Broad Twitter Corpus."""

    name = "btc"
    sizes = (200, 400, 800, 1600, 3200)

    def __init__(self) -> None:
        sentences = data.load("btc")
        assert isinstance(sentences, data.TagSet)
        self._names = np.array(sentences.tag_names)
        self._train, self._test = (self._words(sentences.splits[s]) for s in ("train", "test"))
        self.pool = len(self._train.tags)

    @staticmethod
    def _words(sentences: tuple[data.Sentence, ...]) -> Words:
        from sklearn.feature_extraction import FeatureHasher

        rows = []
        for sentence in sentences:
            words = ["<s>", *sentence.tokens, "</s>"]
            for i in range(1, len(words) - 1):
                word = words[i]
                rows.append(
                    [
                        f"w={word.lower()}", f"before={words[i - 1].lower()}", f"after={words[i + 1].lower()}",
                        f"end={word[-3:].lower()}", f"first={word[:1]}", f"case={word[:1].isupper()}{word.isupper()}",
                        f"before is upper={words[i - 1][:1].isupper()}",
                    ]
                )  # fmt: skip
        lengths = [len(s.tokens) for s in sentences]
        hashed = FeatureHasher(2**18, input_type="string").transform(rows)
        return Words(hashed, [s.tags for s in sentences], np.concatenate([[0], np.cumsum(lengths)]))

    def fit(self, labelled: np.ndarray, seed: int) -> tuple[float, Callable[[np.ndarray], SplitPredictions]]:
        from sklearn.linear_model import SGDClassifier

        train, test = self._train, self._test
        tags = np.concatenate([train.tags[i] for i in labelled])
        model = SGDClassifier(loss="log_loss", alpha=3e-6, max_iter=8, tol=None, average=True, random_state=seed)
        model.fit(train.x[self._rows(labelled)], tags)
        answers = model.predict(test.x)
        said = [tuple(answers[b:e]) for b, e in zip(test.begins[:-1], test.begins[1:], strict=True)]
        score = entity_f1_of(sentence_counts(test.tags, said), "test").value

        def answer(rest: np.ndarray) -> SplitPredictions:
            known = model.predict_proba(train.x[self._rows(rest)])
            whole = np.full((len(known), len(self._names)), LEAST_PROBABILITY)
            whole[:, [int(np.flatnonzero(self._names == c)[0]) for c in model.classes_]] = known
            logs = np.log(np.maximum(whole, LEAST_PROBABILITY)).astype(np.float32)
            lengths = train.begins[rest + 1] - train.begins[rest]
            of = np.repeat(np.arange(len(rest)), lengths)
            return SplitPredictions(np.zeros(len(logs), np.int64), logs.argmax(-1), logs, of, rest)

        return score, answer

    def _rows(self, sentences: np.ndarray) -> np.ndarray:
        begins = self._train.begins
        return np.concatenate([np.arange(begins[i], begins[i + 1]) for i in sentences])


def scores_of(learner: Learner, order: Order, seed: int, growth: float) -> list[float]:
    """The score at each size; the first labels are the same random ones for each order.

    Args:
        growth: the labels after a round over those before it, at most.
    """
    labelled = np.sort(np.random.default_rng(seed).permutation(learner.pool)[: learner.sizes[0]])
    scores = []
    while True:
        score, answer = learner.fit(labelled, seed)
        if len(labelled) in learner.sizes:
            scores.append(score)
        if len(labelled) == learner.sizes[-1]:
            return scores
        next_size = min(size for size in learner.sizes if size > len(labelled))
        rest = np.setdiff1d(np.arange(learner.pool), labelled)
        count = min(next_size, max(len(labelled) + 1, round(growth * len(labelled)))) - len(labelled)
        more = label_order(answer(rest), order, seed)[:count]
        labelled = np.sort(np.concatenate([labelled, more]))


def tell_orders(growth: float) -> None:
    """For each data set and order the scores, and the labels that a random order takes for the same."""
    for make in (Digits, Tweets):
        learner: Learner = make()
        scores: dict[Order, dict[float, list[float]]] = {}
        for order in ORDERS:
            by_seed = [scores_of(learner, order, seed, growth) for seed in SEEDS]
            columns = zip(*by_seed, strict=True)
            scores[order] = {float(n): list(of) for n, of in zip(learner.sizes, columns, strict=True)}
            means = ", ".join(f"{n:g}: {np.mean(of):.4f}" for n, of in scores[order].items())
            print(f"{learner.name}, {order}: {means}", flush=True)
        for order in ORDERS:
            if order == "random":
                continue
            ordered = {n: of for n, of in scores[order].items() if n > learner.sizes[0]}
            for row in labels_saved(scores["random"], ordered):
                low, high = ("without end" if v is None else f"{v:,.0f}" for v in (row.low, row.high))
                middle = "none" if row.random_labels is None else f"{row.random_labels:,.0f}"
                saved = "" if row.saved is None else f", {row.saved:.0%} saved"
                print(
                    f"{learner.name}, {order}, {row.labels:g} labels: random takes {middle} ({low} to {high}, 90%) for "
                    f"{row.score:.4f}{saved}"
                )
