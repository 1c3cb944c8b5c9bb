"""WordPiece: words to padded arrays of token ids and labels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from kcost.core.errors import DataError, storage
from kcost.data.sets import Sentence

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"

IGNORED = -1
"""Label of a position that is not scored: special tokens, padding and all pieces of a word but its first."""

VOCAB_FILE = "vocab.txt"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"

_OWN_FILES = "Give the tokenizer files that came with the model, or train a vocabulary."


@dataclass(frozen=True, eq=False)
class Encoded:
    """Sentences as arrays of int32, of shape (n, length) where nothing else is said.

    Attributes:
        token_ids: ids of [CLS], the pieces, [SEP], then [PAD].
        segment_ids: zeros; BERT's second input.
        padding_mask: 1 on [CLS], pieces and [SEP], 0 on padding.
        labels: index into the tag names on the first piece of each word, -1 (`IGNORED`) elsewhere.
        unseen_labels: for each sentence, at the place of each word without a position its index into the tag names, and
            -1 at the places of other words; shape (words up to the last without a position,). See `core.entities`.
    """

    token_ids: np.ndarray
    segment_ids: np.ndarray
    padding_mask: np.ndarray
    labels: np.ndarray
    unseen_labels: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def lengths(self) -> np.ndarray:
        """Positions of each sentence that are not padding, shape (n,), int32."""
        return np.asarray(self.padding_mask.sum(axis=1), dtype=np.int32)

    @property
    def unseen_words(self) -> int:
        """Words without a position: cut off, or without a piece. They are in no loss, and scored as predicted "O"."""
        return sum(int((row >= 0).sum()) for row in self.unseen_labels)

    def take(self, indices: np.ndarray, length: int) -> Encoded:
        """The sentences at `indices`, cut to the first `length` positions.

        Raises:
            ValueError: one of them is longer than that.
        """
        longest = int(self.lengths[indices].max(initial=0))
        if longest > length:
            raise ValueError(f"length is at least that of the longest sentence, {longest}. Received: {length}")
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "unseen_labels"}
        return Encoded(
            **{name: array[indices, :length] for name, array in arrays.items()},
            unseen_labels=tuple(self.unseen_labels[i] for i in indices),
        )


class WordPiece:
    """A WordPiece tokenizer for text that is already cut into words; BERT's, or one of a Hugging Face folder.

    Source: Devlin et al. (2019), BERT; the work is done by the `tokenizers` library. Each word is encoded by itself, as
    transformers does with `is_split_into_words`; added tokens and special tokens that stand in a text are known.

    Attributes:
        vocab: piece or added token -> id, ordered by id.
        pad_id: id of the padding.
        start_id, end_id: of the tokens before and after a text.
        config: what `tokenizer_config.json` says of it.
    """

    def __init__(self, tokenizer: Any, config: dict[str, Any]) -> None:
        """Wraps a tokenizer; `from_vocab`, `train` and `kcost.data.tokenizer_files` are the usual ways to one.

        Args:
            tokenizer: a `tokenizers.Tokenizer` without truncation and padding.
            config: settings of `tokenizer_config.json`, kept by `save`.

        Raises:
            DataError: it does not put one token before and one after a text, or its padding is not in the vocabulary.
        """
        self._tokenizer, self.config = tokenizer, dict(config)
        self.vocab: dict[str, int] = dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
        pad = config.get("pad_token") or PAD
        if pad not in self.vocab:
            raise DataError("The token of the padding is in the vocabulary.", f"{pad!r}, which is not", _OWN_FILES)
        self.pad_id = self.vocab[pad]
        framed = tokenizer.encode(["a"], is_pretokenized=True)
        inner = tokenizer.encode(["a"], is_pretokenized=True, add_special_tokens=False).ids
        if len(framed.ids) != len(inner) + 2 or framed.ids[1:-1] != inner or any(framed.type_ids):
            raise DataError(
                f"A BERT's tokenizer puts one token before a text and one after it, {START} and {END}.",
                received=f"one that makes {framed.tokens} of 'a'",
                remedy=_OWN_FILES,
            )
        self.start_id, self.end_id = framed.ids[0], framed.ids[-1]

    @property
    def library_tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` that does the work, to be read."""
        return self._tokenizer

    @classmethod
    def from_vocab(
        cls,
        vocab: dict[str, int],
        *,
        lowercase: bool,
        strip_accents: bool | None = None,
        split_ideographs: bool = True,
    ) -> WordPiece:
        """A tokenizer of a vocabulary (piece -> id) with the normalisation of BERT.

        Args:
            vocab: piece -> id.
            lowercase: whether case is dropped.
            strip_accents: whether accents are; None drops them where case is dropped, as BERT does.
            split_ideographs: whether each Chinese character is a word of its own.

        Raises:
            DataError: a special token is missing.
        """
        missing = [token for token in (PAD, UNKNOWN, START, END) if token not in vocab]
        if missing:
            raise DataError(
                f"A WordPiece vocabulary holds {PAD}, {UNKNOWN}, {START} and {END}.",
                received=f"{len(vocab)} pieces without {', '.join(missing)}",
                remedy=_OWN_FILES,
            )
        config = {
            "do_lower_case": lowercase,
            "strip_accents": strip_accents,
            "tokenize_chinese_chars": split_ideographs,
            "tokenizer_class": "BertTokenizer",
        }
        tokenizer = bert_tokenizer(vocab, lowercase, strip_accents, split_ideographs)
        tokenizer.add_special_tokens([token for token in (PAD, UNKNOWN, START, END, MASK) if token in vocab])
        return cls(framed(tokenizer, START, END), config)

    @classmethod
    def train(cls, sentences: Iterable[Sentence], vocab_size: int, *, lowercase: bool = False) -> WordPiece:
        """Learns a vocabulary of at most `vocab_size` pieces from the words of the sentences.

        Args:
            sentences: those of train; validation and test words would leak.
            vocab_size: special tokens included. Small texts give fewer pieces; every character of the text gets
                its piece, even where these alone are more.
            lowercase: True to drop case and accents. Case helps to find names, hence False.
        """
        return cls._trained(Counter(t for sentence in sentences for t in sentence.tokens), vocab_size, lowercase)

    @classmethod
    def train_on_texts(cls, texts: Iterable[str], vocab_size: int, *, lowercase: bool = False) -> WordPiece:
        """As `train`, of texts that are not cut into words."""
        return cls._trained(Counter(word for text in texts for word in text.split()), vocab_size, lowercase)

    @classmethod
    def _trained(cls, counts: Counter[str], vocab_size: int, lowercase: bool) -> WordPiece:
        splitter = bert_tokenizer({UNKNOWN: 0}, lowercase)
        words: Counter[str] = Counter()
        for token, count in counts.items():
            normal = splitter.normalizer.normalize_str(token)
            for word, _ in splitter.pre_tokenizer.pre_tokenize_str(normal):
                words[word] += count
        return cls.from_vocab(_learn(words, vocab_size), lowercase=lowercase)

    def save(self, folder: Path | str, max_length: int | None = None) -> None:
        """Writes `tokenizer.json`, `tokenizer_config.json` and `vocab.txt` into a folder, made if needed.

        transformers reads them, and so does `read_tokenizer`, to the same ids. `vocab.txt` holds the pieces without the
        added tokens; it is left out where their ids have gaps. `max_length` is the longest input of the model, None to
        leave it out.

        Raises:
            StorageError: the folder cannot be written to.
        """
        folder = Path(folder)
        model = self._tokenizer.get_vocab(with_added_tokens=False)
        pieces = sorted(model, key=model.__getitem__)
        config = self.config | ({} if max_length is None else {"model_max_length": max_length})
        with storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if [model[piece] for piece in pieces] == list(range(len(pieces))):
                (folder / VOCAB_FILE).write_bytes("".join(f"{piece}\n" for piece in pieces).encode("utf-8"))
            (folder / TOKENIZER_FILE).write_text(self._tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
            (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def encode(self, sentences: Sequence[Sentence], tag_names: Sequence[str], max_length: int) -> Encoded:
        """Turns sentences into arrays of shape (n, max_length).

        A word of which normalisation leaves nothing (a lone variation selector, say) has no position, as in
        transformers. What does not fit between [CLS] and [SEP] is cut off; see `Encoded.unseen_words`.

        Raises:
            DataError: a tag is not one of `tag_names`.
            ValueError: `max_length` is below 3, which leaves no room for a piece.
        """
        _refuse_short(max_length)
        words = sorted({token for sentence in sentences for token in sentence.tokens})
        pieces = dict(zip(words, self._ids([[word] for word in words], split=True), strict=True))
        label_of = {name: i for i, name in enumerate(tag_names)}
        shape = (len(sentences), max_length)
        token_ids = np.full(shape, self.pad_id, np.int32)
        padding_mask = np.zeros(shape, np.int32)
        labels = np.full(shape, IGNORED, np.int32)
        unseen_labels = []
        for row, sentence in enumerate(sentences):
            ids = [self.start_id]
            unseen = np.full(len(sentence.tokens), IGNORED, np.int32)
            for index, (token, tag) in enumerate(zip(sentence.tokens, sentence.tags, strict=True)):
                if tag not in label_of:
                    raise DataError(
                        "Each tag is one that the model was made for.",
                        received=f"{tag!r} in sentence {row}",
                        remedy=f"Tags of the model: {', '.join(tag_names)}.",
                    )
                if len(ids) == max_length - 1 or not pieces[token]:
                    unseen[index] = label_of[tag]
                    continue
                labels[row, len(ids)] = label_of[tag]
                ids += pieces[token][: max_length - 1 - len(ids)]
            ids.append(self.end_id)
            token_ids[row, : len(ids)] = ids
            padding_mask[row, : len(ids)] = 1
            unseen_labels.append(unseen[: np.flatnonzero(unseen >= 0).max(initial=-1) + 1])
        return Encoded(token_ids, np.zeros(shape, np.int32), padding_mask, labels, tuple(unseen_labels))

    def encode_texts(self, texts: Sequence[str], max_length: int) -> dict[str, np.ndarray]:
        """Turns whole texts into BERT's inputs: token_ids, segment_ids and padding_mask, as in `Encoded`.

        A text that does not fit between [CLS] and [SEP] keeps its start. An empty one is [CLS] and [SEP] alone.

        Raises:
            ValueError: `max_length` is below 3, which leaves no room for a piece.
        """
        _refuse_short(max_length)
        token_ids = np.full((len(texts), max_length), self.pad_id, np.int32)
        padding_mask = np.zeros_like(token_ids)
        for row, pieces in enumerate(self._ids(texts)):
            ids = [self.start_id, *pieces[: max_length - 2], self.end_id]
            token_ids[row, : len(ids)] = ids
            padding_mask[row, : len(ids)] = 1
        return {"token_ids": token_ids, "segment_ids": np.zeros_like(token_ids), "padding_mask": padding_mask}

    def count_truncated(self, texts: Sequence[str], max_length: int) -> int:
        """How many whole texts do not fit between [CLS] and [SEP]."""
        return sum(len(ids) > max_length - 2 for ids in self._ids(texts))

    def _ids(self, inputs: Sequence[str] | Sequence[list[str]], *, split: bool = False) -> list[list[int]]:
        """Ids of the pieces of each input: a text, or with `split` a list of words."""
        encodings = self._tokenizer.encode_batch(list(inputs), is_pretokenized=split, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def _refuse_short(max_length: int) -> None:
    if max_length < 3:
        raise ValueError(f"max_length is at least 3, for {START}, a piece and {END}. Received: {max_length}")


def bert_tokenizer(
    vocab: dict[str, int],
    lowercase: bool,
    strip_accents: bool | None = None,
    split_ideographs: bool = True,
    unknown: str = UNKNOWN,
) -> Any:
    """BERT's tokenizer of the `tokenizers` library: its normalisation, its way to cut words, and WordPiece."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=split_ideographs
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def framed(tokenizer: Any, start: str, end: str) -> Any:
    """The tokenizer, with `start` before each text and `end` after it; both are in its vocabulary."""
    from tokenizers import processors

    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start}:0 $A:0 {end}:0",
        pair=f"{start}:0 $A:0 {end}:0 $B:1 {end}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )
    return tokenizer


def _learn(words: Counter[str], vocab_size: int) -> dict[str, int]:
    """A WordPiece vocabulary of the words and their counts, the same for the same counts.

    The library's own WordPiece trainer numbers the "##x" symbols in the order of a randomly seeded hash map and
    breaks ties between merges by those numbers, so each run gives another vocabulary. Here a character inside a
    word is another symbol than the same character at its start (both from the private use planes), which lets
    the library's byte-pair trainer, whose alphabet is sorted, learn the same merges without that map.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    characters = sorted({character for word in words for character in word})
    starts = {character: chr(0xF0000 + i) for i, character in enumerate(characters)}
    insides = {character: chr(0x100000 + i) for i, character in enumerate(characters)}
    original = {symbol: character for table in (starts, insides) for character, symbol in table.items()}
    coded = {word: starts[word[0]] + "".join(insides[character] for character in word[1:]) for word in words}

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special_tokens = [PAD, UNKNOWN, START, END, MASK]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=special_tokens,
        initial_alphabet=list(starts.values()),
        show_progress=False,
    )
    learner.train_from_iterator((" ".join([coded[word]] * count) for word, count in sorted(words.items())), trainer)
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    vocab = {}
    for piece, i in learned:
        inside = piece not in special_tokens and piece[0] >= chr(0x100000)
        text = piece if piece in special_tokens else "".join(original[symbol] for symbol in piece)
        vocab[f"##{text}" if inside else text] = i
    return vocab
