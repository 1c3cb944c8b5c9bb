"""From files of tagged sentences to a `TagSet`: schemes made BIO, broken sequences repaired or refused, all noted."""

from __future__ import annotations

import numpy as np

from kcost.core.artifact import Dataset
from kcost.core.errors import DataError
from kcost.data import splits as cuts, tags as schemes
from kcost.data.conll import RawFile, RawSentence
from kcost.data.sets import SPLITS, Sentence, TagSet, sentences_split, tag_names_of


def build_tag_set(
    parts: dict[str, RawFile],
    *,
    name: str,
    source: str,
    licence: str,
    synthetic: bool = False,
    seed: int = 0,
    limit: int | None = None,
    repair: bool = True,
    notes: tuple[str, ...] = (),
) -> TagSet:
    """Makes a `TagSet` of the files that a source has.

    Args:
        parts: the file of "train" and, where the source has them, of "validation" and "test".
        name, source, licence, synthetic: for the record.
        seed: of the validation cut and of `limit`.
        limit: at most that many sentences a split, a seeded sample.
        repair: True lets a tag that continues nothing start an entity, and one that leaves an entity open end it,
            and counts them; False refuses the file.
        notes: what else the record shall say.

    Raises:
        DataError: a tag sequence is broken and `repair` is False, the files hold no entity, or too few sentences.
    """
    sentences, tag_notes = _normalised(parts, repair)
    places, split_notes = cuts.complete(
        {part: np.zeros(len(part_sentences), int) for part, part_sentences in sentences.items()}, seed
    )
    splits = {split: tuple(sentences[part][i] for i in indices) for split, (part, indices) in places.items()}
    duplicate_notes = cuts.duplicates({split: [s.tokens for s in splits[split]] for split in SPLITS})
    tag_names = tag_names_of(sentence for split in SPLITS for sentence in splits[split])
    if len(tag_names) == 1:
        files = ", ".join(str(part.path) for part in parts.values())
        raise DataError("A data set for tagging holds at least one entity.", f"{files} without any", "Check the tags.")
    unseen = [tag[2:] for tag in tag_names if tag[0] == "B" and tag not in tag_names_of(splits["train"])]
    unseen_notes = (f"entity types without a train example: {', '.join(unseen)}",) if unseen else ()
    limit_notes: tuple[str, ...] = ()
    if limit is not None:
        splits = {split: _sampled(part_sentences, limit, seed) for split, part_sentences in splits.items()}
        limit_notes = (f"at most {limit} sentences a split, sampled with seed {seed}",)
    record = Dataset(
        name=name,
        synthetic=synthetic,
        source=source,
        licence=licence,
        splits={split: sentences_split(part_sentences) for split, part_sentences in splits.items()},
        notes=(*notes, *tag_notes, *split_notes, *duplicate_notes, *unseen_notes, *limit_notes),
    )
    return TagSet(name, tag_names, splits, record)


def _normalised(parts: dict[str, RawFile], repair: bool) -> tuple[dict[str, list[Sentence]], tuple[str, ...]]:
    """The sentences of each part in BIO, and notes on the scheme, on repairs and on what was left out."""
    _refuse_tags_without_type(parts)
    scheme = schemes.detect(sentence.tags for part in parts.values() for sentence in part.sentences)
    sentences: dict[str, list[Sentence]] = {}
    notes = [] if scheme == "BIO" else [f"tags converted from {scheme} to BIO"]
    for part, file in parts.items():
        sentences[part], started, ended = [], 0, 0
        for raw in file.sentences:
            bio, broken = schemes.normalise(raw.tags, scheme)
            if broken and not repair:
                raise _broken_sequence(file, raw, broken[0], scheme)
            starts = sum(schemes.continues_none(raw.tags, i) for i in broken)
            started, ended = started + starts, ended + len(broken) - starts
            sentences[part].append(Sentence(raw.tokens, bio))
        if started:
            notes.append(f"{part}: {started} tags that continued no entity were repaired to start one")
        if ended:
            notes.append(f"{part}: {ended} tags that left their entity open were repaired to end it")
        notes += [f"{part}: {count} {kind} were left out" for kind, count in file.left_out.items()]
    return sentences, tuple(notes)


def _refuse_tags_without_type(parts: dict[str, RawFile]) -> None:
    """Refuses B, I and the like alone: once for all files, with how many they are and where the first one stands."""
    bare: dict[str, list[tuple[str, int]]] = {}
    for part in SPLITS:
        pairs = (
            pair for s in (parts[part].sentences if part in parts else ()) for pair in zip(s.tags, s.lines, strict=True)
        )
        if tags := [pair for pair in pairs if schemes.lacks_type(pair[0])]:
            bare[part] = tags
    if not bare:
        return
    places = [
        f"{len(tags)} in {parts[part].path} (the first, {tags[0][0]}, in line {tags[0][1]})"
        for part, tags in bare.items()
    ]
    raise DataError(
        "A tag names the type of its entity behind a hyphen, such as B-GENE.",
        received=f"{sum(map(len, bare.values()))} tags without a type: {', '.join(places)}",
        remedy=r"Add the type, for example: sed -E 's/([[:space:]])([BIESLU])(\r?)$/\1\2-GENE\3/' FILE > NEW",
    )


def _broken_sequence(file: RawFile, raw: RawSentence, at: int, scheme: str) -> DataError:
    if schemes.continues_none(raw.tags, at):
        rule = "A tag that continues an entity follows a tag of the same entity."
        wrong, mended = "continues none", "starts a new entity there"
    else:
        rule = f"In {scheme} an entity ends with an E or is an S."
        wrong, mended = "leaves its entity open", "ends the entity there"
    return DataError(
        rule,
        received=f"{file.path}, line {raw.lines[at]}: {raw.tags[at]}, which {wrong}",
        remedy=f"Correct that line, or load with repair=True (kcost without --no-repair), which {mended}.",
    )


def _sampled(sentences: tuple[Sentence, ...], limit: int, seed: int) -> tuple[Sentence, ...]:
    chosen = cuts.sample(np.zeros(len(sentences), int), min(limit, len(sentences)), seed)
    return tuple(sentences[i] for i in chosen)
