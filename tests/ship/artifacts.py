"""Artifact folders around models that the tests make."""

import shutil
from pathlib import Path

from kcost.core import schema
from kcost.core.artifact import Artifact, Model, Step, open_model, sha256_of
from kcost.data.tokenize import WordPiece

TAGS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
TAG_WORDS = ("BL", "BP", "IL", "IP", "O")
"""A word for each tag, of which texts are made whose tags are known."""

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdeinorst.,",
    "##a",
    "##e",
    "##n",
    "##o",
    "##r",
    "##s",
    "##t",
]


def artifact_of(folder: Path, keras_file: Path, name: str = "made", **about: object) -> Model:
    """An artifact folder with this model, of which the index says `about`."""
    folder.mkdir()
    shutil.copy(keras_file, folder / "model.keras")
    index = Artifact(
        name=name,
        model_sha256=sha256_of(keras_file),
        parameters=None,
        inputs=(),
        outputs=(),
        created_at="2026-01-01T00:00:00Z",
        **about,
    )
    schema.write(folder / "artifact.json", index)
    return open_model(folder)


def tagger_of(folder: Path, keras_file: Path) -> Model:
    """A tagger with five tags, 16 positions, and a vocabulary of a few characters."""
    trained = Step(kind="train", backend="jax", backend_version="0", settings={"max_length": 16})
    about = {"task": "token-classification", "family": "bert", "label_names": TAGS, "steps": (trained,)}
    model = artifact_of(folder, keras_file, **about)
    WordPiece.from_vocab({piece: i for i, piece in enumerate(PIECES)}, lowercase=True).save(folder)
    return model
