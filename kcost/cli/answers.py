"""The short answers of the command line, one function a command. `terminal` shows whole runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from kcost.core.answer import Answers
from kcost.core.artifact import Artifact, Dataset, QualityReport, RunCost, Score, Step
from kcost.core.request import AttackReport, Evaluation
from kcost.core.score_drop import ScoreDrop
from kcost.core.units import format_bytes, format_cents, format_s, format_usd, significant
from kcost.cost.payoff import Payoff
from kcost.cost.price_rules import Price, PriceCheck
from kcost.cost.verdict import Verdict
from kcost.report.recommend_terminal import show_recommendation, show_words
from kcost.report.tables import ROWS, show_lines, show_more, show_notices, titled_table
from kcost.report.terminal import show_summary, show_verdict

if TYPE_CHECKING:
    from kcost.api.demo import DemoReport
    from kcost.api.doctor import DoctorReport
    from kcost.data import CatalogueEntry
    from kcost.ship.export_report import ExportReport
    from kcost.ship.huggingface import CheckpointReport

WIDEST_CONFUSION = 12
"""A confusion matrix with more classes than this is in --json alone: no terminal shows it whole. Others: --all."""

STATE_STYLE = {"works": "green", "warning": "yellow", "missing": "red"}
NOT_WORKING = {"missing": "missing", "warning": "to look at"}


def show_doctor(console: Console, report: DoctorReport) -> None:
    """What works here and what does not."""
    by_state = {state: [f.subject for f in report.findings if f.state == state] for state in STATE_STYLE}
    running = [b.backend for b in report.backends if b.problem is None]
    sentence = f"{', '.join(running)} can run here" if running else "no backend is installed here: see what to install"
    rest = [f"{len(by_state[state])} {what}" for state, what in NOT_WORKING.items() if by_state[state]]
    show_lines(console, ["; ".join((sentence, *rest)) + "."], style="bold")
    table = titled_table("What works here", "", "state", "")
    for finding in report.findings:
        table.add_row(finding.subject, f"[{STATE_STYLE[finding.state]}]{finding.state}[/]", escape(finding.detail))
    console.print(table)
    here = report.environment
    features = ", ".join(here.cpu_features) or "none that matter"
    packages = ", ".join(f"{name} {version}" for name, version in here.packages.items())
    show_lines(
        console,
        [
            f"{here.cpu_model}, {here.cores} cores, {format_bytes(here.memory_bytes)}, {here.os}",
            f"CPU features: {features}",
            f"accelerators: {'; '.join(here.accelerators) or 'none'}",
            f"packages: Python {here.python}, {packages}",
        ],
    )


def show_data_sets(console: Console, entries: Sequence[CatalogueEntry], *, everything: bool = False) -> None:
    """The data sets known by name, those that are here first."""
    here = sum(e.found_in is not None for e in entries)
    show_lines(console, [f"{len(entries)} data sets are known by name; {here} of them are here."], style="bold")
    entries = sorted(entries, key=lambda e: e.found_in is None)
    shown = entries if everything else entries[:ROWS]
    headings = ["name", "task", "size", "licence", "found in"]
    table = titled_table("Data sets", *headings, *(["source"] if everything else []))
    for e in shown:
        name = f"{e.name} (synthetic)" if e.synthetic else e.name
        size = format_bytes(e.size_bytes) if e.size_bytes else "-"
        fetch = f"not here: kcost data fetch {e.name}" if all(f.url for f in e.files) else "not here"
        texts = [name, e.task, size, e.licence, e.found_in or fetch]
        table.add_row(*map(escape, (*texts, *([e.source] if everything else []))))
    console.print(table)
    if not everything:
        left = f"{len(entries) - len(shown)} more, and sources," if len(entries) > len(shown) else "Sources,"
        show_lines(console, [f"{left} notes and checksums: --all"])
        return
    show_lines(console, [f"{e.name}: {note}" for e in entries for note in e.notes])
    files = ((e, file) for e in entries for file in e.files)
    show_lines(console, [f"{e.name} {f.path} {f.size_bytes} bytes, sha256 {f.sha256}" for e, f in files])


def score_text(score: Score) -> str:
    """A score with its interval and count."""
    interval = f"95%: {score.low:.4f} to {score.high:.4f}"
    output = "" if score.output is None else f"{score.output}: "
    return f"{output}{score.name} {score.value:.4f} ({interval}; {score.count} {score.unit} of {score.split})"


def cost_text(cost: RunCost) -> str:
    """What a step took, each figure with its basis."""
    energy = "energy" if cost.energy_wh is None else f"{significant(cost.energy_wh)} Wh"
    usd = "cost not known" if cost.usd is None else format_cents(cost.usd)
    return (
        f"took {format_s(cost.wall_s)}, {energy} ({cost.energy_basis}), {usd}, "
        f"{cost.labelled_examples:,} labelled examples. {cost.usd_basis}"
    )


def show_scores(console: Console, scores: Sequence[Score], of: str = "") -> None:
    """Scores, a line each, the first in bold; `of` says what they are of."""
    for i, score in enumerate(scores):
        show_lines(console, [f"{of}{score_text(score)}"], style=None if i else "bold")


def show_quality(console: Console, report: QualityReport, *, everything: bool = False) -> None:
    """The answers of a model by class, the worst first; and what it took for what, if asked."""
    table = titled_table(f"{report.unit} of {report.split} by class", "", "precision", "recall", "F1", "in truth")
    classes = list(report.classes.items())
    if not everything and len(classes) > ROWS:
        classes = sorted(classes, key=lambda named: named[1].f1)
    shown = classes if everything else classes[:ROWS]
    for name, counts in shown:
        table.add_row(
            escape(name), f"{counts.precision:.4f}", f"{counts.recall:.4f}", f"{counts.f1:.4f}", f"{counts.support:,}"
        )
    console.print(table)
    show_more(console, len(classes) - len(shown), "classes, which do better")
    if everything and report.confusion is not None and len(report.confusion) <= WIDEST_CONFUSION:
        names = list(report.classes)
        # Not as the table's title, which is folded to the width of the table.
        console.print("[bold]Confusion: a row for each label, a column for each answer[/bold]")
        confusion = titled_table("", "", *map(escape, names))
        for name, row in zip(names, report.confusion, strict=True):
            confusion.add_row(escape(name), *map(str, row))
        console.print(confusion)
    if report.padding_saved is not None:
        lost = "words that the model did not see, scored as missed" if report.unit == "entities" else "texts cut"
        show_lines(
            console,
            [f"{report.truncated:,} {lost}; length buckets spare {report.padding_saved:.0%} of the positions"],
        )


def show_evaluation(console: Console, evaluation: Evaluation, *, everything: bool = False) -> None:
    """Scores of a model, its answers by class, and what they rest on."""
    show_scores(console, evaluation.scores)
    show_answers(console, evaluation.answers)
    if evaluation.report is not None:
        show_quality(console, evaluation.report, everything=everything)
    show_notices(console, _of_data(evaluation.dataset), everything=everything)


def _of_data(dataset: Dataset) -> list[str]:
    """What limits scores on a data set."""
    synthetic = [f"{dataset.name} is synthetic: scores on it say that a pipeline works"] if dataset.synthetic else []
    return [*synthetic, *(f"{dataset.name}: {note}" for note in dataset.notes)]


def show_answers(console: Console, answers: Answers) -> None:
    """What each output of a model was taken as, and why nothing is scored where nothing is."""
    if answers.unscored_because is not None:
        show_lines(console, [f"no score: {answers.unscored_because}"], style="bold")
    show_lines(console, [str(answer) for answer in answers.outputs])


def show_attack(console: Console, report: AttackReport, *, everything: bool = False) -> None:
    """Scores by the size of the attacker's change, the largest change first."""
    norm = "largest change of a pixel, white being 1" if report.norm == "linf" else "Euclidean length of the change"
    results = sorted(report.results, key=lambda result: -result.epsilon)
    for i, result in enumerate(results):
        for score in result.scores:
            text = f"epsilon {result.epsilon:g}: {score_text(score)}"
            show_lines(console, [text], style=None if i else "bold")
    lines = [f"{report.attack} on {report.dataset.name}, epsilon is the {norm}"]
    if report.mean_length is not None:
        lines.append(f"mean length of what is changed: {significant(report.mean_length)}")
    show_notices(console, [*lines, *_of_data(report.dataset)], everything=everything)


