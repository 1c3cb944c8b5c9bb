"""Personal data in texts, counted by patterns, and by checksums where the numbers have one. No text is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pydantic import Field

from kcost.core.schema import Record

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])")
_PHONE = re.compile(r"(?<![\w+])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)[ .-]?)?\d{2,4}(?:[ .-]\d{2,4}){1,4}(?![\w-])")
_INTERNATIONAL = re.compile(r"(?<![\w+])\+\d{8,15}(?!\w)")
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)")
_FEWEST_PHONE, _MOST_PHONE = 9, 15
_DATE = re.compile(r"\d{4}[ .-]\d{1,2}[ .-]\d{1,2}|\d{1,2}[ .-]\d{1,2}[ .-]\d{4}")


class PersonalData(Record):
    """How often each kind stands in some texts."""

    texts: int = Field(description="that were read")
    texts_with_any: int
    emails: int
    phones: int = Field(description="by their form alone: some are other numbers")
    cards: int = Field(description="numbers of 13 to 19 digits whose Luhn sum is right")
    ibans: int = Field(description="whose remainder by 97 is right")

    @property
    def total(self) -> int:
        """Of all kinds."""
        return self.emails + self.phones + self.cards + self.ibans


def count_personal_data(texts: Iterable[str]) -> PersonalData:
    """Counts e-mail addresses, telephone numbers, card numbers and IBANs.

    Examples:
        >>> count_personal_data(["write to ann@example.org", "4111 1111 1111 1111"]).cards
        1
    """
    counts = dict.fromkeys(("emails", "phones", "cards", "ibans"), 0)
    read = with_any = 0
    for text in texts:
        read += 1
        own = _counts(text)
        with_any += any(own.values())
        for kind, count in own.items():
            counts[kind] += count
    return PersonalData(texts=read, texts_with_any=with_any, **counts)


def _counts(text: str) -> dict[str, int]:
    """Each kind in one text. What one kind took is no other's: a part of an IBAN looks like a telephone number."""
    text, emails = _taken(text, _EMAIL, lambda _: True)
    text, ibans = _taken(text, _IBAN, is_iban)
    text, cards = _taken(text, _CARD, is_card)
    text, international = _taken(text, _INTERNATIONAL, lambda _: True)
    text, phones = _taken(text, _PHONE, _is_phone)
    return {"emails": emails, "phones": phones + international, "cards": cards, "ibans": ibans}


def _taken(text: str, pattern: re.Pattern[str], holds: Callable[[str], bool]) -> tuple[str, int]:
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        if not holds(match[0]):
            return match[0]
        count += 1
        return " "

    return pattern.sub(replace, text), count


def is_card(text: str) -> bool:
    """Whether the digits of a text pass the Luhn check (ISO/IEC 7812-1, annex B)."""
    digits = [int(c) for c in text if c.isdecimal()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether a text is an IBAN: 15 to 34 characters whose remainder by 97 is 1 (ISO 13616-1)."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34 or not plain.isascii():
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _is_phone(text: str) -> bool:
    digits = sum(c.isdecimal() for c in text)
    return _FEWEST_PHONE <= digits <= _MOST_PHONE and not _DATE.fullmatch(text.strip())
