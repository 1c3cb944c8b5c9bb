from __future__ import annotations

from kcost.worker.idle import LOOK_S, MAX_LOOKS, until_idle


class Process:
    """A process whose threads spin for some looks."""

    def __init__(self, spinning_looks: int) -> None:
        self.spinning_looks = spinning_looks
        self.cpu_s = 0.0
        self.looks = 0

    def process_time(self) -> float:
        return self.cpu_s

    def sleep(self, seconds: float) -> None:
        assert seconds == LOOK_S
        self.looks += 1
        self.cpu_s += seconds if self.looks <= self.spinning_looks else 0.0001 * seconds


def test_it_waits_as_long_as_threads_spin() -> None:
    for spinning in (0, 3):
        process = Process(spinning)
        until_idle(process.process_time, process.sleep)
        assert process.looks == spinning + 1


def test_threads_that_never_sleep_hold_nothing_up() -> None:
    process = Process(10**6)
    until_idle(process.process_time, process.sleep)
    assert process.looks == MAX_LOOKS


def test_a_process_that_does_nothing_is_idle() -> None:
    until_idle()