def show_checkpoint(console: Console, report: CheckpointReport) -> None:
    """A Hugging Face folder that was written."""
    names = ", ".join(report.files)
    console.print(
        f"{report.model}: {report.task}, {report.parameters:,} parameters, in {report.folder}", highlight=False
    )
    console.print(f"for transformers: {names}", highlight=False)


def show_artifact(console: Console, artifact: Artifact, out: Path, *, everything: bool = False) -> None:
    """A model that was just made: what it scores, where it is, what it took."""
    show_scores(console, artifact.scores, f"{artifact.name}: ")
    show_lines(console, [f"{artifact.name}: {artifact.task}, {artifact.parameters:,} parameters, in {out}"])
    if artifact.report is not None:
        show_quality(console, artifact.report, everything=everything)
    warnings = [f"warning: {warning}" for step in artifact.steps for warning in step.warnings]
    data = [] if artifact.dataset is None else [f"{artifact.dataset.name}: {artifact.dataset.licence}"]
    notes = [] if artifact.dataset is None else _of_data(artifact.dataset)
    show_notices(console, [*warnings, *notes, *data], everything=everything)
    _show_steps(console, artifact.steps, everything=everything)


def _show_steps(console: Console, steps: Sequence[Step], *, everything: bool) -> None:
    """What was done to a model, what that took, and, if asked, each layer that it changed and skipped."""
    for step in steps:
        took = "" if step.cost is None else f": {cost_text(step.cost)}"
        show_lines(console, [f"{step.kind} on {step.backend} {step.backend_version}{took}"])
        if everything:
            show_lines(console, [f"  {note}" for note in (*step.changed, *(f"skipped {s}" for s in step.skipped))])
    hidden = 0 if everything else sum(len(step.changed) + len(step.skipped) for step in steps)
    show_more(console, hidden, "notes on layers")


