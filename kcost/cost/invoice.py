"""What the requests of a server cost: the price of its machine, shared out over time, so that nothing is left over.

At each moment the machine costs the same. Where requests are under way, they share that moment equally; where there is
none, it is idle. The part of a request's share in which it was not with the model is overhead. So

    requests + overhead + idle = price of the machine x time

holds at any time, whatever comes. Idle time and overhead are shared out among requests as the rest is: in proportion.
Equal shares of a moment are processor sharing. They are found without a look at
every request: a clock that runs at 1/n where n requests are under way shows each of them its share as a difference.

Source: the virtual time of Demers, A., Keshav, S. and Shenker, S. (1989), Analysis and simulation of a fair queueing
algorithm, SIGCOMM; here with equal weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import Field

from kcost.core.schema import Record
from kcost.cost.forecast import Difference, Forecast, difference

NS_PER_HOUR: Final = 3600 * 10**9


class Line(Record):
    """The requests of one model, version and caller."""

    model: str
    version: str = Field(description="as the request named it: a version, a label, or `latest`")
    caller: str = Field(description="value of the header of choice; empty where there is none")
    requests: int
    failed: int = Field(description="of these, not answered with 200; they cost what the others do")
    seconds: float = Field(description="of the machine's time")
    usd: float
    usd_per_million: float
    usd_per_million_with_idle: float = Field(
        default=0.0,
        description="with its part of idle time and overhead: of all lines together the price of the machine",
    )
    forecast: Difference | None = Field(default=None, description="how that differs from what was forecast")


class Invoice(Record):
    """What a machine cost from its first moment on, and what for."""

    usd_per_hour: float
    seconds: float
    total_usd: float = Field(description="price of the machine x time")
    requests_usd: float = Field(description="the sum of the lines, and of what is under way")
    overhead_usd: float = Field(description="requests were there, but not with the model")
    idle_usd: float = Field(description="no request was there")
    under_way: int = Field(description="requests that are not answered yet; their cost so far is in `requests_usd`")
    busy_share: float = Field(default=0.0, description="part of the time that requests pay for: no idle, no overhead")
    together: float = Field(default=0.0, description="requests under way at a time, where there was one")
    lines: tuple[Line, ...]


class _Account:
    def __init__(self) -> None:
        self.requests = 0
        self.failed = 0
        self.share_ns = 0.0


class _UnderWay:
    """A request that is not answered yet."""

    def __init__(self, key: tuple[str, str, str], virtual_ns: float) -> None:
        self.key = key
        self.since = virtual_ns
        self.with_model = False
        self.share_ns = 0.0
        self.overhead_ns = 0.0


class Meter:
    """Shares the time of a machine out. Time is told to it, in nanoseconds, and never goes back.

    Args:
        forecasts: (model, version), or (model, "") for all other versions -> what was forecast.

    Examples:
        >>> meter = Meter(usd_per_hour=3.6, start_ns=0)
        >>> number = meter.arrive(("digits", "latest", ""), 10**9)
        >>> meter.to_model(number, 10**9)
        >>> meter.from_model(number, 3 * 10**9)
        2000000000.0
        >>> meter.leave(number, 3 * 10**9, failed=False)
        >>> bill = meter.invoice(4 * 10**9)
        >>> round(bill.requests_usd, 6), round(bill.idle_usd, 6), round(bill.total_usd, 6)
        (0.002, 0.002, 0.004)
    """

    def __init__(
        self, usd_per_hour: float, start_ns: int, forecasts: Mapping[tuple[str, str], Forecast] | None = None
    ) -> None:
        self._forecasts = forecasts or {}
        self._usd_per_hour = usd_per_hour
        self._start_ns = start_ns
        self._last_ns = start_ns
        self._idle_ns = 0
        self._request_ns = 0
        self._overhead_ns = 0.0
        self._virtual_ns = 0.0
        self._number = 0
        self._under_way: dict[int, _UnderWay] = {}
        self._accounts: dict[tuple[str, str, str], _Account] = {}

    def arrive(self, key: tuple[str, str, str], now_ns: int) -> int:
        """A request of (model, version, caller) came; gives the number that it has from now on."""
        self._advance(now_ns)
        self._number += 1
        self._under_way[self._number] = _UnderWay(key, self._virtual_ns)
        return self._number

    def to_model(self, number: int, now_ns: int) -> None:
        """The request was sent to the model."""
        self._advance(now_ns)
        self._settle(self._under_way[number])
        self._under_way[number].with_model = True

    def from_model(self, number: int, now_ns: int) -> float:
        """The model's answer is there, or will not come; gives the request's nanoseconds of the machine so far."""
        self._advance(now_ns)
        self._settle(self._under_way[number])
        self._under_way[number].with_model = False
        return self._under_way[number].share_ns

    def leave(self, number: int, now_ns: int, *, failed: bool) -> None:
        """The request was answered."""
        self._advance(now_ns)
        request = self._under_way.pop(number)
        self._settle(request)
        account = self._accounts.setdefault(request.key, _Account())
        account.requests += 1
        account.failed += failed
        account.share_ns += request.share_ns
        self._overhead_ns += request.overhead_ns

    def invoice(self, now_ns: int) -> Invoice:
        """The bill so far."""
        self._advance(now_ns)
        for request in self._under_way.values():
            self._settle(request)
        open_ns = sum(request.share_ns for request in self._under_way.values())
        overhead_ns = self._overhead_ns + sum(request.overhead_ns for request in self._under_way.values())
        requests_ns = open_ns + sum(account.share_ns for account in self._accounts.values())
        passed_ns = now_ns - self._start_ns
        busy_share = requests_ns / passed_ns if passed_ns else 0.0
        together = self._request_ns / (passed_ns - self._idle_ns) if passed_ns > self._idle_ns else 0.0
        lines = (self._line(key, account, busy_share, together) for key, account in sorted(self._accounts.items()))
        return Invoice(
            usd_per_hour=self._usd_per_hour,
            seconds=passed_ns / 1e9,
            total_usd=self._usd(passed_ns),
            requests_usd=self._usd(requests_ns),
            overhead_usd=self._usd(overhead_ns),
            idle_usd=self._usd(self._idle_ns),
            under_way=len(self._under_way),
            busy_share=busy_share,
            together=together,
            lines=tuple(lines),
        )

    def _line(self, key: tuple[str, str, str], account: _Account, busy_share: float, together: float) -> Line:
        model, version, caller = key
        usd = self._usd(account.share_ns)
        usd_per_million = usd / account.requests * 1e6
        forecast = self._forecasts.get((model, version)) or self._forecasts.get((model, ""))
        beside = None
        if forecast is not None and account.share_ns and busy_share:
            beside = difference(
                forecast,
                usd_per_hour=self._usd_per_hour,
                machine_s=account.share_ns / 1e9 / account.requests,
                busy_share=busy_share,
                together=together,
            )
        return Line(
            model=model,
            version=version,
            caller=caller,
            requests=account.requests,
            failed=account.failed,
            seconds=account.share_ns / 1e9,
            usd=usd,
            usd_per_million=usd_per_million,
            usd_per_million_with_idle=usd_per_million / busy_share if busy_share else 0.0,
            forecast=beside,
        )

    def _usd(self, nanoseconds: float) -> float:
        return self._usd_per_hour * nanoseconds / NS_PER_HOUR

    def _advance(self, now_ns: int) -> None:
        passed_ns = now_ns - self._last_ns
        if passed_ns < 0:
            raise ValueError(f"Time does not go back. Received: {now_ns} after {self._last_ns}")
        self._last_ns = now_ns
        if self._under_way:
            self._virtual_ns += passed_ns / len(self._under_way)
            self._request_ns += passed_ns * len(self._under_way)
        else:
            self._idle_ns += passed_ns
            self._virtual_ns = 0.0  # nobody looks at it: so that it keeps its digits over months

    def _settle(self, request: _UnderWay) -> None:
        """Books the share of a request up to now as the model's or as overhead."""
        share_ns = self._virtual_ns - request.since
        request.since = self._virtual_ns
        if request.with_model:
            request.share_ns += share_ns
        else:
            request.overhead_ns += share_ns
