"""What `kcost probe` shows: the best rates first, then each number of threads, then what is missing."""

from __future__ import annotations

import statistics
from pathlib import Path

from rich.console import Console

from kcost.core.probe import Probe, ProbeAnswer
from kcost.core.units import significant
from kcost.report.tables import show_notices, titled_table


def show_probe(console: Console, probe: Probe, out: Path, *, everything: bool = False) -> None:
    """Rates of a probe, by threads."""

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    mark = " [simulated]" if any(t.answer.simulated for t in probe.by_threads) else ""
    rates = [p.flops_per_s for t in probe.by_threads for p in t.answer.products]
    moved = [m.bytes_per_s for t in probe.by_threads for m in t.answer.moves]
    best = f"{significant(max(rates) / 1e9)} GFLOP/s at most" if rates else "no product was measured"
    line(f"{probe.environment.cpu_model}, {probe.backend}: {best}, {_gb(max(moved, default=None))} GB/s at most{mark}")
    table = titled_table(
        "The fastest, by threads",
        *("threads", "float32\nGFLOP/s", "bfloat16\nGFLOP/s", "convolution\nGFLOP/s"),
        *("memory\nGB/s", "transfer\nGB/s", "call\nus"),
    )
    for each in probe.by_threads:
        answer = each.answer
        largest = max(answer.moves, key=lambda m: m.elements, default=None)  # smaller arrays lie in a cache
        call = "-" if not answer.call_ns else significant(statistics.median(answer.call_ns) / 1e3)
        table.add_row(
            str(each.threads),
            _best(answer, "float32"),
            _best(answer, "bfloat16"),
            _convolution(answer),
            _gb(None if largest is None else largest.bytes_per_s),
            _gb(max((t.bytes_per_s for t in answer.transfers), default=None)),
            call,
        )
    console.print(table)
    missing = [*probe.not_measured]
    missing += [f"{t.threads} threads, {reason}" for t in probe.by_threads for reason in t.answer.not_measured]
    show_notices(console, [f"not measured: {reason}" for reason in missing], everything=everything)
    line(f"written: {out}; --json prints the raw times, by size")


def _best(answer: ProbeAnswer, dtype: str) -> str:
    """The fastest product of a dtype, and its size."""
    mine = [p for p in answer.products if p.dtype == dtype]
    if not mine:
        return "-"
    best = max(mine, key=lambda p: p.flops_per_s)
    return f"{significant(best.flops_per_s / 1e9)} at {best.size}"


def _convolution(answer: ProbeAnswer) -> str:
    """The fastest convolution of float32."""
    rates = [c.flops / (max(1.0, statistics.median(c.ns)) * 1e-9) for c in answer.convolutions if c.dtype == "float32"]
    return significant(max(rates) / 1e9) if rates else "-"


def _gb(bytes_per_s: float | None) -> str:
    return "-" if bytes_per_s is None else significant(bytes_per_s / 1e9)
