"""A model card whose numbers can be held against their evidence: Markdown, with the metadata that Hugging Face reads.

What kcost writes stands in blocks between comments. What a person writes stands outside of them, and is left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from kcost.core.artifact import Artifact
from kcost.risk.figures import Figure
from kcost.risk.report import RiskReport

BEGIN, END = "<!-- kcost:begin {name} -->", "<!-- kcost:end {name} -->"
TO_BE_WRITTEN = "*To be written by a person: kcost has no evidence for it.*"

_BLOCK = re.compile(r"<!-- kcost:begin (?P<name>\S+) -->\n(?P<text>.*?)<!-- kcost:end (?P=name) -->", re.DOTALL)
_FRONT = re.compile(r"\A---\n(?P<text>.*?)\n---\n", re.DOTALL)
_TASKS = {
    "image-classification": "image-classification",
    "token-classification": "token-classification",
    "sequence-classification": "text-classification",
}
"""Task of an artifact -> what Hugging Face calls it."""
_HASH = 12
"""Digits of a hash that stand beside a number; the whole of it stands under Evidence."""


@dataclass(frozen=True, eq=False)
class Card:
    """The parts of a card that kcost writes: its metadata, and text by the name of each block."""

    front: str
    blocks: dict[str, str]

    @property
    def text(self) -> str:
        """The whole card, with what a person is to write."""
        parts = [f"---\n{self.front}\n---\n"]
        for name, text in self.blocks.items():
            parts.append(f"{BEGIN.format(name=name)}\n{text}{END.format(name=name)}\n")
            if name in _BY_A_PERSON:
                parts.append("".join(f"## {heading}\n\n{TO_BE_WRITTEN}\n\n" for heading in _BY_A_PERSON[name]))
        return "\n".join(parts)


_BY_A_PERSON = {
    "details": ("Intended use", "Out-of-scope use"),
    "limitations": ("Ethical considerations", "Recommendations"),
}


def render_card(report: RiskReport, artifact: Artifact | None) -> Card:
    """The card of a report.

    Args:
        artifact: of the model, for how it was made; None for a bare file.
    """
    return Card(
        front=_front(report, artifact),
        blocks={
            "details": _details(report, artifact),
            "evaluation": "".join(_evaluation(report)),
            "limitations": "".join(_limitations(report)),
            "gates": "".join(_gates(report)),
            "evidence": _evidence(report),
        },
    )


def differences(card: str, expected: Card) -> list[str]:
    """What in a card is not as its evidence has it: a line for each, empty where all is.

    Args:
        card: the text of the file.
        expected: what the evidence gives now.
    """
    front = _FRONT.match(card)
    blocks = [(m["name"], m["text"]) for m in _BLOCK.finditer(card)]
    parts = dict(blocks)
    lines = [] if front else ["the metadata at the top are missing"]
    lines += [f"the block {name!r} stands there twice" for name in parts if sum(n == name for n, _ in blocks) > 1]
    lines += _differing("metadata", front["text"] if front else expected.front, expected.front)
    for name, text in expected.blocks.items():
        if name not in parts:
            lines.append(f"the block {name!r} is missing, or one of its comments was changed")
            continue
        lines += _differing(name, parts[name], text)
    unknown = sorted(set(parts) - set(expected.blocks))
    return lines + [f"the block {name!r} is none of kcost's" for name in unknown]


def _differing(name: str, card: str, expected: str) -> Iterator[str]:
    ours, theirs = expected.splitlines(), card.splitlines()
    for i in range(max(len(ours), len(theirs))):
        line = theirs[i] if i < len(theirs) else "nothing"
        wanted = ours[i] if i < len(ours) else "nothing"
        if line != wanted:
            yield f"{name}, line {i + 1}: the card has {line!r}, the evidence {wanted!r}"


def _front(report: RiskReport, artifact: Artifact | None) -> str:
    test, task = report.test_score, None if artifact is None else _TASKS.get(artifact.task)
    dataset = report.evidence.dataset
    lines = [
        "library_name: keras",
        *([] if task is None else [f"pipeline_tag: {task}"]),
        "model-index:",
        f"- name: {json.dumps(report.model)}",
        "  results:",
        "  - task:",
        f"      type: {task or 'classification'}",
        "    dataset:",
        f"      name: {json.dumps(dataset.name)}",
        f"      type: {json.dumps(dataset.name)}",
        "      split: test",
        "    metrics:",
    ]
    for figure in (test, report.calibration.error):
        lines += [f"    - type: {figure.name}", f"      value: {figure.value:.6g}"]
    return "\n".join(lines)


def _details(report: RiskReport, artifact: Artifact | None) -> str:
    dataset = report.evidence.dataset
    lines = [
        f"# {report.model}",
        "",
        "## Model details",
        "",
        f"- answers: {report.kind}, a label for each of its {report.unit}",
        f"- file: SHA-256 {report.evidence.model_sha256}",
    ]
    if artifact is not None:
        made = ", then ".join(f"{s.kind} on {s.backend} {s.backend_version}" for s in artifact.steps)
        lines += ["- parameters: " + ("unknown" if artifact.parameters is None else f"{artifact.parameters:,}")]
        lines += [f"- made by: {made}, at {artifact.created_at}"] if made else []
    lines += ["", "## Data", "", f"- {dataset.name}: {dataset.source}; licence: {dataset.licence}"]
    lines += [f"- {split}: {s.count:,} examples, SHA-256 {s.sha256}" for split, s in dataset.splits.items()]
    lines += [f"- {note}" for note in dataset.notes]
    if dataset.synthetic:
        lines.append("- **synthetic**: scores on it say that a pipeline works")
    return "\n".join(lines) + "\n\n"


def _evaluation(report: RiskReport) -> Iterator[str]:
    yield "## Evaluation\n\n| figure | value | 95% interval | rests on | evidence |\n|---|---|---|---|---|\n"
    for i, one in enumerate(report.scores):
        yield _row(report, f"{one.score.name}, {one.split}", one.score, f"scores/{i}/score")
    yield _row(report, "train less test", report.gap, "gap")
    yield _row(report, "calibration error, test", report.calibration.error, "calibration/error")
    after = report.calibration_at_temperature.error
    name = f"the same at the temperature {report.temperature.value:.4g}"
    yield _row(report, name, after, "calibration_at_temperature/error")
    yield _row(report, "log loss, test", report.calibration.log_loss, "calibration/log_loss")
    yield _row(report, "Brier score, test", report.calibration.brier, "calibration/brier")
    for i, part in enumerate(report.slices.table):
        yield _row(report, f"{part.score.name}, {part.name}", part.score, f"slices/table/{i}/score")
    for i, apart in enumerate(report.disparities):
        name = f"{apart.measure}, {apart.largest_in} less {apart.least_in} ({apart.column})"
        yield _row(report, name, apart.difference, f"disparities/{i}/difference")
    if report.flips is not None:
        yield _row(report, f"drop from {report.flips.against}", report.flips.drop, "flips/drop")
    if report.loss is not None:
        yield _row(report, "USD of errors in a million examples", report.loss, "loss")
    yield "\n"


def _row(report: RiskReport, name: str, figure: Figure, place: str) -> str:
    evidence = f"risk.json#/{place} of predictions {report.evidence.predictions_sha256[:_HASH]}"
    interval = f"{figure.low:.6g} to {figure.high:.6g}"
    plain = name.replace("|", "\\|")
    return f"| {plain} | {figure.value:.6g} | {interval} | {figure.count:,} {figure.unit} | {evidence} |\n"


def _limitations(report: RiskReport) -> Iterator[str]:
    yield "## Limitations\n\n"
    searched = report.slices.search
    yield f"- {searched.looked_at:,} slices of one or two columns were searched for more errors than elsewhere\n"
    for one in searched.slices:
        yield (
            f"- wrong more often in {one.name}: {one.rate:.4g} of {one.examples:,}, elsewhere {one.rate_elsewhere:.4g} "
            f"(p {one.p_value:.2g} after Holm's correction)\n"
        )
    leaks, personal, noise = report.leakage, report.personal_data, report.label_noise
    if leaks is not None:
        yield f"- test examples in train: {leaks.exact:,} exactly, {leaks.near:,} nearly ({leaks.criterion})\n"
    if personal is not None:
        yield (
            f"- personal data in {personal.texts:,} texts: {personal.emails:,} e-mail addresses, {personal.phones:,} "
            f"telephone numbers, {personal.cards:,} card numbers, {personal.ibans:,} IBANs\n"
        )
    if noise is not None:
        yield (
            f"- labels of test that look wrong: {noise.share.value:.4g} (95%: {noise.share.low:.4g} to "
            f"{noise.share.high:.4g})\n"
        )
    yield "\n"


def _gates(report: RiskReport) -> Iterator[str]:
    yield "## Gates\n\n"
    if not report.verdicts:
        yield "No limit was set.\n\n"
        return
    yield "| gate | limit | answer |\n|---|---|---|\n"
    for one in report.verdicts:
        name = one.gate if one.slice is None else f"{one.gate} ({one.slice})"
        yield f"| {name} | {one.limit} | {one.sentence} |\n"
    yield "\n"


def _evidence(report: RiskReport) -> str:
    about = report.evidence
    return (
        "## Evidence\n\n"
        f"- predictions: {about.predictions_file}, SHA-256 {about.predictions_sha256}, on {about.backend}\n"
        f"- made again by: `{about.command}`, then `kcost card verify`\n\n"
    )
