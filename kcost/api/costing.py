"""From a run, or from figures of your own, to a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcost.api.inventory import prices
from kcost.core.errors import InputError
from kcost.core.garbage_collection import collector_paused

if TYPE_CHECKING:
    from kcost.cost.assumptions import Assumptions
    from kcost.cost.budget import Budget
    from kcost.cost.capacity import Capacity
    from kcost.cost.instances import Offer
    from kcost.cost.next_dollar import NextDollar
    from kcost.cost.option import Option, Refused
    from kcost.cost.placements import Placement
    from kcost.cost.scenario_file import CostScenario
    from kcost.cost.serving_ways import Way
    from kcost.cost.sizing import Rates
    from kcost.cost.traffic import Traffic
    from kcost.report.derived_results import ShownBudget

MOST_REASONS = 1
"""Of what was not projected that a budget names."""

BURSTY = 1.5
"""Variance over mean of a log's seconds above which its arrivals are no Poisson process."""


@collector_paused()
def estimate_budget(
    run: Path | str | None = None,
    *,
    qps: float | None = None,
    daily: Sequence[float] | None = None,
    weekly: Sequence[float] | None = None,
    log: Path | str | None = None,
    p99_ms: float | None = None,
    scenario: Path | str | None = None,
    provider: str | None = None,
    region: str | None = None,
    instance: str | None = None,
    models: Sequence[str] = (),
    max_drop: float | None = None,
    prices_file: Path | str | None = None,
    project_to: Sequence[str] = (),
    assumptions: Mapping[str, float | bool | None] | None = None,
    draws: int | None = None,
    seed: int | None = None,
) -> ShownBudget:
    """What serving costs by each way that a run measured, with intervals, break-even and what moves the answer most.

    Args:
        run: a run folder; None where a scenario gives the figures of every option.
        qps, daily, weekly, log: the traffic, exactly one: requests a second; 24 or 168 of them; a log of request times.
        p99_ms: most that the p99 from arrival to answer may be.
        scenario: a TOML file with all of this, in the place of the traffic. What else is given here wins over it.
        provider, region, instance: what to price; None takes the closest match to the machine, and says so.
        models: those of the run that stand for each other; needed where it holds several.
        max_drop: largest drop of the score that is allowed below float32, as a fraction; None means 0.01.
        prices_file: a price book of your own.
        project_to: instances or accelerators of the price book that are put on the map of instances, projected as
            `kcost.project_run` does it; the run was measured with profiles then.
        assumptions: name -> value, such as `headroom`; None keeps the default. `kcost.cost.assumptions` has them all.
        draws, seed: of the Monte Carlo.

    Where every way is INVALID there is no figure: the sentence says why, and what to do.

    Raises:
        InputError: a file or a number that cannot be used, traffic beyond `max_replicas`, or a p99 that no way holds.
        PriceError: the book cannot be trusted, or has no price for what was asked.

    Examples:
        >>> budget = kcost.estimate_budget("run", qps=200, p99_ms=2000, instance="m7i.large", region="us-east-1")
        >>> budget.horizon_days
        365.0
    """
    from kcost.cost.assumptions import assume
    from kcost.cost.budget import DRAWS, SEED, make_budget, no_budget
    from kcost.cost.instance_map import map_of
    from kcost.cost.option import OneOff
    from kcost.cost.scenario_file import Serving
    from kcost.cost.sizing import rates_of
    from kcost.report.derived_results import ShownBudget
    from kcost.report.notebook import shown

    read = None if scenario is None else _read_scenario(Path(scenario))
    traffic = _traffic(qps, daily, weekly, log, read, scenario)
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    if read is not None:
        values.update({name: number.value for name, number in read.assumptions.items()})
        sources.update({name: number.source for name, number in read.assumptions.items()})
    for name, value in (assumptions or {}).items():
        if value is not None:
            values[name], sources[name] = value, "as asked"
    assumed = assume(values, sources)
    limit_ms = p99_ms if p99_ms is not None else None if read is None else read.p99_ms
    wanted = Serving() if read is None else read.serving
    used_seed = SEED if seed is None else seed
    options: list[Option] = [] if read is None else [o for e in read.options if (o := e.given()) is not None]
    refused: list[Refused] = []
    notes: list[str] = _traffic_notes(traffic)
    chosen: list[tuple[Way, Capacity, Option]] = []
    invalid: str | None = None
    offers: Mapping[str, Sequence[Offer]] = {}
    if read is None or read.needs_run:
        if run is None:
            raise InputError("A budget is made from a run.", received="none", remedy="Name the folder of a run.")
        if limit_ms is None:
            raise InputError(
                "A budget holds a limit on the p99 latency.", received="none", remedy="Such as --p99-ms 50."
            )
        chosen, refused, more, invalid, offers = _from_run(
            Path(run),
            rates_of(traffic),
            assumed,
            limit_ms,
            used_seed,
            provider=provider or wanted.provider,
            region=region or wanted.region,
            instance=instance or wanted.instance,
            models=tuple(models) or wanted.models,
            max_drop=wanted.max_drop if max_drop is None else max_drop,
            prices_file=prices_file or _beside(wanted.prices, scenario),
            only=None if read is None else {entry.way for entry in read.options if entry.way is not None},
        )
        if not chosen and invalid is not None:
            nothing = no_budget(
                refused,
                traffic,
                assumed,
                p99_ms=limit_ms,
                invalid=invalid,
                draws=DRAWS if draws is None else draws,
                seed=used_seed,
            )
            return shown(ShownBudget, nothing)
        notes += more
        if read is not None and read.options:
            chosen = _named(chosen, read, assumed)
        else:
            moved = OneOff(work_hours=assumed.work_hours)
            chosen = [(w, c, o if o.is_plain else o.model_copy(update={"one_off": moved})) for w, c, o in chosen]
        options += [option for *_, option in chosen]
    elif run is not None:
        notes.append("The scenario gives the figures of every option: nothing of the run was read.")
    budget = make_budget(
        options,
        {o.name: w.medians_ns[c.batch_limit] for w, c, o in chosen},
        traffic,
        assumed,
        p99_ms=limit_ms,
        refused=refused,
        notes=notes,
        round_s={o.name: w.round_s for w, _, o in chosen},
        invalid=invalid,
        draws=DRAWS if draws is None else draws,
        seed=used_seed,
    )
    placements: tuple[Placement, ...] = ()
    if project_to:
        if run is None or not chosen:
            raise InputError(
                "What is projected was measured in a run.",
                received=f"--to {', '.join(project_to)} without a way of a run",
                remedy="Name a run that was measured with --profile, or leave --to out.",
            )
        placements, why_not = _placements(
            Path(run),
            project_to,
            {way.model for way, *_ in chosen},
            provider=provider or wanted.provider,
            region=region or wanted.region,
            prices_file=prices_file or _beside(wanted.prices, scenario),
        )
        budget = budget.model_copy(update={"notes": (*budget.notes, *why_not)})
    winner = budget.options[0].bill.option
    winning = next((way for way, _, option in chosen if option.name == winner.name), None)
    points = map_of([p.bill.option for p in budget.options], winning, offers, placements)
    budget = budget.model_copy(update={"instances": points})
    return shown(ShownBudget, _with_balancer(budget, chosen, traffic, assumed, limit_ms, used_seed))


