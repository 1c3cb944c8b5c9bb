"""What tells one environment from another."""

from __future__ import annotations

import pytest

from testing.runs import environment


@pytest.mark.parametrize(("quota_cores", "is_another"), [(None, False), (2.0, False), (8.0, False), (1.5, True)])
def test_a_quota_is_of_the_environment_where_it_is_less_than_the_cores(
    quota_cores: float | None, is_another: bool
) -> None:
    """Older files tell of none: what holds no thread back is the environment that it was."""
    before, now = environment(cores=2), environment(cores=2, cpu_quota_cores=quota_cores)
    assert (now.environment_id != before.environment_id) == is_another
    assert before.differences(now) == now.differences(before) == (("cpu_quota_cores",) if is_another else ())


def test_two_quotas_below_the_cores_are_two_environments() -> None:
    one, two = (environment(cores=4, cpu_quota_cores=cores) for cores in (1.0, 2.0))
    assert one.environment_id != two.environment_id
    assert (one.default_threads, two.default_threads) == (1, 2)
