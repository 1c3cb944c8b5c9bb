"""What labels cost by hand, and where the seconds are from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kcost.core.errors import InputError
from kcost.cost.labelling import ENTITY_TIMES, Labelling, labelling_cost, times_of
from kcost.cost.scenario_file import parse_scenario

JUDGMENTS = Path(os.environ.get("KCOST_DATA_DIR", ""), "labelling", "btc_crowd_times.csv")


def test_a_job_by_hand() -> None:
    """1,000 items, 2 persons, 3 questions of 10 s are 16 2/3 hours; a tenth is looked at again for a minute."""
    job = Labelling(
        items=1000, redundancy=2, questions=3, seconds=10, usd_per_hour=15, review_share=0.1, review_seconds=60,
        review_usd_per_hour=30,
    )  # fmt: skip
    cost = labelling_cost(job)
    assert cost.hours == pytest.approx(1000 * 2 * 3 * 10 / 3600)
    assert cost.usd == pytest.approx(250 + 50)
    assert (cost.low, cost.high) == (cost.usd, cost.usd)
    assert cost.derivation.startswith("1000 items x 2 persons x 3 questions x 10.0 s (as given) x $15.0 an hour")
    assert "10% of them reviewed in 60 s each" in cost.derivation


def test_without_seconds_those_of_tweets_are_taken_and_named() -> None:
    cost = labelling_cost(Labelling(items=500, usd_per_hour=12))
    assert cost.usd == pytest.approx(500 * 2 * 3 * ENTITY_TIMES.seconds / 3600 * 12)
    assert cost.low < cost.usd < cost.high
    assert "Broad Twitter Corpus" in cost.derivation


@pytest.mark.skipif(not JUDGMENTS.is_file(), reason="KCOST_DATA_DIR holds no labelling/btc_crowd_times.csv")
def test_the_seconds_are_those_of_the_file() -> None:
    derived = times_of(JUDGMENTS.read_bytes(), "btc", source=ENTITY_TIMES.source)
    made, stated = derived.model_dump(), ENTITY_TIMES.model_dump()
    assert made.pop("seconds_by_type") == pytest.approx(stated.pop("seconds_by_type"))
    assert made == pytest.approx(stated)
    assert f"{derived.judgments:,} judgments" in derived.source
    assert f"{derived.annotators} people" in derived.source


def csv_of(*rows: str) -> bytes:
    return "\n".join(["entity_type,annotator,seconds_per_item", *rows]).encode()


def test_persons_are_what_is_drawn() -> None:
    """Two persons who always take 5 and 15 s: however many judgments, the mean is known as from two."""
    derived = times_of(csv_of(*["per,1,5", "per,2,15"] * 50, "prod,3,900"), "f", types=("per",))
    assert (derived.seconds, derived.judgments, derived.annotators) == (10, 100, 2)
    # r = -250 and 250: sqrt(2 * 250^2 * 2 / 1) / 100 = 5, and Student's t of one degree is 12.706
    assert derived.high - derived.seconds == pytest.approx(12.706 * 5, rel=1e-3)
    assert derived.low == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no row"),
        (b"a,b\n1,2\n", "columns entity_type"),
        (csv_of("per,1,-3"), "line 2: '-3'"),
        (csv_of("per,1,soon"), "line 2: 'soon'"),
        (csv_of("per,1"), "line 2: None"),
        (csv_of("per,1,3"), "two persons"),
        (csv_of("prod,1,3", "prod,2,3"), "two persons"),
    ],
)
def test_wrong_judgments_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        times_of(content, "f")


def test_a_scenario_holds_a_labelling_job() -> None:
    text = (
        "[traffic]\nqps = 1\n[[options]]\nname = 'a'\nway = 'jax/jit float32'\n"
        "[options.labelling]\nitems = 100\nseconds = 36\nusd_per_hour = 10\nquestions = 1\n"
    )
    once = parse_scenario(text.encode(), "s").options[0].one_off(0)
    assert once.labels * once.usd_per_label == pytest.approx(100 * 2 * 36 / 3600 * 10)
    assert "100 items x 2 persons" in once.labelling_derivation
    with pytest.raises(InputError, match="not both"):
        parse_scenario(text.replace("way", "labels = 3\nway").encode(), "s")