def _placements(
    run: Path,
    to: Sequence[str],
    models: set[str],
    *,
    provider: str | None,
    region: str | None,
    prices_file: Path | str | None,
) -> tuple[tuple[Placement, ...], list[str]]:
    """What was projected of some models, and why other cells were not."""
    from kcost.api.projecting import project_run

    report = project_run(run, to, provider=provider, region=region, prices_file=prices_file)
    projected = tuple(p for p in report.options if p.projection is not None and p.model in models)
    refused = sorted({f"{p.price.key}: {p.refused}" for p in projected if p.refused is not None})
    reasons = [*refused, *report.not_projected]
    notes = [f"Not projected: {reason}" for reason in reasons[:MOST_REASONS]]
    more = len(reasons) - MOST_REASONS
    return projected, [*notes, f"Not projected: {more} more; `kcost project` names them."] if more > 0 else notes


def _with_balancer(
    budget: Budget,
    chosen: list[tuple[Way, Capacity, Option]],
    traffic: Traffic,
    assumed: Assumptions,
    p99_ms: float | None,
    seed: int,
) -> Budget:
    """The budget with a note on what a better balancer is worth to the winner, where it needs several replicas."""
    from kcost.cost.deployment import replicas_with_one_line

    winner = budget.options[0].bill
    own = next(((way, capacity) for way, capacity, option in chosen if option.name == winner.option.name), None)
    if own is None or p99_ms is None or winner.replicas < 2:
        return budget
    rate = traffic.peak_queries_per_s * (1 + assumed.headroom)
    fewest = replicas_with_one_line(*own, rate, p99_ms / 1e3, seed)
    if fewest is None or max(fewest, assumed.min_replicas) >= winner.replicas:
        return budget
    note = (
        f"With a balancer that always picks a free replica {fewest} of {winner.option.name} would do in the place of "
        f"{winner.replicas} (simulated)."
    )
    return budget.model_copy(update={"notes": (note, *budget.notes)})


