"""Where the minutes go: what the schedule asks for, and what comes of it on candidates whose truth is known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from kcost.recommend.schedule import NEAR, RUNGS, Arm, Standing, again, contenders, leader, next_wave, survivors
from kcost.recommend.simulate import case, run, together_s

PLAIN = Arm("plain", 2, first=True, is_plain=True)
GRAPH = Arm("graph", 2, first=True)
XLA = Arm("xla", 4)
ONNX = Arm("onnx", 40, costly=True, bound_usd=50)
ONE_THREAD = Arm("graph, 1 thread", 2, after="graph")
ARMS = (PLAIN, GRAPH, XLA, ONNX, ONE_THREAD)


def known(rounds: int = 12, **usd: float) -> dict[str, Standing]:
    return {name: Standing(0.99 * value, value, 1.01 * value, rounds) for name, value in usd.items()}


def test_the_first_wave_holds_what_is_ready_at_once() -> None:
    wave, skipped = next_wave(ARMS, {}, (), 600)
    assert wave is not None
    assert (wave.kind, wave.names, skipped) == ("first", ("plain", "graph"), ())


def test_then_all_that_is_cheap_is_screened_beside_the_best_and_plain_keras() -> None:
    wave, _ = next_wave(ARMS, known(3, plain=100, graph=80), (), 600)
    assert wave is not None
    assert (wave.kind, wave.names) == ("screen", ("xla", "graph", "plain"))


def test_what_is_screened_is_measured_at_one_batch_size_and_at_all_where_it_can_still_win() -> None:
    wave, _ = next_wave(ARMS, known(3, plain=100, graph=80), (), 600)
    assert wave is not None
    assert wave.narrow
    far = known(6, plain=100, graph=80, xla=110)
    close = known(6, plain=100, graph=80, xla=95)  # at its best batch size it may cost a fifth less
    far["xla"], close["xla"] = far["xla"]._replace(narrow=True), close["xla"]._replace(narrow=True)
    wave, _ = next_wave(ARMS, close, (), 600)
    assert wave is not None
    assert (wave.kind, wave.names, wave.narrow) == ("widen", ("xla", "graph", "plain"), False)
    wave, _ = next_wave(ARMS, far, (), 600)
    assert wave is not None
    assert wave.kind == "try"


def test_one_that_holds_no_limit_at_a_batch_size_may_hold_it_at_another() -> None:
    nowhere = Standing(math.inf, math.inf, math.inf, 6)
    assert contenders({**known(plain=100), "xla": nowhere}) == ("plain",)
    assert contenders({**known(plain=100), "xla": nowhere._replace(narrow=True)}) == ("plain", "xla")


def test_a_conversion_is_tried_for_what_it_is_expected_to_save() -> None:
    arms = tuple(a._replace(bound_usd=b) for a, b in ((PLAIN, 50), (GRAPH, 40), (ONNX, 74)))
    standings = known(48, plain=100, graph=80)  # each came to half of its bound; onnx would need 92% to save a cent
    wave, skipped = next_wave(arms, standings, (), 600)
    assert wave is None
    assert "is expected to save 0.6% of the best so far, less than 5%: --thorough" in skipped[0].reason
    wave, _ = next_wave(arms, standings, (), 600, worth=0)
    assert wave is not None
    assert wave.names[0] == "onnx"


def test_a_variant_is_tried_only_where_what_it_varies_can_still_win() -> None:
    wave, _ = next_wave(ARMS, known(6, plain=100, graph=80, xla=90), ("onnx",), 600)
    assert wave is not None
    assert (wave.kind, wave.names[0]) == ("variants", "graph, 1 thread")
    wave, skipped = next_wave(ARMS, known(6, plain=100, graph=80, xla=70), (), 600)
    assert wave is not None
    assert wave.names[0] == "onnx"
    assert [s.name for s in skipped] == ["graph, 1 thread"]
    assert "out of the running" in skipped[0].reason


def test_a_variant_waits_for_the_ways_that_may_beat_what_it_varies() -> None:
    wave, _ = next_wave(ARMS, known(6, plain=100, graph=80, xla=90), (), 600)
    assert wave is not None
    assert (wave.kind, wave.names[0]) == ("try", "onnx")
    wave, skipped = next_wave(ARMS, known(6, plain=100, graph=80, xla=90, onnx=52), (), 600)
    assert wave is not None
    assert wave.kind == "final"
    assert [s.name for s in skipped] == ["graph, 1 thread"]


def test_a_variant_of_what_is_converted_already_is_slow_no_more() -> None:
    converted = ONNX._replace(kind="onnx", conversion="onnx float32")
    variant = converted._replace(name="onnx, 1 thread", after="onnx", bound_usd=56)
    arms = (PLAIN, GRAPH, XLA, converted, variant)
    wave, _ = next_wave(arms, known(6, plain=100, graph=80, xla=90, onnx=60), (), 600)
    assert wave is not None
    assert (wave.kind, wave.names[0]) == ("variants", "onnx, 1 thread")


def slow(name: str, bound_usd: float, precision: str = "float32", seconds: float = 40) -> Arm:
    return Arm(name, seconds, kind=name.split()[0], precision=precision, costly=True, bound_usd=bound_usd)


def test_slow_ways_are_got_ready_beside_each_other_one_of_a_kind() -> None:
    arms = (PLAIN._replace(bound_usd=5), slow("onnx", 5), slow("onnx int8", 5, "int8"), slow("compile", 5, seconds=60))
    wave, _ = next_wave(arms, known(48, plain=100), (), 600)
    assert wave is not None
    assert wave.names == ("onnx", "compile", "plain")
    wave, _ = next_wave(arms, known(48, plain=100), (), 600, at_once=1)
    assert wave is not None
    assert wave.names == ("onnx", "plain")


def test_a_slow_way_waits_where_the_one_before_it_may_make_it_needless() -> None:
    arms = (PLAIN._replace(bound_usd=60), slow("onnx", 60), slow("compile", 85, seconds=60))
    wave, _ = next_wave(arms, known(48, plain=100), (), 600, worth=0.005)
    assert wave is not None
    assert wave.names == ("onnx", "plain")
    wave, _ = next_wave(arms, known(48, plain=100), ("onnx",), 600, worth=0.005)
    assert wave is not None
    assert wave.names == ("compile", "plain")


def of_graph(name: str, bound_usd: float = 5, graph: str | None = "ONNX", seconds: float = 40) -> Arm:
    return slow(name, bound_usd, seconds=seconds)._replace(graph=graph)


def test_two_of_one_graph_wait_for_each_other_where_another_way_may_be_got_ready_meanwhile() -> None:
    plain = PLAIN._replace(bound_usd=5)
    arms = (plain, of_graph("onnx"), of_graph("openvino", seconds=42), slow("compile", 5, seconds=60))
    wave, _ = next_wave(arms, known(48, plain=100), (), 600)
    assert wave is not None
    assert wave.names == ("onnx", "compile", "plain")
    wave, _ = next_wave(arms[:3], known(48, plain=100), (), 600)
    assert wave is not None
    assert wave.names == ("onnx", "openvino", "plain")


@pytest.mark.parametrize(
    ("onnx_usd", "graph", "tried"),
    [
        (70, "ONNX", False),
        (42, "ONNX", True),  # about as cheap as the best: the other runtime may be cheaper
        (70, None, True),  # calls take the time: another runtime has calls of its own
        (math.inf, "ONNX", True),  # one that holds no limit tells nothing of how fast the graph is
    ],
)
def test_what_a_graph_costs_in_one_runtime_tells_what_it_costs_in_another(
    onnx_usd: float, graph: str | None, tried: bool
) -> None:
    arms = (PLAIN._replace(bound_usd=5), of_graph("onnx", 5, graph), of_graph("openvino", 5, graph), slow("compile", 5))
    measured = known(48, plain=100, compile=40, onnx=onnx_usd)
    wave, skipped = next_wave(arms, measured, (), 600, floor_usd=5)
    if tried:
        assert wave is not None
        assert wave.names[0] == "openvino"
    else:
        assert wave is None
        assert "is expected to save" in next(s.reason for s in skipped if s.name == "openvino")
        wave, _ = next_wave(arms, measured, (), 600, floor_usd=5, worth=0)
        assert wave is not None
        assert wave.names[0] == "openvino"


def test_a_graph_tells_nothing_of_another_precision_or_other_threads() -> None:
    plain, onnx, compiled = PLAIN._replace(bound_usd=5), of_graph("onnx"), slow("compile", 5)
    for other in (of_graph("openvino")._replace(precision="half"), of_graph("openvino")._replace(threads=1)):
        wave, _ = next_wave((plain, onnx, compiled, other), known(48, plain=100, compile=40, onnx=70), (), 600)
        assert wave is not None
        assert wave.names[0] == "openvino"


def test_fewer_threads_are_tried_where_they_may_save_a_little() -> None:
    graph = GRAPH._replace(kind="graph", bound_usd=40)
    for bound_usd, tried in ((40, True), (78, False)):  # half of the threads, half of the peak: twice the cost
        variant = ONE_THREAD._replace(kind="graph", threads=1, bound_usd=bound_usd)
        arms = (PLAIN._replace(bound_usd=40), graph, variant)
        for worth, is_tried in ((0.05, tried), (0.0, True)):
            wave, skipped = next_wave(arms, known(48, plain=200, graph=80), (), 600, worth=worth)
            assert (wave is not None) == is_tried
            assert [s.name for s in skipped] == ([] if is_tried else ["graph, 1 thread"])


def test_no_program_is_expected_to_gain_more_by_a_precision_than_its_bound_does() -> None:
    arms = (
        PLAIN._replace(bound_usd=20),
        slow("onnx", 20),
        slow("onnx int8", 20, "int8"),
        slow("onnx half", 10, "half"),
    )
    wave, skipped = next_wave(arms, known(48, plain=100, onnx=50), (), 600)
    assert wave is not None
    assert wave.names[0] == "onnx half"
    assert [s.name for s in skipped] == ["onnx int8"]  # onnx comes to 40% of its bound, and 50% would be needed


def test_what_a_program_gains_by_a_precision_is_held_against_the_same_threads() -> None:
    one_thread = slow("onnx, 1 thread", 38)._replace(kind="onnx", threads=1)
    arms = (PLAIN._replace(bound_usd=20), slow("onnx", 20), one_thread, slow("onnx half", 10, "half"))
    wave, _ = next_wave(arms, known(48, plain=100, onnx=40, **{"onnx, 1 thread": 190}), (), 600)
    assert wave is not None
    assert wave.names[0] == "onnx half"  # at half of its bound, as onnx: one thread came to a fifth


def test_a_precision_that_falls_short_of_its_peak_is_expected_to_do_so_again() -> None:
    eager = Arm("eager", 2, kind="eager", precision="float32", bound_usd=20)
    half = Arm("eager half", 2, kind="eager", precision="half", bound_usd=10)
    arms = (PLAIN._replace(bound_usd=20), eager, half, slow("compile half", 10, "half"))
    as_fast = known(48, plain=100, eager=100, **{"eager half": 50})
    no_faster = known(48, plain=100, eager=100, **{"eager half": 400})
    wave, _ = next_wave(arms, as_fast, (), 600)
    assert wave is not None
    assert wave.names[0] == "compile half"
    wave, skipped = next_wave(arms, no_faster, (), 600)
    assert wave is None
    assert "is expected to save" in skipped[0].reason


@pytest.mark.parametrize(
    ("usd", "floor", "seconds", "message"),
    [
        (40.0, 0.0, 600, "its bound, $50, is not below"),
        (80.0, 80.0, 600, "nothing can cost less"),
        (80.0, 0.0, 60, "40 s to get ready, with 60 s left"),
    ],
)
def test_what_takes_long_to_get_ready_is_skipped_with_the_reason(
    usd: float, floor: float, seconds: float, message: str
) -> None:
    standings = known(48, **{"plain": 100, "graph": usd, "xla": 90, "graph, 1 thread": 95})
    wave, skipped = next_wave(ARMS, standings, (), seconds, floor_usd=floor)
    assert wave is None
    assert message in next(s.reason for s in skipped if s.name == "onnx")


def test_what_failed_is_not_asked_for_again() -> None:
    wave, skipped = next_wave((PLAIN, ONNX), known(48, plain=100), ("onnx",), 600)
    assert (wave, skipped) == (None, ())


def test_without_time_nothing_is_measured_and_each_says_so() -> None:
    wave, skipped = next_wave(ARMS, known(3, plain=100), (), 0)
    assert wave is None
    assert {s.name: s.reason for s in skipped} == dict.fromkeys(
        ("graph", "xla", "onnx", "graph, 1 thread"), "the minutes were over"
    )


def test_the_last_rounds_go_to_those_that_are_not_told_apart() -> None:
    close = {"plain": Standing(98, 100, 102, 12), "graph": Standing(90, 98, 105, 12)}
    wave, _ = next_wave((PLAIN, GRAPH), close, (), 600)
    assert wave is not None
    assert (wave.kind, wave.names, wave.rounds) == ("final", ("graph", "plain"), 24)
    told_apart = {"plain": Standing(98, 100, 102, 12), "graph": Standing(79, 80, 81, 12)}
    assert next_wave((PLAIN, GRAPH), told_apart, (), 600)[0] is None


def test_plain_keras_is_measured_whole_in_the_end() -> None:
    """The saving is told against it at the batch sizes of the best."""
    cut = {"plain": Standing(198, 200, 202, 12, narrow=True), "graph": Standing(79, 80, 81, 12)}
    wave, _ = next_wave((PLAIN, GRAPH), cut, (), 600)
    assert wave is not None
    assert (wave.kind, wave.names, wave.narrow) == ("final", ("graph", "plain"), False)


standings = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.tuples(st.floats(1, 1e6), st.floats(0, 1), st.floats(1, 5)).map(
        lambda t: Standing(t[0] * t[1], t[0], t[0] * t[2], 3)
    ),
    min_size=1,
    max_size=12,
)


@given(standings)
def test_halving_keeps_the_best_what_is_near_and_at_most_half_of_the_rest(given: dict[str, Standing]) -> None:
    kept = survivors(given, list(given))
    best = leader(given)
    assert best in kept
    assert set(kept) <= set(contenders(given))
    near = {n for n, s in given.items() if s.value_usd <= NEAR * given[best].value_usd}
    assert near & set(contenders(given)) <= set(kept)
    assert len(set(kept) - near) <= math.ceil(len(given) / 2)


@given(standings, st.floats(1, 1e4))
def test_a_schedule_always_ends(given: dict[str, Standing], seconds: float) -> None:
    arms = [Arm(name, 5, costly=i % 2 == 1, bound_usd=s.value_usd / 2) for i, (name, s) in enumerate(given.items())]
    done: dict[str, Standing] = {}
    for _ in range(100):
        wave, _ = next_wave(arms, done, (), seconds)
        if wave is None:
            return
        for name in wave.names:
            rounds = max(wave.rounds, done[name].rounds + RUNGS[0] if name in done else 0)
            done[name] = given[name]._replace(rounds=rounds)
    pytest.fail("it asked for more than 100 waves")


def test_simulated_candidates_give_the_winner_of_measuring_everything_in_a_part_of_its_time() -> None:
    outcomes = [run(case(seed), minutes=20, seed=seed) for seed in range(60)]
    assert sum(o.loss <= 0.03 for o in outcomes) >= 57
    assert sorted(o.share_of_time for o in outcomes)[30] <= 0.25
    assert max(o.first_figures_s for o in outcomes) < 60


def test_no_schedule_that_finds_the_winner_needs_less_than_an_oracle() -> None:
    winners_found = 0
    for seed in range(40):
        truth = case(seed)
        outcome = run(truth, minutes=20, seed=seed)
        if outcome.loss == 0:
            winners_found += 1
            assert truth.oracle_s <= outcome.seconds
            assert truth.oracle_s < truth.exhaustive_s
    assert winners_found > 30


def test_what_is_got_ready_together_takes_longer_than_alone_and_less_than_one_after_the_other() -> None:
    assert together_s([20, 0]) == 20
    assert 20 < together_s([20, 15]) < 35
    assert together_s([20, 15]) < together_s([20, 15, 15]) < 50


def test_a_simulation_knows_of_the_smallest_bill_and_of_what_no_answers_could_allow() -> None:
    truth = case(0)
    cheapest = min(truth.usd, key=truth.least_usd)
    costly = [a.name for a in truth.arms if a.costly]
    assert run(truth, minutes=20).order
    assert run(truth._replace(floor_usd=0.999 * truth.least_usd(cheapest)), minutes=20).loss < 0.03
    without = run(truth._replace(untried=frozenset(costly), measured_s=1_000.0), minutes=20)
    assert without.order == ()
    assert without.exhaustive_s == 1_000


def test_the_simulation_can_fail() -> None:
    """With so little time that only the first wave fits, what is behind a conversion is often missed."""
    outcomes = [run(case(seed), minutes=0.7, seed=seed) for seed in range(60)]
    assert sum(o.loss <= 0.03 for o in outcomes) < 40


def test_what_may_win_and_was_disturbed_is_measured_once_more_beside_the_best_and_plain_keras() -> None:
    standings = known(12, plain=200, graph=80, xla=79, onnx=300)
    wave = again(ARMS, standings, ("graph", "onnx"), 600)  # onnx has lost, disturbed or not
    assert wave is not None
    assert (wave.kind, wave.names, wave.rounds) == ("again", ("graph", "xla", "plain"), 24)
    plain = again(ARMS, standings, ("plain",), 600)  # the saving is told against it
    assert plain is not None
    assert plain.names == ("plain", "xla")
    assert again(ARMS, standings, (), 600) is None
    assert again(ARMS, standings, ("graph",), 0) is None
    assert again(ARMS, {}, (), 600) is None