def show_cost(console: Console, verdict: Verdict, run: Path, *, everything: bool = False) -> None:
    """A run in dollars: on one screen, or everything."""
    if everything:
        show_verdict(console, verdict)
    else:
        show_summary(
            console,
            verdict,
            f"Everything: kcost report {run} --all. As a page: kcost open {run}. As code: kcost code {run}",
        )


def show_payoff(console: Console, payoff: Payoff, *, everything: bool = False) -> None:
    """What optimizing brought; the word first."""
    show_lines(console, [f"{payoff.word}: {payoff.sentence}"], style="bold")
    show_lines(console, [f"model: {payoff.out}"])
    scale = payoff.usd_scale
    table = titled_table(
        f"Before and after on {payoff.backend}", "batch", "before", "after", "faster", f"USD per {scale.unit}"
    )
    shown = payoff.speeds if everything else payoff.speeds[:ROWS]
    for s in shown:
        usd = f"{scale.text(s.before_usd_per_million)} -> {scale.text(s.after_usd_per_million)}"
        times = [f"{significant(ms)} ms" for ms in (s.before_ms, s.after_ms)]
        table.add_row(f"{s.batch} ({s.method})", *times, str(s.times_faster), usd)
    console.print(table)
    show_more(console, len(payoff.speeds) - len(shown))
    before, after = payoff.before, payoff.after
    sizes = [f"file {format_bytes(before.file_bytes)} -> {format_bytes(after.file_bytes)}"]
    if before.parameters is not None and after.parameters is not None:
        sizes.append(f"parameters {before.parameters:,} -> {after.parameters:,}")
    if before.peak_host_bytes is not None and after.peak_host_bytes is not None:
        peaks = f"{format_bytes(before.peak_host_bytes)} -> {format_bytes(after.peak_host_bytes)}"
        sizes.append(f"peak memory of the worker while it was got ready {peaks}")
    show_lines(console, ["; ".join(sizes), _drop_text(payoff.drop)])
    warnings = [f"warning: {warning}" for step in payoff.steps for warning in step.warnings]
    show_notices(console, [*warnings, *payoff.assumptions], everything=everything)
    _show_steps(console, payoff.steps, everything=everything)


def _drop_text(drop: ScoreDrop) -> str:
    p = "" if drop.p_value is None else f", p {significant(drop.p_value)}"
    return (
        f"{drop.score} {drop.before:.4f} -> {drop.after:.4f}: drop {drop.value:.4f}, at most {drop.bound:.4f} with 95% "
        f"confidence ({drop.method}{p}; {drop.count:,} {drop.unit})"
    )


