"""A page with the headings of Annex IV of the EU AI Act: evidence where kcost has some, a place for a person elsewhere.

Source of the headings: Regulation (EU) 2024/1689, Annex IV, points 1 to 9, in kcost's own words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kcost.core.artifact import Artifact, Step
from kcost.risk.card import (
    REST_TO_BE_WRITTEN,
    TO_BE_WRITTEN,
    Card,
    Row,
    data_checks,
    data_lines,
    evidence_lines,
    figures_by_topic,
    gates_of,
    made_by,
    table_of,
)
from kcost.risk.report import RiskReport

_HEADINGS = {
    "1": "General description of the system",
    "1a": "Purpose, provider, version and earlier versions",
    "1b": "Hardware and software that it works with",
    "1c": "Versions of the software that it needs",
    "1d": "Forms in which it is offered",
    "1e": "Hardware that it is meant to run on",
    "1f": "Pictures of the product that it is a part of",
    "1g": "What the deployer's user interface is",
    "1h": "Instructions for use",
    "2": "Its parts, and how it was developed",
    "2a": "Methods and steps, and what was taken over from others",
    "2b": "Design: its logic, its choices, what it is optimised for",
    "2c": "Architecture, and what computing it took",
    "2d": "Data: where they come from, how they were chosen, labelled and cleaned",
    "2e": "Human oversight that it needs",
    "2f": "Changes that were planned beforehand",
    "2g": "How it was validated and tested, with measures, data and logs",
    "2h": "Security against attacks",
    "3": "Monitoring, functioning and control: what it can do, for whom less, and how it can be misled",
    "4": "Why the measures of performance fit this system",
    "5": "Risk management (Article 9)",
    "6": "Changes over its lifetime",
    "7": "Harmonised standards that were applied, or what stands in for them",
    "8": "EU declaration of conformity (Article 47)",
    "9": "Watching it on the market, with the plan for that (Article 72)",
}
"""Number and letter of each point -> its heading."""

_PARTS = ("1", "2")
"""Points that have letters below them, and no text of their own."""

_EVIDENCE_ENOUGH = frozenset({"1c"})
"""Points that a person need add nothing to, where kcost has evidence."""


def render_annex(report: RiskReport, artifact: Artifact | None) -> Card:
    """The page of a report.

    Args:
        artifact: of the model, for how it was made; None for a bare file, of which less is known.
    """
    evidence = _evidence(report, artifact)
    blocks = {
        "annex-iv": f"# {report.model}: technical documentation\n\n"
        "The headings are those of Annex IV of Regulation (EU) 2024/1689, the EU AI Act, in other words. kcost writes "
        "what it has evidence for. It judges no conformity, and a person decides whether the regulation applies.\n\n"
    }
    by_a_person = {}
    for point, heading in _HEADINGS.items():
        sign, number = ("##", f"{point}.") if point.isdecimal() else ("###", f"{point[:-1]}({point[-1]})")
        blocks[point] = f"{sign} {number} {heading}\n\n{evidence.get(point, '')}"
        if point not in _PARTS and not (point in _EVIDENCE_ENOUGH and point in evidence):
            by_a_person[point] = f"{REST_TO_BE_WRITTEN if point in evidence else TO_BE_WRITTEN}\n"
    blocks["evidence"] = "## Evidence\n\n" + "".join(evidence_lines(report)) + "\n"
    return Card(front=None, blocks=blocks, by_a_person=by_a_person)


def _evidence(report: RiskReport, artifact: Artifact | None) -> dict[str, str]:
    """What kcost knows for each point; points without evidence are left out."""
    figures = figures_by_topic(report)
    worst = [row for row in figures["groups"] if row.name.endswith(_worst_slice(report))]
    texts = {
        "1a": _lines([f"- model: {report.model}", f"- file: SHA-256 {report.evidence.model_sha256}"]),
        "1c": _lines(_software(artifact)),
        "2a": _lines(_steps(artifact)),
        "2b": _lines([f"- it answers: {report.kind}, a label for each of its {report.unit}", *made_by(artifact)[:1]]),
        "2c": _lines(_resources(artifact)),
        "2d": _lines([*data_lines(report), *(line.rstrip("\n") for line in data_checks(report))]),
        "2e": _lines(_abstention(report)),
        "2g": _table(figures, "score", "groups", "changes", "seeds"),
        "2h": _table(figures, "attacks"),
        "3": _lines(_inputs(artifact)) + (table_of(worst) if worst else "") + _table(figures, "ood"),
        "5": "Limits that were set, and what became of them:\n\n" + gates_of(report) if report.verdicts else "",
        "6": _table(figures, "flips"),
    }
    return {point: text for point, text in texts.items() if text}


def _worst_slice(report: RiskReport) -> str:
    worst = report.slices.worst
    return "\n" if worst is None else f", {worst.name}"  # no name ends in a line's end


def _table(figures: dict[str, list[Row]], *topics: str) -> str:
    rows = [row for topic in topics for row in figures[topic]]
    return table_of(rows) if rows else ""


def _lines(lines: Iterable[str]) -> str:
    text = "\n".join(lines)
    return f"{text}\n\n" if text else ""


def _software(artifact: Artifact | None) -> list[str]:
    steps = () if artifact is None else artifact.steps
    return list(dict.fromkeys(f"- {s.backend} {s.backend_version}, which it was made with" for s in steps))


def _steps(artifact: Artifact | None) -> list[str]:
    return [] if artifact is None else [f"- {step.kind}: {_settings(step)}" for step in artifact.steps]


def _settings(step: Step) -> str:
    given = [f"{name} {value}" for name, value in step.settings.items() if value is not None]
    return ", ".join(given) or "no settings"


def _resources(artifact: Artifact | None) -> list[str]:
    if artifact is None:
        return []
    lines = made_by(artifact)[:1]
    for step in artifact.steps:
        if step.cost is not None:
            cost = step.cost
            energy = (
                "energy not measured" if cost.energy_wh is None else f"{cost.energy_wh:.4g} Wh ({cost.energy_basis})"
            )
            lines.append(f"- {step.kind}: {cost.wall_s:.4g} s, {energy}, {cost.labelled_examples:,} labelled examples")
    return lines


def _inputs(artifact: Artifact | None) -> list[str]:
    if artifact is None:
        return []
    lines = [f"- input {t.name}: {t.dtype} of shape {_shape(t.shape)}" for t in artifact.inputs]
    return lines if artifact.pixels is None else [*lines, f"- {artifact.pixels}"]


def _shape(shape: tuple[int | None, ...]) -> str:
    return " x ".join("any" if size is None else str(size) for size in shape)


def _abstention(report: RiskReport) -> Iterator[str]:
    wanted = report.coverage.abstention
    if wanted is None:
        return
    if wanted.threshold is None or wanted.coverage is None or wanted.error is None:
        yield f"- no confidence is known from which on the error is at most {wanted.target_error:g}"
        return
    answered, wrong = wanted.coverage, wanted.error
    yield (
        f"- below a confidence of {wanted.threshold:.4g} a person is to answer: {1 - answered.value:.4g} of test "
        f"(95%: {1 - answered.high:.4g} to {1 - answered.low:.4g}); of the others {wrong.value:.4g} are wrong (95%: "
        f"{wrong.low:.4g} to {wrong.high:.4g})"
    )
