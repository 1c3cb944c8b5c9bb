"""A model card whose numbers can be held against their evidence: Markdown, with the metadata that Hugging Face reads.

What kcost writes stands in blocks between comments. What a person writes stands outside of them, and is left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from kcost.core.artifact import Artifact
from kcost.risk.figures import Figure
from kcost.risk.report import RiskReport

BEGIN, END = "<!-- kcost:begin {name} -->", "<!-- kcost:end {name} -->"
TO_BE_WRITTEN = "*To be written by a person: kcost has no evidence for it.*"
REST_TO_BE_WRITTEN = "*The rest is to be written by a person.*"

_BLOCK = re.compile(r"<!-- kcost:begin (?P<name>\S+) -->\n(?P<text>.*?)<!-- kcost:end (?P=name) -->", re.DOTALL)
_FRONT = re.compile(r"\A---\n(?P<text>.*?)\n---\n", re.DOTALL)
_COMMENT = re.compile(r"<!-- kcost:(?:begin|end) \S+ -->\n?")
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
    """The parts of a card that kcost writes, and where a person writes.

    Attributes:
        front: metadata at the top; None for a page without.
        blocks: text by the name of each block.
        by_a_person: places where a person writes, as Markdown, by the name of the block that they follow.
    """

    front: str | None
    blocks: dict[str, str]
    by_a_person: dict[str, str]

    @property
    def text(self) -> str:
        """The whole card, with what a person is to write."""
        parts = [] if self.front is None else [f"---\n{self.front}\n---\n"]
        for name, text in self.blocks.items():
            parts.append(f"{BEGIN.format(name=name)}\n{text}{END.format(name=name)}\n")
            if name in self.by_a_person:
                parts.append(self.by_a_person[name])
        return "\n".join(parts)


def without_comments(text: str) -> str:
    """A card without its metadata and the comments that its blocks stand between: what a reader is to see."""
    return _COMMENT.sub("", _FRONT.sub("", text, count=1))


def render_card(report: RiskReport, artifact: Artifact | None) -> Card:
    """The card of a report.

    Args:
        artifact: of the model, for how it was made; None for a bare file.
    """
    return Card(
        front=_front(report, artifact),
        blocks={
            "details": _details(report, artifact),
            "evaluation": "## Evaluation\n\n" + table_of(*figures_by_topic(report).values()),
            "limitations": "## Limitations\n\n" + "".join(_limitations(report)) + "\n",
            "gates": "## Gates\n\n" + gates_of(report),
            "evidence": _evidence(report),
        },
        by_a_person={
            "details": _places("Intended use", "Out-of-scope use"),
            "limitations": _places("Ethical considerations", "Recommendations"),
        },
    )


def _places(*headings: str) -> str:
    return "\n".join(f"## {heading}\n\n{TO_BE_WRITTEN}\n" for heading in headings)


def differences(card: str, expected: Card) -> list[str]:
    """What in a card is not as its evidence has it: a line for each, empty where all is.

    Args:
        card: the text of the file.
        expected: what the evidence gives now.
    """
    front = None if expected.front is None else _FRONT.match(card)
    blocks = [(m["name"], m["text"]) for m in _BLOCK.finditer(card)]
    parts = dict(blocks)
    lines = [] if front or expected.front is None else ["the metadata at the top are missing"]
    lines += [f"the block {name!r} stands there twice" for name in parts if sum(n == name for n, _ in blocks) > 1]
    if front and expected.front is not None:
        lines += differing("metadata", front["text"], expected.front)
    for name, text in expected.blocks.items():
        if name not in parts:
            lines.append(f"the block {name!r} is missing, or one of its comments was changed")
            continue
        lines += differing(name, parts[name], text)
    unknown = sorted(set(parts) - set(expected.blocks))
    return lines + [f"the block {name!r} is none of kcost's" for name in unknown]


def differing(name: str, card: str, expected: str) -> Iterator[str]:
    """Lines of a text that are not as they are expected, with where they stand."""
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
    lines = [
        f"# {report.model}",
        "",
        "## Model details",
        "",
        f"- answers: {report.kind}, a label for each of its {report.unit}",
        f"- file: SHA-256 {report.evidence.model_sha256}",
        *made_by(artifact),
        "",
        "## Data",
        "",
        *data_lines(report),
    ]
    return "\n".join(lines) + "\n\n"


def made_by(artifact: Artifact | None) -> list[str]:
    """How large a model is, and how it was made."""
    if artifact is None:
        return []
    steps = ", then ".join(f"{s.kind} on {s.backend} {s.backend_version}" for s in artifact.steps)
    size = "unknown" if artifact.parameters is None else f"{artifact.parameters:,}"
    return [f"- parameters: {size}", *([f"- made by: {steps}, at {artifact.created_at}"] if steps else [])]


def data_lines(report: RiskReport) -> list[str]:
    """Where the data come from, and each split."""
    dataset = report.evidence.dataset
    lines = [f"- {dataset.name}: {dataset.source}; licence: {dataset.licence}"]
    lines += [f"- {split}: {s.count:,} examples, SHA-256 {s.sha256}" for split, s in dataset.splits.items()]
    lines += [f"- {note}" for note in dataset.notes]
    if dataset.synthetic:
        lines.append("- **synthetic**: scores on it say that a pipeline works")
    return lines


class Row(NamedTuple):
    """A figure of a card, with where it stands in risk.json and the file that it was taken from."""

    name: str
    figure: Figure
    place: str
    sha256: str


def figures_by_topic(report: RiskReport) -> dict[str, list[Row]]:
    """Every figure that a card shows, by what it is about."""
    own = report.evidence.predictions_sha256
    score = [Row(f"{s.score.name}, {s.split}", s.score, f"scores/{i}/score", own) for i, s in enumerate(report.scores)]
    after = report.calibration_at_temperature.error
    score += [
        Row("train less test", report.gap, "gap", own),
        Row("calibration error, test", report.calibration.error, "calibration/error", own),
        Row(
            f"the same at the temperature {report.temperature.value:.4g}",
            after,
            "calibration_at_temperature/error",
            own,
        ),
        Row("log loss, test", report.calibration.log_loss, "calibration/log_loss", own),
        Row("Brier score, test", report.calibration.brier, "calibration/brier", own),
    ]
    groups = [
        Row(f"{part.score.name}, {part.name}", part.score, f"slices/table/{i}/score", own)
        for i, part in enumerate(report.slices.table)
    ]
    groups += [
        Row(
            f"{apart.measure}, {apart.largest_in} less {apart.least_in} ({apart.column})",
            apart.difference,
            f"disparities/{i}/difference",
            own,
        )
        for i, apart in enumerate(report.disparities)
    ]
    topics: dict[str, list[Row]] = {"score": score, "groups": groups, "changes": [], "attacks": []}
    tried = report.robustness
    for i, one in enumerate(() if tried is None else tried.conditions):
        assert tried is not None
        name, place = f"{one.score.name} under {one.name}", f"robustness/conditions/{i}"
        both = [
            Row(name, one.score, f"{place}/score", tried.predictions_sha256),
            Row(f"{name}, lower by", one.drop, f"{place}/drop", tried.predictions_sha256),
        ]
        topics["attacks" if one.attack else "changes"] += both
    ood = report.out_of_distribution
    topics["ood"] = []
    for i, detection in enumerate(() if ood is None else ood.detections):
        assert ood is not None
        name, place = f"of {ood.other.name} by {detection.by}", f"out_of_distribution/detections/{i}"
        topics["ood"] += [
            Row(f"AUROC {name}", detection.auroc, f"{place}/auroc", ood.scores_sha256),
            Row(
                f"share {name} let through where 95% of test are",
                detection.let_through,
                f"{place}/let_through",
                ood.scores_sha256,
            ),
        ]
    seeds = report.seeds
    topics["seeds"] = []
    if seeds is not None:
        topics["seeds"] = [
            Row(f"{seeds.scores[0].score.name}, mean over seeds", seeds.mean, "seeds/mean", own),
            Row("deviation between seeds", seeds.deviation, "seeds/deviation", own),
            Row("the mean, and where one more training lies", seeds.another, "seeds/another", own),
            *(
                Row(f"{one.score.name} of {one.model}", one.score, f"seeds/scores/{i}/score", one.predictions_sha256)
                for i, one in enumerate(seeds.scores)
            ),
        ]
    topics["flips"] = []
    if report.flips is not None:
        topics["flips"] = [Row(f"drop from {report.flips.against}", report.flips.drop, "flips/drop", own)]
    topics["loss"] = []
    if report.loss is not None:
        topics["loss"] = [Row("USD of errors in a million examples", report.loss, "loss", own)]
    return topics


def table_of(*parts: list[Row]) -> str:
    """Figures as a Markdown table, each with its evidence."""
    lines = ["| figure | value | 95% interval | rests on | evidence |\n|---|---|---|---|---|\n"]
    for row in (row for part in parts for row in part):
        figure, plain = row.figure, row.name.replace("|", "\\|")
        interval = f"{figure.low:.6g} to {figure.high:.6g}"
        lines.append(
            f"| {plain} | {figure.value:.6g} | {interval} | {figure.count:,} {figure.unit} | "
            f"risk.json#/{row.place} of {row.sha256[:_HASH]} |\n"
        )
    return "".join(lines) + "\n"


def _limitations(report: RiskReport) -> Iterator[str]:
    searched = report.slices.search
    yield f"- {searched.looked_at:,} slices of one or two columns were searched for more errors than elsewhere\n"
    for one in searched.slices:
        yield (
            f"- wrong more often in {one.name}: {one.rate:.4g} of {one.examples:,}, elsewhere {one.rate_elsewhere:.4g} "
            f"(p {one.p_value:.2g} after Holm's correction)\n"
        )
    yield from data_checks(report)
    if report.robustness is not None and report.robustness.not_attacked_because is not None:
        yield f"- {report.robustness.not_attacked_because}\n"
    if report.out_of_distribution is not None and report.out_of_distribution.no_energy_because is not None:
        yield f"- no energy of examples: {report.out_of_distribution.no_energy_because}\n"
    if report.seeds is not None:
        least = report.seeds.smallest_difference
        yield f"- two single trainings that differ by less than {least:.4g} may differ by their seeds alone (95%)\n"


def data_checks(report: RiskReport) -> Iterator[str]:
    """What was counted in the data."""
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
    learning = report.confident_learning
    if learning is not None:
        yield f"- cleanlab {learning.version} takes {learning.issues:,} of {learning.examples:,} of them for wrong\n"


def gates_of(report: RiskReport) -> str:
    """Each limit and its answer, as a Markdown table."""
    if not report.verdicts:
        return "No limit was set.\n\n"
    lines = ["| gate | limit | answer |\n|---|---|---|\n"]
    for one in report.verdicts:
        name = one.gate if one.slice is None else f"{one.gate} ({one.slice})"
        lines.append(f"| {name} | {one.limit} | {one.sentence} |\n")
    return "".join(lines) + "\n"


def _evidence(report: RiskReport) -> str:
    return "## Evidence\n\n" + "".join(evidence_lines(report)) + "\n"


def evidence_lines(report: RiskReport) -> Iterator[str]:
    """The files that figures were taken from, with their hashes, and what makes them again."""
    about = report.evidence
    yield f"- predictions: {about.predictions_file}, SHA-256 {about.predictions_sha256}, on {about.backend}\n"
    if report.robustness is not None:
        tried = report.robustness
        yield f"- under changes: {tried.predictions_file}, SHA-256 {tried.predictions_sha256}\n"
    if report.out_of_distribution is not None:
        ood = report.out_of_distribution
        yield (f"- against {ood.other.name} ({ood.other.source}): {ood.scores_file}, SHA-256 {ood.scores_sha256}\n")
    for one in () if report.seeds is None else report.seeds.scores[1:]:
        yield f"- {one.model}: predictions with SHA-256 {one.predictions_sha256}\n"
    yield f"- made again by: `{about.command}`, then `kcost card verify`\n"
