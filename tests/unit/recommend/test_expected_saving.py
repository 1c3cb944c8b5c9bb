"""What an untried way is expected to save: within what its bound allows, and less the more is known of others."""

from __future__ import annotations

from hypothesis import given, strategies as st

from kcost.recommend.expected_saving import Efficiencies, expected_saving, saving_of_kin

seen = st.builds(
    Efficiencies,
    st.lists(st.floats(1e-6, 1.5), max_size=12).map(tuple),
    st.integers(0, 12),
    most=st.floats(1e-6, 1),
    sibling=st.none() | st.floats(1e-6, 1),
)


@given(st.floats(1e-6, 3), seen)
def test_it_lies_between_nothing_and_what_the_bound_allows(bound: float, given: Efficiencies) -> None:
    saving = expected_saving(bound, given)
    assert 0 <= saving <= max(0.0, 1 - bound) + 1e-9


@given(st.floats(0.01, 0.9), seen)
def test_a_lower_bound_saves_no_less(bound: float, given: Efficiencies) -> None:
    assert expected_saving(0.9 * bound, given) >= expected_saving(bound, given)


def test_where_nothing_was_seen_the_bound_is_all_that_is_known() -> None:
    assert expected_saving(0.4, Efficiencies((), 0)) == 0.6


def test_a_converter_may_do_better_than_all_of_keras_until_one_was_measured() -> None:
    keras = (0.09, 0.1, 0.1)
    unknown = expected_saving(0.1, Efficiencies(keras, slow=0))
    known = expected_saving(0.1, Efficiencies((*keras, 0.1), slow=1))
    assert unknown > 0.5  # every efficiency between the worst one seen and 1 is as probable
    assert known < 0.75 * unknown


def test_efficiencies_that_spread_leave_more_to_expect() -> None:
    close, wide = Efficiencies((0.3, 0.3, 0.3), 9), Efficiencies((0.05, 0.3, 0.9), 9)
    assert expected_saving(0.6, wide) > expected_saving(0.6, close)


def test_a_sibling_tells_more_than_all_others() -> None:
    alone = Efficiencies((0.1, 0.2, 0.9), slow=0)
    far, near = (expected_saving(0.5, alone._replace(sibling=e)) for e in (0.2, 0.9))
    assert far < 0.01 < expected_saving(0.5, alone) < 0.3 < near


@given(st.floats(0.01, 1), seen)
def test_nothing_is_saved_where_the_highest_efficiency_does_not_reach(bound: float, given: Efficiencies) -> None:
    assert expected_saving(bound, given) <= expected_saving(bound, given._replace(most=1.0)) + 1e-9
    if any(e > 0 for e in given.values) or given.sibling is not None:
        assert expected_saving(max(bound, given.most), given) == 0


usd = st.floats(1, 1e6)


@given(usd, usd, st.floats(0, 1), st.floats(0, 1))
def test_kin_saves_no_more_than_the_bound_allows(best: float, kin: float, floor: float, bound: float) -> None:
    saving = saving_of_kin(best, kin, floor * best, bound * best)
    assert 0 <= saving <= 1 - max(bound, floor if kin >= floor * best else 0.0) + 1e-9


@given(usd, usd, st.floats(0, 1))
def test_the_dearer_its_kin_the_less_a_way_is_expected_to_save(best: float, kin: float, floor: float) -> None:
    smallest = floor * best
    assert saving_of_kin(best, 1.2 * kin, smallest, smallest) <= saving_of_kin(best, kin, smallest, smallest) + 1e-9


def test_a_way_whose_kin_is_the_best_may_be_better_still() -> None:
    assert saving_of_kin(100, 100, 0, 0) > 0.1
    assert saving_of_kin(100, 100, 90, 90) < 0.02  # nine tenths are the smallest bill, which no step lowers
    assert saving_of_kin(100, 200, 0, 0) < 0.01
