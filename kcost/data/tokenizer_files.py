"""The tokenizer of a pretrained BERT or of an artifact, in each form that a folder may hold it.

A Hugging Face folder gives the ids that transformers gives, or is refused: transformers makes a BertTokenizer anew of
the vocabulary, the added tokens and `tokenizer_config.json`, with defaults where that is silent, and reads any other
`tokenizer.json` whole. Where its defaults contradict the other files of the folder, nobody knows what
the model was trained with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kcost.core.errors import ArtifactError, DataError
from kcost.data.tokenize import (
    CONFIG_FILE,
    END,
    MASK,
    PAD,
    START,
    TOKENIZER_FILE,
    UNKNOWN,
    VOCAB_FILE,
    WordPiece,
    bert_tokenizer,
    framed,
)

PRESET_VOCAB_FILE = Path("assets", "tokenizer", "vocabulary.txt")
ADDED_TOKENS_FILE = "added_tokens.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
MODEL_CONFIG_FILE = "config.json"

_REBUILT = ("BertTokenizer", "BertTokenizerFast")
_READ_WHOLE = ("PreTrainedTokenizerFast", "TokenizersBackend")
_SETTINGS = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
"""What transformers takes where a BertTokenizer's config is silent."""

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_BERT_NAMES = {"unk_token": UNKNOWN, "sep_token": END, "pad_token": PAD, "cls_token": START, "mask_token": MASK}


def read_tokenizer(folder: Path | str) -> WordPiece:
    """The tokenizer of a checkpoint's folder, or of an artifact's.

    It is read from `tokenizer.json`, or from `vocab.txt` where there is none, each with `tokenizer_config.json`,
    `added_tokens.json` and `special_tokens_map.json`; or from a Keras preset's `tokenizer.json` with
    `assets/tokenizer/vocabulary.txt`. Its ids are those of transformers.

    Raises:
        ArtifactError: there is no such folder, it holds none of them, another kind of tokenizer, or files of which
            transformers makes something else than they say.
        DataError: a vocabulary is broken.
    """
    folder = Path(folder)
    path = folder / TOKENIZER_FILE
    if not path.is_file() and not (folder / VOCAB_FILE).is_file():
        raise ArtifactError(
            f"The folder of a BERT holds {VOCAB_FILE} or {TOKENIZER_FILE}.",
            received=f"{folder} without them" if folder.is_dir() else f"{folder}, which is no folder",
            remedy="Give the folder that holds config.json, the weights and the vocabulary.",
        )
    try:
        stored = _read_json(path) if path.is_file() else None
        preset = stored is not None and "class_name" in stored
        return _from_preset(folder, stored["config"]) if stored and preset else _from_huggingface(folder, stored)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unusable(path if path.is_file() else folder, f"{type(error).__name__}: {error}") from error


def _from_huggingface(folder: Path, tokenizer_json: dict[str, Any] | None) -> WordPiece:
    """A tokenizer of tokenizer.json, or of vocab.txt where there is none."""
    config = _read_json(folder / CONFIG_FILE)
    kind = config.get("tokenizer_class") or _read_json(folder / MODEL_CONFIG_FILE).get("tokenizer_class")
    if kind is not None and kind not in _REBUILT + (() if tokenizer_json is None else _READ_WHOLE):
        without = f" without a {TOKENIZER_FILE}" if tokenizer_json is None else ""
        raise _unusable(folder, f"the tokenizer_class {kind!r}{without}, where kcost reads {_REBUILT[0]}")
    if tokenizer_json is not None and (model := _model_type(tokenizer_json["model"])) != "WordPiece":
        raise _unusable(folder / TOKENIZER_FILE, f"model {model!r}, where BERT has 'WordPiece'")
    if (
        config.get("truncation_side", "right") != "right"
        or ((tokenizer_json or {}).get("truncation") or {}).get("direction") == "Left"
    ):
        raise _unusable(folder, "texts that are cut from the left (truncation_side)")
    tokens = _StatedTokens(folder, config, tokenizer_json)
    settings: dict[str, Any]
    if kind in _READ_WHOLE:
        tokenizer, settings = _read_whole(folder / TOKENIZER_FILE), {"tokenizer_class": "PreTrainedTokenizerFast"}
        names = tokens.names
    else:
        names = {**_BERT_NAMES, **tokens.names}
        tokenizer, settings = _rebuilt(folder, config, tokenizer_json, names)
    tokens.add_to(tokenizer, names, folder)
    if kind not in _READ_WHOLE:
        framed(tokenizer, names["cls_token"], names["sep_token"])
    if config.get("split_special_tokens"):
        tokenizer.encode_special_tokens = settings["split_special_tokens"] = True
    return WordPiece(tokenizer, {**settings, **names})