def write_workbook(budget: Budget, path: Path | str) -> None:
    """Writes the calculation of a budget as an .xlsx workbook with live formulas.

    Raises:
        InputError: the budget has no figure, as its run is INVALID.
        UnavailableError: xlsxwriter is not installed.
        StorageError: the file cannot be written.

    Examples:
        >>> budget = kcost.estimate_budget("run", qps=200, p99_ms=2000)
        >>> kcost.write_workbook(budget, "budget.xlsx")
    """
    from kcost.core.schema import write_bytes
    from kcost.report.workbook import workbook

    write_bytes(Path(path), workbook(budget))


def write_budget_page(budget: Budget, path: Path | str, next_dollar: NextDollar | Path | str | None = None) -> None:
    """Writes a budget as one self-contained HTML page: the bill by kind, when it pays back, what moves the answer, and
    a map of instances.

    Args:
        next_dollar: what `kcost.next_dollar` returned, or a file with what `kcost next-dollar --json` printed: its
            learning curve joins the page.

    Raises:
        InputError: that file is not there.
        SchemaError: it holds something else.
        StorageError: the page cannot be written.

    Examples:
        >>> budget = kcost.estimate_budget("run", qps=200, p99_ms=2000)
        >>> kcost.write_budget_page(budget, "budget.html")
    """
    from kcost.core.schema import read, write_bytes
    from kcost.cost.next_dollar import NextDollar
    from kcost.report.budget_page import render_budget

    if isinstance(next_dollar, (Path, str)):
        try:
            next_dollar = read("next_dollar", Path(next_dollar), NextDollar)
        except OSError as error:
            raise InputError(
                "What a point of score costs is a file that can be read.",
                received=f"{next_dollar}: {error.strerror}",
                remedy="Write it: kcost next-dollar ARTIFACT... --json > next.json",
            ) from error
    write_bytes(Path(path), render_budget(budget, next_dollar))


def _read_scenario(path: Path) -> CostScenario:
    from kcost.cost.scenario_file import parse_scenario

    return parse_scenario(_bytes_of(path, "A scenario is a TOML file that can be read."), str(path))


def _beside(name: str | None, scenario: Path | str | None) -> Path | None:
    """A path in a scenario, which is relative to the scenario's file."""
    return None if name is None else Path(str(scenario)).parent / name


