"""What labels cost: items x redundancy x questions x seconds x wage, and review.

The default seconds are those of tweets that a crowd marked entities in. `times_of` derives them from the judgments.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.schema import Record
from kcost.core.units import format_usd, significant

ENTITY_TYPES = ("loc", "org", "per")
"""What the judgments of a tagger's data are of. Those of products are in the file too, and no tag of the corpus."""

COLUMNS = ("entity_type", "annotator", "seconds_per_item")

MOST_ITEMS = 1e12


class LabellingTimes(Record):
    """How long a judgment takes: one item, looked at for one question, by one person."""

    seconds: float = Field(description="mean of the judgments")
    low: float = Field(description="lower end of the 95% interval, persons being what is drawn")
    high: float
    median: float
    judgments: int
    annotators: int
    seconds_by_type: dict[str, float] = Field(description="question -> mean of its judgments")
    source: str


ENTITY_TIMES = LabellingTimes(
    seconds=11.007836580597315,
    low=9.521990779146153,
    high=12.493682382048478,
    median=6.25,
    judgments=14_833,
    annotators=81,
    seconds_by_type={"loc": 12.442077284808832, "org": 10.93360362173038, "per": 9.671164521319389},
    source="14,833 judgments of tweets by 81 people, Broad Twitter Corpus, 2013-14 (CC BY 4.0)",
)
"""Of one tweet for one type of entity, as `times_of` derives it; the mean holds the long pauses, which are paid for
too."""


class Labelling(Record):
    """A labelling job."""

    items: float = Field(ge=0, le=MOST_ITEMS)
    redundancy: float = Field(default=2.0, ge=1, description="persons to a question; 2 in the Broad Twitter Corpus")
    questions: float = Field(default=3.0, ge=1, description="of an item, such as one for each type of entity")
    seconds: float | None = Field(default=None, gt=0, description="of a judgment; None: as for entities in tweets")
    usd_per_hour: float = Field(ge=0, description="what an annotator's hour costs you, fees included")
    review_share: float = Field(default=0.0, ge=0, le=1, description="part of the items that somebody looks at again")
    review_seconds: float = Field(default=0.0, ge=0, description="of an item")
    review_usd_per_hour: float = Field(default=0.0, ge=0)


class LabellingCost(Record):
    """What a labelling job costs."""

    usd: float
    low: float = Field(description="with the seconds at the lower end of their interval; usd where they were given")
    high: float
    hours: float = Field(description="of annotators, review left out")
    derivation: str = Field(description="the whole sum in words")


def labelling_cost(job: Labelling, times: LabellingTimes = ENTITY_TIMES) -> LabellingCost:
    """The cost of a job.

        hours = items * redundancy * questions * seconds / 3600
        usd = hours * usd_per_hour + items * review_share * review_seconds / 3600 * review_usd_per_hour

    Args:
        times: the seconds of a job that names none.
    """
    seconds = (times.seconds, times.low, times.high) if job.seconds is None else (job.seconds,) * 3
    judgments = job.items * job.redundancy * job.questions
    review_hours = job.items * job.review_share * job.review_seconds / 3600
    review = review_hours * job.review_usd_per_hour
    usd, low, high = (judgments * s / 3600 * job.usd_per_hour + review for s in seconds)
    source = "as given" if job.seconds is not None else f"{times.low:.1f} to {times.high:.1f}: {times.source}"
    text = (
        f"{job.items:g} items x {job.redundancy:g} persons x {job.questions:g} questions x {significant(seconds[0])} s "
        f"({source}) x {format_usd(job.usd_per_hour)} an hour"
    )
    if review:
        text += f", and {job.review_share:.0%} of them reviewed in {job.review_seconds:g} s each"
    return LabellingCost(usd=usd, low=low, high=high, hours=judgments * seconds[0] / 3600, derivation=text)


def times_of(content: bytes, name: str, *, types: Sequence[str] = ENTITY_TYPES, source: str = "") -> LabellingTimes:
    """The seconds of a judgment from a CSV file of timed judgments.

    The mean is over judgments, pauses included. Persons differ by more than their judgments do, so the interval is of
    a mean of clusters: with r the sum of a person's deviations from the mean, its variance is sum(r^2) k / (k - 1) /
    n^2 for k persons and n judgments.

    Source: Cameron, A. C. and Miller, D. L. (2015), Journal of Human Resources 50, 317-372.

    Args:
        content: the bytes of the file, with the columns entity_type, annotator and seconds_per_item.
        types: the entity types that count.

    Raises:
        InputError: no such columns, a time that is not positive, or fewer than two persons.
    """
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig", errors="replace"))))
    if not rows or not set(COLUMNS) <= rows[0].keys():
        raise InputError(
            "A file of timed judgments has the columns " + ", ".join(COLUMNS) + ".",
            received=f"{name}: {', '.join(map(str, rows[0])) if rows else 'no row'}",
        )
    kept = [(row["entity_type"], row["annotator"], _seconds(row, name, i)) for i, row in enumerate(rows, start=2)]
    kept = [one for one in kept if one[0] in types]
    seconds = np.array([s for *_, s in kept])
    names = [annotator for _, annotator, _ in kept]
    persons = sorted(set(names))
    if len(persons) < 2:
        raise InputError(
            "Times of judgments are of two persons at least.", received=f"{name}: {len(persons)} for {', '.join(types)}"
        )
    mean = float(seconds.mean())
    sums = np.bincount([persons.index(annotator) for annotator in names], weights=seconds - mean)
    error = math.sqrt(float((sums**2).sum()) * len(persons) / (len(persons) - 1)) / len(seconds)
    from scipy.special import stdtrit

    half = float(stdtrit(len(persons) - 1, 0.975)) * error
    return LabellingTimes(
        seconds=mean,
        low=max(0.0, mean - half),
        high=mean + half,
        median=float(np.median(seconds)),
        judgments=len(seconds),
        annotators=len(persons),
        seconds_by_type={t: float(np.mean([s for kind, _, s in kept if kind == t])) for t in types},
        source=source or name,
    )


def _seconds(row: dict[str, str], name: str, line: int) -> float:
    try:
        seconds = float(row["seconds_per_item"])
    except (TypeError, ValueError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(
            "A judgment took a positive number of seconds.",
            received=f"{name}, line {line}: {row['seconds_per_item']!r}",
        )
    return seconds
