"""The tokenizer of a pretrained BERT, in each form that a folder may hold it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kcost.core.errors import ArtifactError
from kcost.data.tokenize import CONFIG_FILE, END, MASK, PAD, START, UNKNOWN, VOCAB_FILE, WordPiece

TOKENIZER_FILE = "tokenizer.json"
PRESET_VOCAB_FILE = Path("assets", "tokenizer", "vocabulary.txt")


def read_tokenizer(folder: Path | str) -> WordPiece:
    """The tokenizer of a checkpoint's folder.

    It is read from `vocab.txt` with `tokenizer_config.json`, from the `tokenizer.json` that transformers 5 writes
    instead, or from a Keras preset's `tokenizer.json` with `assets/tokenizer/vocabulary.txt`. Where `vocab.txt` stands
    alone, its text was lower-cased if no piece of it holds a capital letter.

    Raises:
        ArtifactError: there is no such folder, it holds none of them, or another kind of tokenizer.
        DataError: a vocabulary is broken.
    """
    folder = Path(folder)
    if (folder / VOCAB_FILE).is_file() and (folder / CONFIG_FILE).is_file():
        return WordPiece.from_vocab_file(folder / VOCAB_FILE)
    path = folder / TOKENIZER_FILE
    if not path.is_file() and (folder / VOCAB_FILE).is_file():
        pieces = WordPiece.from_vocab_file(folder / VOCAB_FILE, lowercase=True)
        special = (PAD, UNKNOWN, START, END, MASK)
        cased = any(p != p.lower() for p in pieces.vocab if p not in special and not p.startswith("[unused"))
        return WordPiece(pieces.vocab, lowercase=not cased)
    if not path.is_file():
        raise ArtifactError(
            f"The folder of a BERT holds {VOCAB_FILE} or {TOKENIZER_FILE}.",
            received=f"{folder} without them" if folder.is_dir() else f"{folder}, which is no folder",
            remedy="Give the folder that holds config.json, the weights and the vocabulary.",
        )
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return _from_preset(folder, told["config"]) if "class_name" in told else _from_tokenizer_file(folder, told)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unusable(path, f"{type(error).__name__}: {error}") from error


def _from_tokenizer_file(folder: Path, told: dict[str, Any]) -> WordPiece:
    """A tokenizer of the `tokenizers` library, where it is BERT's."""
    path = folder / TOKENIZER_FILE
    model, normalizer = told["model"], told["normalizer"]
    kinds = {
        "model": (model["type"], "WordPiece"),
        "normalizer": (normalizer["type"], "BertNormalizer"),
        "pre_tokenizer": (told["pre_tokenizer"]["type"], "BertPreTokenizer"),
        "continuing_subword_prefix": (model.get("continuing_subword_prefix", "##"), "##"),
        "clean_text": (normalizer.get("clean_text", True), True),
    }
    for name, (found, wanted) in kinds.items():
        if found != wanted:
            raise _unusable(path, f"{name} {found!r}, where BERT has {wanted!r}")
    vocab: dict[str, int] = model["vocab"]
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise _unusable(path, "a vocabulary whose ids have gaps")
    return WordPiece(
        vocab,
        lowercase=bool(normalizer["lowercase"]),
        strip_accents=normalizer.get("strip_accents"),
        split_ideographs=bool(normalizer.get("handle_chinese_chars", True)),
    )


def _from_preset(folder: Path, config: dict[str, Any]) -> WordPiece:
    """A WordPiece tokenizer of keras_nlp."""
    vocab = WordPiece.from_vocab_file(folder / PRESET_VOCAB_FILE, lowercase=bool(config["lowercase"])).vocab
    return WordPiece(
        vocab,
        lowercase=bool(config["lowercase"]),
        strip_accents=bool(config.get("strip_accents", False)),
        split_ideographs=bool(config.get("split_on_cjk", True)),
    )


def _unusable(path: Path, received: str) -> ArtifactError:
    return ArtifactError(
        "A BERT's tokenizer is WordPiece with BERT's normalisation.",
        received=f"{path}: {received}",
        remedy=f"Give the {VOCAB_FILE} and {CONFIG_FILE} that came with the model.",
    )