def _bytes_of(path: Path, rule: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(rule, received=f"{path}: {error.strerror}", remedy="Name another file.") from error


def _traffic(
    qps: float | None,
    daily: Sequence[float] | None,
    weekly: Sequence[float] | None,
    log: Path | str | None,
    scenario: CostScenario | None,
    scenario_path: Path | str | None,
) -> Traffic:
    from kcost.cost.traffic import constant, from_log, profile

    count = sum(v is not None for v in (qps, daily, weekly, log))
    if count > 1 or (count == 0 and scenario is None):
        raise InputError(
            "Traffic is one of --qps, --daily, --weekly and --log, or that of a scenario.",
            received=f"{count} of them",
            remedy="Such as --qps 200.",
        )
    if count == 0 and scenario is not None:
        given = scenario.traffic
        qps, daily, weekly = given.qps, given.daily, given.weekly
        log = _beside(given.log, scenario_path)
    if qps is not None:
        return constant(qps)
    if daily is not None:
        return profile(daily, "daily")
    if weekly is not None:
        return profile(weekly, "weekly")
    return from_log(_bytes_of(Path(str(log)), "A log of requests is a file that can be read."), str(log))


def traffic_of(
    qps: float | None,
    daily: Sequence[float] | None,
    weekly: Sequence[float] | None,
    log: Path | str | None,
) -> Traffic:
    """Traffic from exactly one of these, as `estimate_budget` takes them. Raises InputError for none or several."""
    return _traffic(qps, daily, weekly, log, None, None)


def _traffic_notes(traffic: Traffic) -> list[str]:
    notes = ["Within an hour requests are taken to come as a Poisson process, and a balancer to split them by chance."]
    if traffic.requests is not None:
        notes.append(f"Of the log {traffic.requests:,} times were read, and nothing else.")
    if traffic.dispersion is not None and traffic.dispersion > BURSTY:
        notes.append(
            f"The log's requests come in bursts: their variance a second is {traffic.dispersion:.1f} times that of a "
            "Poisson process. Its busiest minute is sized for; raise --headroom, or hold the limit in a load test."
        )
    return notes


def _from_run(
    path: Path,
    rates: Rates,
    assumed: Assumptions,
    p99_ms: float,
    seed: int,
    *,
    provider: str | None,
    region: str | None,
    instance: str | None,
    models: tuple[str, ...],
    max_drop: float | None,
    prices_file: Path | str | None,
    only: set[str] | None,
) -> tuple[list[tuple[Way, Capacity, Option]], list[Refused], list[str], str | None, Mapping[str, Sequence[Offer]]]:
    from kcost.bench.store import RunStore
    from kcost.cost.deployment import options_of
    from kcost.cost.instances import offers_for
    from kcost.cost.option import Refused
    from kcost.cost.scaling import on_offers
    from kcost.cost.serving_ways import after_idle_note, serving_ways
    from kcost.cost.verdict import MAX_DROP, conclude, prices_for

    store = RunStore(path)
    loaded = store.load()
    book = prices(prices_file).checked()
    matched = prices_for(loaded, book, provider, region, instance)
    verdict = conclude(loaded, matched, store.read_outputs, max_drop=MAX_DROP if max_drop is None else max_drop)
    ways, left_out = serving_ways(loaded, verdict, models, assumed.hand_over_ms / 1e3)
    if not ways:
        reasons = [Refused(name=one.label, reason=one.reason) for one in left_out]
        return [], reasons, [], verdict.invalid or "each way that may be used was disturbed beyond the limits", {}
    if only:
        names = [way.name for way in ways]
        unknown = sorted(only - set(names))
        if unknown:
            raise InputError(
                "An option of a scenario names a way of the run that may be served.",
                received=", ".join(map(repr, unknown)),
                remedy=f"One of {', '.join(names)}.",
            )
        ways = [way for way in ways if way.name in only]
    offers = {
        way.name: offers_for(
            way.environment, book, provider=provider, region=region, instance=instance, peak_bytes=way.peak_bytes
        )
        for way in ways
    }
    ways = on_offers(ways, offers, assumed.scaling_spread)
    options, capacities, refused = options_of(ways, offers, rates, assumed, p99_ms, seed)
    by_name = {way.name: way for way in ways}
    refused = [*refused, *(Refused(name=one.label, reason=one.reason) for one in left_out)]
    notes = sorted({match.why for match in matched.values()})
    if (idle := after_idle_note(ways)) is not None:
        notes.append(idle)
    return [(by_name[o.name], capacities[o.name], o) for o in options], refused, notes, verdict.invalid, offers


def _electricity(grams: float | None) -> dict[str, Any]:
    if grams is None:
        return {}
    return {"g_co2e_per_kwh": grams, "grid_source": f"{grams:g} g a kWh, as the scenario says"}


def _named(
    chosen: list[tuple[Way, Capacity, Option]], scenario: CostScenario, assumed: Assumptions
) -> list[tuple[Way, Capacity, Option]]:
    """The ways that a scenario names, under the names that it gives them, with what they cost once."""
    known = {option.name: (way, capacity, option) for way, capacity, option in chosen}
    named = []
    for entry in scenario.options:
        if entry.way is None or entry.way not in known:  # those that cannot hold the limit are told as refused
            continue
        way, capacity, option = known[entry.way]
        update: dict[str, Any] = {
            "name": entry.name,
            "is_plain": option.is_plain or entry.plain,
            "one_off": entry.one_off(0.0 if option.is_plain or entry.plain else assumed.work_hours),
            "watts_per_instance": entry.watts_per_instance,
            "usd_per_kwh": entry.usd_per_kwh,
            **_electricity(entry.g_co2e_per_kwh),
        }
        named.append((way, capacity, option.model_copy(update=update)))
    return named
