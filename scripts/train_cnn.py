"""Train the convolutional network on the built-in digits: KERAS_BACKEND=jax python scripts/train_cnn.py OUT"""

from __future__ import annotations

import sys

import kcost


def main(out: str) -> None:
    artifact = kcost.train("cnn", "digits", out, epochs=20)
    for score in artifact.scores:
        print(f"{artifact.name}: {score.name} {score.value:.4f} on {score.count} {score.unit} of {score.split}")


if __name__ == "__main__":
    main(*sys.argv[1:])
