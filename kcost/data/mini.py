"""`ner-mini`: a small synthetic corpus of English sentences with persons, organisations and places.

Made from the templates and word lists below, always the same. It is built so that neither the word alone nor
its place alone gives the tag away:

- a word can be a person, a place or a plain word ("May", "Rose", "Reading", "Jordan"), in capitals or not;
- some templates fit every type, so that only the words inside the name tell;
- the last third of each list of names stands in validation and test only;
- one sentence in twelve is written in small letters, as people type.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from kcost.data.conll import RawFile, RawSentence

SIZES = {"train": 1200, "validation": 200, "test": 200}
"""Sentences in each split."""

_SEED = 20240229


def _forms(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST = _forms(
    "Anna Ravi Mark Chloe Will Tomas Rose Grace Sofia Yusuf Ines Bill Marta May Kofi Hope Liam Jordan Hana Austin "
    "Diego Elif Joy Frank Florence Priya Chelsea Oscar Victoria Nadia Leila Paris Petra Georgia Samir Sydney Hugo "
    "Madison Faith Dawn Noor Viktor Amara Jonas Mina Owen Aldo Kenji Ruth Bruno Teresa Ivan Malik Daisy Greta Rob "
    "Lucia Irene Charlotte Chad"
)
_LAST = _forms(
    "Okafor Lindqvist Moretti Baker Haddad Kowalska Lincoln Brooks Nakamura Young Silva Novak Mensah Washington "
    "Carter Ortega Field Banks Petrov Hill Rahman Dubois Yilmaz Stone Costa Wells Jackson Sharma Fischer Green Bell "
    "Abebe Ford Reading Larsen Quispe Park Weaver Tanaka Houston Marsh Ibarra Cole Vargas Berger Lane Osei Dale "
    "Ferrari Wood Tran Popescu Rivers Amadi Blythe Castellano Drummond Eriksson Page Kent"
)
_PLACES = _forms(
    "Lisbon Reading Nairobi Lincoln Jordan Osaka Cork Quito Houston Nice Bergen Austin Accra Bath Paris Bristol "
    "Jackson Hanoi Orange Florence Lagos Chad Tampere Victoria Turkey Zagreb Sydney Kyoto Georgia Washington Lima "
    "Charlotte Ghent Mobile Kent Dakar Madison Leeds Sofia Chelsea Porto Riga Cusco Malmo Perth Tunis Utrecht Hull "
    "Izmir Antwerp Bilbao Fargo Galway Haifa Jaipur Kigali Leipzig Maputo Deal Split"
)
_STEMS = _forms(
    "Northwind Halden Amber Castle Delta Falcon Summit Harbour Juniper Lantern Marlow Nova Onyx Pioneer Orange "
    "Quarry Ridge Sable Umbra Vantage Willow Zephyr Anchor Beacon Cobalt Drift Ember Granite Hollow Page Ivory "
    "Keystone Lark Meridian Nimbus Orchard Prairie Quill Raven Sterling Thistle Upland Verdant Wren Target Bridge"
)
_COMPANY_ENDS = ("Motors", "Bank", "Airlines", "Foods", "Energy", "Media", "Systems", "Group", "Pharma", "Records")
_PLACE_ORG_ENDS = ("University", "City Council", "Rovers", "Museum", "Herald", "Police", "Institute", "United")
_PLACE_HEADS = ("North", "South", "East", "New", "Lake", "Port", "Mount")
_PLACE_ENDS = ("Road", "Square", "Bay", "Valley", "Bridge", "Airport")
_ACRONYM_PARTS = ("A", "B", "C", "D", "F", "G", "K", "L", "N", "P", "R", "S", "T", "V")

_WORDS = {
    "DAY": ("Monday", "Tuesday", "Friday", "Sunday", "yesterday", "today", "last week", "in May", "in March"),
    "NUM": ("two", "three", "12", "40", "150", "2,000", "a dozen", "several"),
    "THING": ("report", "bridge", "film", "budget", "album", "vaccine", "match", "contract", "garden", "train line"),
    "ROLE": ("director", "doctor", "striker", "mayor", "engineer", "singer", "judge", "teacher"),
    "SAID": ("said", "announced", "claimed", "denied", "confirmed"),
}

_TEMPLATES = (
    "{PER} {SAID} {DAY} that the {THING} would be late .",
    "{PER} moved from {LOC} to {LOC} {DAY} .",
    "{ORG} hired {PER} as {ROLE} in {LOC} .",
    "The {ROLE} {PER} left {ORG} {DAY} .",
    "Shares of {ORG} fell after the {THING} was shown in {LOC} .",
    "{ORG} will open {NUM} shops in {LOC} and {LOC} .",
    "{NUM} people from {LOC} came to hear {PER} .",
    "Have you seen the new {THING} by {PER} ?",
    "I met {PER} and {PER} near {LOC} {DAY} .",
    "{LOC} will host the {THING} , {PER} {SAID} .",
    "{ORG} and {ORG} signed a {THING} {DAY} .",
    "Nobody at {ORG} knew who {PER} was .",
    "Rain is expected in {LOC} {DAY} .",
    "{PER} , a {ROLE} from {LOC} , won the prize .",
    "The road between {LOC} and {LOC} is closed .",
    "{ORG} {SAID} it had paid {PER} {NUM} times .",
    "Mr {PER_LAST} did not answer when {ORG} called .",
    "Dr {PER_LAST} works for {ORG} .",
    "{PER} 's {THING} was sold to {ORG} .",
    "Flights to {LOC} were cancelled by {ORG} .",
    "{ANY} was in the news again {DAY} .",
    "Everyone is talking about {ANY} .",
    "What do you think of {ANY} ?",
    "{ANY} lost to {ANY} {DAY} .",
    "thanks to {ANY} for the {THING} !",
    "Next to {ORG} stands a house where {PER} lived .",
    "My sister studied in {LOC} before she joined {ORG} .",
    "It took {PER} {NUM} days to walk to {LOC} .",
    "@ {PER} are you still in {LOC} ?",
    "{PER} plays for {ORG} , not for {ORG} .",
    "The {ROLE} of {LOC} met the {ROLE} of {LOC} .",
    "{ORG} ( {LOC} ) builds a {THING} for {NUM} towns .",
    "May {PER} rest in peace .",
    "Will {PER} come to {LOC} {DAY} ?",
    "Mark my words , {ORG} will buy {ORG} .",
    "Reading the {THING} , {PER} began to laugh .",
    "May I bring {NUM} friends {DAY} ?",
    "Will the {THING} be ready {DAY} ?",
    "Mark the date : the {THING} opens {DAY} .",
    "Rose petals covered the garden {DAY} .",
    "Hope is not a plan , the {ROLE} {SAID} .",
    "The bill for the {THING} came to {NUM} pounds .",
    "Reading a {THING} {DAY} is a joy .",
    "She peeled an orange and read the {THING} .",
    "We had a nice bath and a page of the {THING} .",
    "The young baker rose early and sold {NUM} loaves .",
    "A green field , a stone bridge and a hill .",
    "Dawn came late over the park {DAY} .",
    "They split the cork and made a deal {DAY} .",
    "Our mobile bank has {NUM} new services .",
    "Turkey with rice was served to {NUM} guests .",
    "The target is {NUM} a week , no more .",
)


class _Writer:
    """Writes sentences of one split. Only `random.Random.random` is used: its sequence is fixed across versions."""

    def __init__(self, rng: random.Random, held_out: bool) -> None:
        self._rng = rng
        self._held_out = held_out

    def sentence(self) -> tuple[list[str], list[str]]:
        """Tokens and BIO tags of the next sentence."""
        tokens: list[str] = []
        tags: list[str] = []
        for word in self._pick(_TEMPLATES).split():
            slot = word.strip("{}") if word.startswith("{") else ""
            if slot in _WORDS:
                filled, kind = self._pick(_WORDS[slot]).split(), ""
            elif slot:
                filled, kind = self._name(slot)
            else:
                filled, kind = [word], ""
            tokens += filled
            tags += [f"B-{kind}", *[f"I-{kind}"] * (len(filled) - 1)] if kind else ["O"] * len(filled)
        if self._rng.random() < 1 / 12:
            return [token.lower() for token in tokens], tags
        return [tokens[0][0].upper() + tokens[0][1:], *tokens[1:]], tags

    def _name(self, slot: str) -> tuple[list[str], str]:
        kind = self._pick(("PER", "ORG", "LOC")) if slot == "ANY" else slot
        if kind == "PER_LAST":
            return [self._form(_LAST)], "PER"
        if kind == "PER":
            return self._person(), kind
        return (self._organisation() if kind == "ORG" else self._place()), kind

    def _person(self) -> list[str]:
        draw = self._rng.random()
        if draw < 0.55:
            return [self._form(_FIRST), self._form(_LAST)]
        if draw < 0.75:
            return [self._form(_FIRST)]
        return [self._form(_FIRST)[0] + ".", self._form(_LAST)] if draw < 0.85 else [self._form(_LAST)]

    def _organisation(self) -> list[str]:
        draw = self._rng.random()
        if draw < 0.35:
            return [self._form(_STEMS), self._pick(_COMPANY_ENDS)]
        if draw < 0.6:
            return [self._form(_PLACES), *self._pick(_PLACE_ORG_ENDS).split()]
        if draw < 0.75:
            return [self._form(_STEMS)]
        if draw < 0.88:
            return [self._form(_LAST), "&", self._form(_LAST)]
        return ["".join(self._pick(_ACRONYM_PARTS) for _ in range(3))]

    def _place(self) -> list[str]:
        draw = self._rng.random()
        if draw < 0.72:
            return [self._form(_PLACES)]
        if draw < 0.86:
            return [self._pick(_PLACE_HEADS), self._form(_PLACES)]
        return [self._form(_STEMS), self._pick(_PLACE_ENDS)]

    def _form(self, names: Sequence[str]) -> str:
        """One of the names; the last third of them is held out from train."""
        return self._pick(names if self._held_out else names[: len(names) * 2 // 3])

    def _pick(self, choices: Sequence[str]) -> str:
        return choices[int(self._rng.random() * len(choices))]


def sentences() -> dict[str, RawFile]:
    """The corpus: for each split its sentences, none of which stands twice."""
    rng = random.Random(_SEED)
    seen: set[tuple[str, ...]] = set()
    files = {}
    for split, size in SIZES.items():
        writer = _Writer(rng, held_out=split != "train")
        chosen: list[RawSentence] = []
        while len(chosen) < size:
            tokens, tags = writer.sentence()
            if tuple(tokens) not in seen:
                seen.add(tuple(tokens))
                chosen.append(RawSentence(tuple(tokens), tuple(tags), tuple(range(1, len(tokens) + 1))))
        files[split] = RawFile(Path("ner-mini"), tuple(chosen))
    return files