def _rebuilt(
    folder: Path, config: dict[str, Any], tokenizer_json: dict[str, Any] | None, names: dict[str, str]
) -> tuple[Any, dict[str, Any]]:
    """The tokenizer that transformers makes for a BertTokenizer, without added tokens, and its settings."""
    settings: dict[str, Any] = {key: config.get(key, default) for key, default in _SETTINGS.items()}
    for key, value in settings.items():
        if type(value) is not bool and not (value is None and key == "strip_accents"):
            raise _unusable(folder / CONFIG_FILE, f"{key} {value!r}, where it is true or false")
    if config.get("do_basic_tokenize") is False:
        raise _unusable(folder / CONFIG_FILE, "do_basic_tokenize false: text that is split by white space alone")
    if tokenizer_json is not None:
        _refuse_other_than_bert(folder / TOKENIZER_FILE, tokenizer_json, names["unk_token"])
        vocab: dict[str, int] = tokenizer_json["model"]["vocab"]
    else:
        vocab = _vocab_of_lines(folder / VOCAB_FILE)
    missing = [names[key] for key in ("pad_token", "unk_token", "cls_token", "sep_token") if names[key] not in vocab]
    if missing:
        raise DataError(
            "A WordPiece vocabulary holds the tokens for padding, for the unknown, and before and after a text.",
            received=f"{folder} with {len(vocab)} pieces without {', '.join(missing)}",
            remedy="Give the vocabulary that came with the model.",
        )
    _refuse_silent_config(folder, config, tokenizer_json, vocab)
    tokenizer = bert_tokenizer(
        vocab,
        settings["do_lower_case"],
        settings["strip_accents"],
        settings["tokenize_chinese_chars"],
        names["unk_token"],
    )
    return tokenizer, {**settings, "tokenizer_class": "BertTokenizer"}


def _refuse_other_than_bert(path: Path, tokenizer_json: dict[str, Any], unknown: str) -> None:
    """Refuses a tokenizer.json of which a BertTokenizer would keep the vocabulary alone."""
    model, normalizer = tokenizer_json["model"], tokenizer_json["normalizer"]
    kinds = {
        "normalizer": (normalizer["type"], "BertNormalizer"),
        "pre_tokenizer": (tokenizer_json["pre_tokenizer"]["type"], "BertPreTokenizer"),
        "continuing_subword_prefix": (model.get("continuing_subword_prefix", "##"), "##"),
        "max_input_chars_per_word": (model.get("max_input_chars_per_word", 100), 100),
        "unk_token": (model.get("unk_token", unknown), unknown),
        "clean_text": (normalizer.get("clean_text", True), True),
    }
    for name, (stands, wanted) in kinds.items():
        if stands != wanted:
            raise _unusable(path, f"{name} {stands!r}, where BERT has {wanted!r}")


def _refuse_silent_config(
    folder: Path, config: dict[str, Any], tokenizer_json: dict[str, Any] | None, vocab: Iterable[str]
) -> None:
    """Refuses a config that is silent where transformers' default is not what the other files say."""
    if tokenizer_json is not None:
        normalizer = tokenizer_json["normalizer"]
        lowercase = config.get("do_lower_case", True)
        says = {
            "do_lower_case": (normalizer["lowercase"], lowercase),
            "strip_accents": (normalizer.get("strip_accents"), lowercase),  # where nothing says: with the case
            "tokenize_chinese_chars": (normalizer.get("handle_chinese_chars", True), True),
        }
        against = {
            key: stands
            for key, (stands, taken) in says.items()
            if key not in config and stands is not None and stands != taken
        }
    else:
        cased = any(piece != piece.lower() for piece in vocab if not (piece.startswith("[") and piece.endswith("]")))
        against = {"do_lower_case": False} if cased and "do_lower_case" not in config else {}
    if against:
        source = TOKENIZER_FILE if tokenizer_json is not None else f"capital letters in {VOCAB_FILE}"
        raise ArtifactError(
            f"Where {CONFIG_FILE} is silent, what transformers takes is what the other files of the folder say.",
            received=f"{folder} with {source} for {json.dumps(against)[1:-1]}, of which {CONFIG_FILE} says nothing, "
            f"so that transformers takes {json.dumps({key: _SETTINGS[key] for key in against})[1:-1]}",
            remedy=f"Write {json.dumps(against)} into {CONFIG_FILE}, or what the model was trained with.",
        )