def show_prices(console: Console, prices: Sequence[Price], *, everything: bool = False) -> None:
    """Prices, the cheapest first; with their days and sources where everything is asked for."""
    shown = prices if everything else prices[:ROWS]
    headings = ["instance", "region", "vCPUs", "memory", "accelerator", "on demand", "spot"]
    table = titled_table(f"{len(prices)} prices, USD per hour", *(["provider"] if everything else []), *headings)
    if everything:
        table.add_column("as of")
        table.add_column("source", overflow="fold")
    for p in shown:
        instance = p.instance if everything else f"{p.provider} {p.instance}"
        texts = [
            *([p.provider] if everything else []),
            instance,
            p.region,
            "-" if p.vcpus is None else str(p.vcpus),
            "-" if p.memory_gib is None else f"{p.memory_gib:g} GiB",
            f"{p.accelerator_count} x {p.accelerator}" if p.accelerator else "-",
            format_usd(p.on_demand_usd_per_hour),
            "-" if p.spot_usd_per_hour is None else format_usd(p.spot_usd_per_hour),
        ]
        if everything:
            texts += ["unknown" if p.as_of is None else p.as_of.isoformat(), p.source]
        table.add_row(*map(escape, texts))
    console.print(table)
    if not everything:
        left = f"{len(prices) - len(shown)} more, with" if len(prices) > len(shown) else "With"
        console.print(f"{left} days and sources: --all. Fewer: --provider, --region", highlight=False)


def show_price_check(console: Console, check: PriceCheck, *, everything: bool = False) -> None:
    """Whether a price book is refused, and what is wrong with it."""
    verdict = f"refused: {len(check.problems)} problem(s)" if check.problems else "no problems"
    if check.warnings:
        verdict += f", {len(check.warnings)} warning(s): look at these rows again"
    show_lines(console, [f"{check.name}: {check.rows} rows, {verdict}"], style="bold")
    rows = [
        str(p) for p in (*sorted(check.problems, key=lambda p: p.row), *sorted(check.warnings, key=lambda p: p.row))
    ]
    shown = rows if everything else rows[:ROWS]
    show_lines(console, shown)
    show_more(console, len(rows) - len(shown))


def show_export(console: Console, report: ExportReport, *, everything: bool = False) -> None:
    """An exported version and what was checked."""
    checks = ", ".join(f"batch {c.batch}: {c.max_abs_difference:.1e}" for c in report.checks)
    show_lines(
        console,
        [
            f"{report.name} version {report.version}: loaded by TensorFlow {report.library_version} without XLA; "
            f"largest difference from the model's outputs at {checks}"
        ],
        style="bold",
    )
    if report.signatures:
        named = ", ".join(f"{s.signature} ({s.rows} rows: {s.max_abs_difference:.1e})" for s in report.signatures)
        show_lines(console, [f"besides serving_default: {named}"])
    if report.batching is not None:
        sizes = ", ".join(map(str, report.batching.allowed_batch_sizes))
        show_lines(
            console, [f"batches of {sizes}, waiting {report.batching.timeout_us / 1e3:.3g} ms: {report.batching.why}"]
        )
    for b in report.beside:
        line = (
            f"for {b.runtime} in {b.precision}: {b.file}, {b.file_bytes:,} bytes, relative error "
            f"{b.relative_error:.1e}; kcost serve DIR --backend {b.runtime}"
        )
        show_lines(console, [line])
    if report.temperature is not None:
        show_lines(console, [f"its probabilities are at the temperature {report.temperature:.4g}"])
    limits = [f"warning: {warning}" for warning in report.warnings]
    limits += [f"without {left_out.what}: {left_out.reason}" for left_out in report.left_out]
    show_notices(console, limits, everything=everything)


def show_demo(console: Console, report: DemoReport, *, everything: bool = False) -> None:
    """What the demo says: its verdicts, where things are, and what to try next; every way with it, if asked."""
    if everything:
        for artifact in report.artifacts:
            show_artifact(console, artifact, report.out / "models" / artifact.name, everything=True)
        for export in report.exports:
            show_export(console, export, everything=True)
    for artifact, answer in zip(report.artifacts, report.recommendations, strict=True):
        scores = ", ".join(score_text(score) for score in artifact.scores[:1])
        console.print(f"\n{artifact.name}: {scores}", highlight=False)
        folder = report.folder(artifact)
        if everything:
            show_recommendation(console, answer, folder, everything=True)
        else:
            show_words(console, answer, folder)
    console.print(f"\nTensorFlow Serving: {report.out / 'serving'} (docker compose up)", highlight=False)
    console.print(f"took {format_s(report.wall_s)}", highlight=False)
    console.print("Next, on a model of your own: kcost recommend my.keras --qps 200 --p99-ms 50", highlight=False)
