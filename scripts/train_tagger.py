"""Train the BERT tagger on synthetic sentences: KERAS_BACKEND=torch python scripts/train_tagger.py OUT"""

from __future__ import annotations

import sys

import kcost


def main(out: str) -> None:
    artifact = kcost.train("bert", "ner-mini", out, epochs=6)
    for score in artifact.scores:
        print(f"{artifact.name}: {score.name} {score.value:.4f} on {score.count} {score.unit} of {score.split}")


if __name__ == "__main__":
    main(*sys.argv[1:])