def _read_whole(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise _unusable(path, str(error)) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class _StatedTokens:
    """The added and special tokens that the files of a folder name, as transformers collects them."""

    def __init__(self, folder: Path, config: dict[str, Any], tokenizer_json: dict[str, Any] | None) -> None:
        """Reads them; `names` says which token has which role, such as cls_token."""
        stated = dict(config)
        if not stated.get("extra_special_tokens") and "additional_special_tokens" in stated:
            stated["extra_special_tokens"] = stated.pop("additional_special_tokens")
        self.by_id: dict[int, Any] = {}
        if "added_tokens_decoder" in config:
            self.by_id = {int(i): _token(token) for i, token in config["added_tokens_decoder"].items()}
        else:
            for key, value in _read_json(folder / SPECIAL_TOKENS_FILE).items():
                known = stated.get(key) or [] if key == "extra_special_tokens" and isinstance(value, list) else []
                stated[key] = [*known, *value] if isinstance(value, list) else value
            special = {_content(stated[key]) for key in _NAMED if stated.get(key)}
            special |= set(map(_content, _listed(stated.get("extra_special_tokens"))))
            for content, i in _read_json(folder / ADDED_TOKENS_FILE).items():
                self.by_id[i] = _token({"content": content, "special": content in special})
            self.by_id |= {entry["id"]: _token(entry) for entry in (tokenizer_json or {}).get("added_tokens", ())}
        self.names = {key: _content(stated[key]) for key in _NAMED if stated.get(key)}
        self._roles = [stated[key] for key in stated if key.endswith("_token") and isinstance(stated[key], str | dict)]
        self._extra = _listed(stated.get("extra_special_tokens", stated.get("additional_special_tokens")))

    def add_to(self, tokenizer: Any, names: dict[str, str], folder: Path) -> None:
        """Adds them in transformers' order, the `names` too.

        A token that nothing but a default names and that has no row (a vocabulary without [MASK]) is left out.

        Raises:
            ArtifactError: one gets another id than its file says.
        """
        tokenizer.add_tokens([self.by_id[i] for i in sorted(self.by_id)])
        vocab = tokenizer.get_vocab()
        stated = {_content(token): token for token in [*self._roles, *self._extra]}
        ordered = dict.fromkeys([*(names[key] for key in _NAMED if key in names), *stated])
        known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        new = [content for content in ordered if content not in known]
        if not any(content in stated for content in new if content not in vocab):
            new = [content for content in new if content in vocab]
        tokenizer.add_tokens([_token(stated.get(content, content), special=True) for content in new])
        for i, token in self.by_id.items():
            if (given := tokenizer.token_to_id(token.content)) != i:
                raise _unusable(folder, f"the added token {token.content!r} with the id {i}, where it gets {given}")


def _token(stated: Any, *, special: bool = False) -> Any:
    """An AddedToken of the library; what is special is not normalised unless it says so."""
    from tokenizers import AddedToken

    if isinstance(stated, str):
        return AddedToken(stated, special=special)
    flags = {key: stated[key] for key in ("single_word", "lstrip", "rstrip", "normalized") if key in stated}
    return AddedToken(stated["content"], special=bool(special or stated.get("special", False)), **flags)


def _content(stated: Any) -> str:
    content = stated if isinstance(stated, str) else stated["content"]
    if not isinstance(content, str):
        raise TypeError("a token is a string")
    return content


def _listed(stated: Any) -> list[Any]:
    """Tokens of a list, or of a dictionary by role."""
    return list(stated.values() if isinstance(stated, dict) else stated or ())


def _model_type(model: dict[str, Any]) -> str:
    """WordPiece, BPE and so on; files of the library's first versions do not say WordPiece."""
    return str(model["type"] if "type" in model or "max_input_chars_per_word" not in model else "WordPiece")


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file, empty where there is no such file."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(f"{path.name} holds no object")
    return content


def _vocab_of_lines(path: Path) -> dict[str, int]:
    """Piece -> number of its line, from 0; white space behind a piece is none of it, as in the library.

    Raises:
        DataError: the file is not UTF-8, or holds a piece twice.
    """
    try:
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("A vocabulary is a UTF-8 file with one piece a line.", f"{path}: {error}") from error
    vocab = {line.rstrip() or line.removesuffix("\r"): i for i, line in enumerate(lines)}
    if len(vocab) != len(lines):
        raise DataError(
            "A vocabulary holds each piece once.",
            received=f"{path} with {len(lines) - len(vocab)} repeated lines",
            remedy="Take the file from where the model came from again.",
        )
    return vocab


def _from_preset(folder: Path, config: dict[str, Any]) -> WordPiece:
    """A WordPiece tokenizer of keras_nlp."""
    lowercase = bool(config["lowercase"])
    return WordPiece.from_vocab(
        _vocab_of_lines(folder / PRESET_VOCAB_FILE),
        lowercase=lowercase,
        strip_accents=bool(config.get("strip_accents", False)),
        split_ideographs=bool(config.get("split_on_cjk", True)),
    )


def _unusable(path: Path, received: str) -> ArtifactError:
    return ArtifactError(
        "A BERT's tokenizer is WordPiece, and kcost reads it to the ids that transformers gives.",
        received=f"{path}: {received}",
        remedy=f"Give the {VOCAB_FILE} or {TOKENIZER_FILE}, and {CONFIG_FILE}, that came with the model.",
    )
