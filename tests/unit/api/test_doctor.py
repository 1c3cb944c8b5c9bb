"""What `kcost doctor` says of a container's share of the processors' time."""

from __future__ import annotations

import pytest

from kcost.api import doctor
from testing.runs import environment


def findings(monkeypatch: pytest.MonkeyPatch, **machine: object) -> dict[str, doctor.Finding]:
    here = environment(**machine)
    monkeypatch.setattr(doctor.environment, "collect", lambda: here)
    return {finding.subject: finding for finding in doctor.examine(devices=False).findings}


def test_a_quota_below_the_cores_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = findings(monkeypatch, cores=64, cpu_quota_cores=1.5)["CPU quota"]
    assert finding.state == "warning"
    assert "1.5 of the 64 cores" in finding.detail
    assert "measures and serves with 1 unless --threads" in finding.detail


def test_a_quota_of_all_cores_holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings(monkeypatch, cores=2, cpu_quota_cores=2.0)["CPU quota"].state == "works"


def test_without_a_quota_nothing_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CPU quota" not in findings(monkeypatch, cores=64)
