"""From the events of a profiler's trace to operations: nested events, and names of compiled instructions. No framework.

TensorFlow and JAX write the same kind of trace: lines, one a thread, of events that nest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kcost.core.profile import Operation

TENSORFLOW_EVENT = re.compile(r"(?P<node>[A-Za-z0-9.][\w./>-]*):(?P<type>_*[A-Za-z]\w*)")
"""How TensorFlow's executor names the event of a node: its name in the graph, and its type."""

_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?:\([^=]*?\)|\S+) (?P<opcode>[a-z][\w-]*)\(")
_COMPUTATION = re.compile(r"(?:ENTRY )?%?(?P<name>[\w.-]+) (?:\(.*\) -> .*)?\{$")
_CALLED = re.compile(r"(?:calls|to_apply)=%?(?P<name>[\w.-]+)")
_OP_NAME = re.compile(r'op_name="(?P<name>[^"]*)"')
_NUMBER = re.compile(r"(\.(\d+|clone))+$")
_PRODUCTS = ("dot", "convolution")


class Event(NamedTuple):
    """An operation in a trace, nanoseconds on one clock."""

    name: str
    place: str | None
    start_ns: float
    end_ns: float


class Instruction(NamedTuple):
    """An instruction of a compiled program."""

    products: tuple[str, ...]
    """dot and convolution, where the instruction is one or a fusion that holds one."""
    place: str | None
    """Where it comes from in the program as it was written."""


def operations(lines: Iterable[Sequence[Event]]) -> list[Operation]:
    """The events of each line, by name: how many there are, and the time in them but not in others on their line.

    The place is that with the most time among all places of a name.
    """
    calls: dict[str, int] = {}
    self_ns: dict[tuple[str, str | None], float] = {}
    for line in lines:
        for event, own_ns in _own_times(line):
            calls[event.name] = calls.get(event.name, 0) + 1
            key = (event.name, event.place)
            self_ns[key] = self_ns.get(key, 0.0) + own_ns
    by_name = []
    for name, count in calls.items():
        places = {place: ns for (of, place), ns in self_ns.items() if of == name}
        longest = max(places, key=lambda place: places[place])
        by_name.append(Operation(name=name, calls=count, self_ns=round(sum(places.values())), largest=longest))
    return by_name


def _own_times(line: Sequence[Event]) -> list[tuple[Event, float]]:
    """Each event with its duration less that of the events directly inside it."""
    ordered = sorted(line, key=lambda e: (e.start_ns, -e.end_ns))
    own = [e.end_ns - e.start_ns for e in ordered]
    around: list[int] = []
    for place, event in enumerate(ordered):
        while around and ordered[around[-1]].end_ns <= event.start_ns:
            around.pop()
        if around:
            outer = around[-1]
            own[outer] -= min(event.end_ns, ordered[outer].end_ns) - event.start_ns
        around.append(place)
    return [(event, max(0.0, ns)) for event, ns in zip(ordered, own, strict=True)]


def instructions(hlo: str) -> dict[str, Instruction]:
    """The instructions of an XLA program by name, from its text, those inside of fusions included."""
    opcodes: dict[str, list[str]] = {}
    lines: list[tuple[str, str, str]] = []
    computation = ""
    for text in hlo.splitlines():
        if (heading := _COMPUTATION.match(text)) is not None:
            computation = heading["name"]
        elif (instruction := _INSTRUCTION.match(text)) is not None:
            opcodes.setdefault(computation, []).append(instruction["opcode"])
            lines.append((instruction["name"], instruction["opcode"], text))
    described = {}
    for name, opcode, text in lines:
        called = _CALLED.search(text)
        inner = opcodes.get(called["name"], []) if called else []
        place = _OP_NAME.search(text)
        products = tuple(p for p in _PRODUCTS if p in (opcode, *inner))
        described[name] = Instruction(products, place["name"] if place else None)
    return described


def instruction_name(name: str, known: Instruction | None = None) -> str:
    """An instruction's name without its number, and with the products that a fusion holds."""
    bare = _NUMBER.sub("", name)
    missing = [p for p in known.products if p not in bare] if known else []
    return f"{bare} ({', '.join(missing)})" if missing else bare
