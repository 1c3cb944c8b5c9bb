"""Where the minutes go: cheap screening for all, then rounds for those that can still win.

Pure: what is known goes in, what to measure next comes out. The same functions drive the bench and the simulation that
tests them, so that what is tested is what runs.

Sources: Jamieson and Talwalkar (2016), Non-stochastic Best Arm Identification and Hyperparameter Optimization,
AISTATS, for halving; Even-Dar, Mannor and Mansour (2006), Journal of Machine Learning Research 7, 1079-1105, for
leaving out what the intervals put behind the best; Weitzman (1979), Optimal Search for the Best Alternative,
Econometrica 47, 641-654, for trying next what is expected to save most for its time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

from kcost.recommend.expected_saving import Efficiencies, expected_saving, saving_of_kin

RUNGS = (3, 6, 12, 24, 48)
"""Rounds at which candidates are left out. Three are the fewest whose spread means something."""

SCREENED = RUNGS[0]
"""Rounds that every candidate gets whose turn comes."""

NEAR = 1.03
"""Halving leaves none out that is within 3% of the best: its place is for more rounds to decide."""

SHARE_OF_TIME = 0.5
"""One candidate that is slow to get ready may take at most this part of the time that is left."""

SIZES_DIFFER = 1.25
"""A way that was measured at one batch size alone may cost less by this factor at its best one, and is not dropped
within it."""

WORTH_TRYING = 0.05
"""A conversion or a compilation is made where it is expected to save this part of the cost of the best so far. In the
simulation a lower part finds the winner more often and takes longer: `benchmarks/recommend_figures.py` shows both."""

BASE_PRECISION = "float32"

STILL_WORTH = 2.0
"""Times WORTH_TRYING that a conversion still has to be expected to save, were the one beside it to save its part."""

WORTH_A_TURN = 0.01
"""The same for fewer threads of what is at hand, which takes a few seconds: a fifth of the saving for a tenth of the
time."""

AT_ONCE = 2
"""Most slow arms that are got ready at the same time, where there is more than a core. A third makes the others later
on two cores, and would seldom be needed: docs/results.md has both."""

Kind = Literal["first", "screen", "widen", "try", "variants", "final", "again"]


class Arm(NamedTuple):
    """A candidate as the schedule sees it."""

    name: str
    setup_s: float
    """What getting it ready takes."""
    kind: str | None = None
    """Arms of one kind run the same program: they take about as long to get ready, and what one costs tells of the
    others. None for an arm that no other tells of."""
    graph: str | None = None
    """Kinds of one graph run the same operations, each in its runtime: in one precision, on as many threads, they cost
    about alike. None where that is not known, or where calls take the time and not the operations."""
    precision: str = ""
    """What its products run in."""
    threads: int = 0
    """0 for every core, or as many as a CPU quota allows."""
    first: bool = False
    costly: bool = False
    """Whether getting it ready takes so long that a bound decides."""
    conversion: str | None = None
    """What makes it costly: once an arm of the same conversion was measured, it is not. None for what has none."""
    bound_usd: float = 0.0
    """The least that it could cost, whatever is measured."""
    after: str | None = None
    """The arm that it varies."""
    after_within: float = 1.0
    """How many times the cost of the best the arm that it varies may have."""
    is_plain: bool = False


class Standing(NamedTuple):
    """What an arm is known to cost over the horizon."""

    low_usd: float
    value_usd: float
    high_usd: float
    rounds: int
    narrow: bool = False
    """Measured at one batch size so far, of several: it may cost less at another."""

    @property
    def reach_usd(self) -> float:
        """The least that it may turn out to cost."""
        if not self.narrow:
            return self.low_usd
        # One that cannot hold the p99 at that batch size may hold it at a smaller one.
        return self.low_usd / SIZES_DIFFER if math.isfinite(self.value_usd) else 0.0


class Wave(NamedTuple):
    """Arms that are got ready together and take turns."""

    kind: Kind
    names: tuple[str, ...]
    """What is new in it, or is to be decided, and the arms that it is held against."""
    rounds: int
    """How many each of them has by its end, the last ones after halving."""
    narrow: bool = False
    """What is new in it is measured at one batch size: the one that the best so far runs at."""


class Skipped(NamedTuple):
    """An arm that no time goes to, and why."""

    name: str
    reason: str


def leader(standings: Mapping[str, Standing]) -> str | None:
    """The arm with the least cost; None for none."""
    return min(standings, key=lambda name: (standings[name].value_usd, name), default=None)


def contenders(standings: Mapping[str, Standing]) -> tuple[str, ...]:
    """The arms whose interval reaches the best one's, the best first.

    Examples:
        >>> contenders({"a": Standing(9, 10, 11, 3), "b": Standing(10.5, 12, 13, 3), "c": Standing(20, 21, 22, 3)})
        ('a', 'b')
    """
    best = leader(standings)
    if best is None:
        return ()
    reach = standings[best].high_usd
    inside = [name for name, s in standings.items() if name == best or s.reach_usd < reach]
    return tuple(sorted(inside, key=lambda name: (standings[name].value_usd, name)))


def survivors(standings: Mapping[str, Standing], among: Collection[str]) -> tuple[str, ...]:
    """Those of some arms that get rounds after a rung: at most the better half of what can still win, and what is near.

    Args:
        standings: of all arms that were measured: an arm may be beaten by one that takes no turns now.
        among: the arms that take turns.
    """
    alive = [name for name in contenders(standings) if name in among]
    if not alive:
        return ()
    near = NEAR * min(s.value_usd for s in standings.values())
    half = max(1, math.ceil(len(among) / 2))
    return tuple(name for place, name in enumerate(alive) if place < half or standings[name].value_usd <= near)


def next_wave(
    arms: Sequence[Arm],
    standings: Mapping[str, Standing],
    failed: Collection[str],
    seconds_left: float,
    *,
    floor_usd: float = 0.0,
    final_rounds: int = RUNGS[-1],
    worth: float = WORTH_TRYING,
    at_once: int = AT_ONCE,
) -> tuple[Wave | None, tuple[Skipped, ...]]:
    """What to measure next, and the arms that no time goes to any more.

    Args:
        standings: of the arms that were measured, by name.
        failed: arms that could not be measured.
        floor_usd: the least that any way can cost under the traffic: an instance of the cheapest, and the move to it.
        final_rounds: most rounds of an arm.
        worth: what slow arms are tried for: the expected saving, as a part of the best one's cost. 0 tries all that
            can win.
        at_once: most slow arms that are got ready at the same time.

    Returns:
        The wave, None where nothing is left to decide or no time is; and why arms are skipped.
    """
    if seconds_left <= 0:
        rest = tuple(Skipped(a.name, "the minutes were over") for a in arms if a.name not in {*standings, *failed})
        return None, rest
    tried = {*standings, *failed}
    by_name = {arm.name: arm for arm in arms}
    held = _held_against(arms, standings)
    new = [a for a in arms if a.name not in tried and a.after is None]
    if first := [a.name for a in new if a.first]:
        return Wave("first", (*first, *held), SCREENED), ()
    if cheap := [a.name for a in new if not a.costly]:
        return Wave("screen", (*cheap, *held), RUNGS[1], narrow=True), ()
    alive = contenders(standings)
    if narrow := [n for n in alive if standings[n].narrow]:
        return Wave("widen", tuple(dict.fromkeys((*narrow, *held))), RUNGS[1]), ()
    open_variants = [a for a in arms if a.name not in tried and a.after is not None]
    skipped: list[Skipped] = []
    promising: list[tuple[float, Arm]] = []
    made = {by_name[n].conversion for n in standings if n in by_name} - {None}
    at_hand = [a for a in open_variants if _is_open(a, standings, alive) and (not a.costly or a.conversion in made)]
    ready: list[str] = []
    for arm in at_hand:
        why, _ = _not_worth(arm, by_name, standings, alive, math.inf, floor_usd, min(worth, WORTH_A_TURN))
        if why is None:
            ready.append(arm.name)
        else:
            skipped.append(Skipped(arm.name, why))
    for arm in (*new, *(a for a in open_variants if a not in at_hand)):
        why, saving = _not_worth(arm, by_name, standings, alive, seconds_left, floor_usd, worth)
        if why is None:
            promising.append((saving, arm))
        else:
            skipped.append(Skipped(arm.name, why))
    # Fewer threads of what is measured change less than another way does, or fewer units: they are for what is left.
    others = [p for p in promising if p[1].after is None or p[1].after_within > 1]
    if ready and not others:
        return Wave("variants", (*ready, *held), RUNGS[1], narrow=True), tuple(skipped)
    promising = others or promising
    if promising:
        promising.sort(
            key=lambda p: (
                p[0] / max(p[1].setup_s, 1.0),
                p[1].precision == BASE_PRECISION,
                p[1].name,
            ),
            reverse=True,
        )
        chosen = _beside_each_other(promising, by_name, standings, floor_usd, worth, at_once)
        return Wave("try", (*chosen, *(n for n in held if n not in chosen)), RUNGS[1], narrow=True), tuple(skipped)
    return _final(by_name, standings, alive, held, final_rounds), tuple(skipped)


def _beside_each_other(
    promising: Sequence[tuple[float, Arm]],
    by_name: Mapping[str, Arm],
    standings: Mapping[str, Standing],
    floor_usd: float,
    worth: float,
    at_once: int,
) -> list[str]:
    """The first of some arms, and those that would most probably be tried after it.

    Were the first to save what is expected of it, each of the others would still have to save STILL_WORTH times what
    an arm is tried for. One of a kind tells what the others of it are worth, so that they wait for it. So it does, less
    surely, of its graph: others of that come last.
    """
    saving, first = promising[0]
    chosen = [first]
    best = leader(standings)
    after_usd = math.inf if best is None else standings[best].value_usd * (1 - saving)
    others = [arm for _, arm in promising[1:]]
    for arm in sorted(others, key=lambda arm: arm.graph is not None and arm.graph == first.graph):
        is_new = all(arm.kind is None or arm.kind != other.kind for other in chosen)
        if len(chosen) == at_once or not is_new:
            continue
        known = math.isfinite(after_usd) and after_usd > 0
        later = _saving(arm, after_usd, by_name, standings, floor_usd) if known else 1.0
        if later >= STILL_WORTH * worth:
            chosen.append(arm)
    return [arm.name for arm in chosen]


def _saving(
    arm: Arm, best_usd: float, by_name: Mapping[str, Arm], standings: Mapping[str, Standing], floor_usd: float
) -> float:
    """What an arm is expected to save over a way of some cost, as a part of that."""
    efficiencies = _efficiencies(arm, by_name, standings)
    kin = [standings[n].value_usd for n in standings if n in by_name and _are_kin(by_name[n], arm)]
    least = min(kin, default=math.inf)
    if efficiencies.sibling is None and math.isfinite(least):
        return saving_of_kin(best_usd, least, floor_usd, arm.bound_usd)
    return expected_saving(arm.bound_usd / best_usd, efficiencies)


def _is_open(arm: Arm, standings: Mapping[str, Standing], alive: Sequence[str]) -> bool:
    """Whether the arm that an arm varies is near enough to the best."""
    if arm.after is None or arm.after not in standings or not alive:
        return False
    return arm.after in alive or standings[arm.after].reach_usd < arm.after_within * standings[alive[0]].high_usd


def _efficiencies(arm: Arm, arms: Mapping[str, Arm], standings: Mapping[str, Standing]) -> Efficiencies:
    """How near the measured arms came to their bounds, as far as that tells of an arm that was not.

    A bound takes for granted that a lower precision is as much faster as the processor can be. Where an arm was
    measured in two precisions, how far it fell short of that is expected of others in the lower one, too.
    """
    known = {
        name: math.log(arms[name].bound_usd / s.value_usd)
        for name, s in standings.items()
        if name in arms and arms[name].bound_usd > 0 and 0 < s.value_usd < math.inf
    }
    shortfalls: dict[str, list[float]] = {}
    for lower, base in itertools.permutations(known, 2):
        if arms[base].precision == BASE_PRECISION != arms[lower].precision and _are_alike(arms[lower], arms[base]):
            shortfalls.setdefault(arms[lower].precision, []).append(known[lower] - known[base])
    shortfall = {precision: min(0.0, sum(s) / len(s)) for precision, s in shortfalls.items()}

    def as_of(name: str) -> float:
        """The efficiency of a measured arm, were it in the precision of the other."""
        return math.exp(known[name] + shortfall.get(arm.precision, 0.0) - shortfall.get(arms[name].precision, 0.0))

    most = math.exp(shortfall.get(arm.precision, 0.0))
    siblings = [as_of(n) for n in known if _are_siblings(arms[n], arm)]
    if arm.precision != BASE_PRECISION:
        # No program comes nearer to the peak of a lower precision than to that of float32. On other threads it comes
        # nearer or less near to its peak whatever the precision.
        full = [known[n] for n in known if _are_alike(arms[n], arm) and arms[n].precision == BASE_PRECISION]
        most = min([most, *(math.exp(e) for e in full)])
    values = tuple(min(1.0, as_of(n)) for n in known)
    slow = sum(arms[n].costly for n in known)
    return Efficiencies(values, slow, most, min(1.0, max(siblings)) if siblings else None)


def _are_siblings(one: Arm, other: Arm) -> bool:
    return one.kind is not None and one.kind == other.kind and one.name != other.name


def _are_kin(one: Arm, other: Arm) -> bool:
    """Whether two arms run one graph in two runtimes, in the same precision and on as many threads."""
    same = (one.graph, one.precision, one.threads) == (other.graph, other.precision, other.threads)
    return one.graph is not None and same and one.kind != other.kind


def _are_alike(one: Arm, other: Arm) -> bool:
    """Whether two siblings run on as many threads, so that they differ in precision alone."""
    return _are_siblings(one, other) and one.threads == other.threads


def _final(
    by_name: Mapping[str, Arm],
    standings: Mapping[str, Standing],
    alive: Sequence[str],
    held: Sequence[str],
    final_rounds: int,
) -> Wave | None:
    """Rounds for those that are not told apart yet, and for plain Keras, which the saving is against."""
    if not alive:
        return None
    least = RUNGS[2]
    best = standings[alive[0]]
    # One that could be cheaper by a little at most is not worth the time: what choosing wrongly costs is told.
    rivals = [n for n in alive[1:] if standings[n].low_usd * NEAR < best.high_usd]
    names = tuple(dict.fromkeys((alive[0], *rivals, *held)))
    behind = [n for n in names if n in standings and (standings[n].rounds < least or standings[n].narrow)]
    undecided = [n for n in (alive[0], *rivals) if standings[n].rounds < final_rounds]
    if behind:
        return Wave("final", names, least)
    if rivals and undecided:
        fewest = min(standings[n].rounds for n in undecided)
        return Wave("final", names, min(final_rounds, next(r for r in (*RUNGS, final_rounds) if r > fewest)))
    return None


def again(
    arms: Sequence[Arm], standings: Mapping[str, Standing], disturbed: Collection[str], seconds_left: float
) -> Wave | None:
    """As many rounds once more for what other work disturbed and may win, and for plain Keras; None for nothing.

    What is disturbed has no figure in the answer, and a way without one may be far cheaper than the one that is left.
    """
    plain = [a.name for a in arms if a.is_plain and a.name in standings]
    open_ = [n for n in dict.fromkeys((*contenders(standings), *plain)) if n in disturbed]
    if not open_ or seconds_left <= 0:
        return None
    names = tuple(dict.fromkeys((*open_, *_held_against(arms, standings))))
    return Wave("again", names, 2 * max(standings[n].rounds for n in names))


def _held_against(arms: Sequence[Arm], standings: Mapping[str, Standing]) -> tuple[str, ...]:
    """The best so far, and plain Keras: they take turns with what is new, so that ratios are of the same rounds."""
    best = leader(standings)
    plain = [a.name for a in arms if a.is_plain and a.name in standings]
    return tuple(dict.fromkeys((*([] if best is None else [best]), *plain)))


def _not_worth(
    arm: Arm,
    by_name: Mapping[str, Arm],
    standings: Mapping[str, Standing],
    alive: Sequence[str],
    seconds_left: float,
    floor_usd: float,
    worth: float,
) -> tuple[str | None, float]:
    """Why an arm that is slow to get ready is not tried now, None where it may win; and what it is expected to save."""
    if arm.after is not None and not _is_open(arm, standings, alive):
        known = arm.after in standings
        return f"it varies {arm.after}, which {'is out of the running' if known else 'was not measured'}", 0.0
    best = leader(standings)
    saving = 1.0
    if best is not None:
        cost = standings[best].low_usd
        so_far = standings[best].value_usd
        if floor_usd >= cost:
            return "nothing can cost less: the best so far is at what the smallest bill comes to", 0.0
        if arm.bound_usd >= cost:
            return f"its bound, ${arm.bound_usd:,.0f}, is not below the best so far, ${so_far:,.0f}", 0.0
        if math.isfinite(so_far):
            saving = _saving(arm, so_far, by_name, standings, floor_usd)
        if saving < worth:
            return (
                f"it is expected to save {saving:.1%} of the best so far, less than {worth:.0%}: "
                "--thorough tries it all the same"
            ), saving
    if arm.setup_s > SHARE_OF_TIME * seconds_left:
        left = f"with {seconds_left:.0f} s left: give more --minutes"
        return f"it takes about {arm.setup_s:.0f} s to get ready, {left}", saving
    return None, saving
