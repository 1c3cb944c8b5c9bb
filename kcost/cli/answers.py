"""The short answers of the command line, one function a command. `terminal` shows whole runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from kcost.core.answer import Answers
from kcost.core.artifact import Artifact, QualityReport, RunCost, Score
from kcost.core.request import AttackReport, Evaluation
from kcost.core.units import format_bytes, format_s, format_usd, significant
from kcost.cost.payoff import Payoff
from kcost.cost.price_rules import Price, PriceCheck
from kcost.cost.verdict import Verdict
from kcost.report.recommend_terminal import show_recommendation, show_words
from kcost.report.tables import titled_table
from kcost.report.terminal import show_summary, show_verdict

if TYPE_CHECKING:
    from kcost.api.demo import DemoReport
    from kcost.api.doctor import DoctorReport
    from kcost.data import CatalogueEntry
    from kcost.ship.export_report import ExportReport
    from kcost.ship.huggingface import CheckpointReport

WIDEST_CONFUSION = 12
"""A confusion matrix with more classes than this is in --json alone: no terminal shows it whole."""

MOST_ROWS = 12
"""Of a list, unless everything is asked for."""

STATE_STYLE = {"works": "green", "warning": "yellow", "missing": "red"}


def show_doctor(console: Console, report: DoctorReport) -> None:
    """What works here and what does not."""
    here = report.environment
    features = ", ".join(here.cpu_features) or "none that matter"
    console.print(
        f"{here.cpu_model}, {here.cores} cores, {format_bytes(here.memory_bytes)}, {here.os}", highlight=False
    )
    console.print(f"CPU features: {features}", highlight=False)
    console.print(f"accelerators: {'; '.join(here.accelerators) or 'none'}", highlight=False)
    packages = ", ".join(f"{name} {version}" for name, version in here.packages.items())
    console.print(f"packages: Python {here.python}, {packages}", highlight=False)
    table = titled_table("What works here", "", "state", "")
    for finding in report.findings:
        table.add_row(finding.subject, f"[{STATE_STYLE[finding.state]}]{finding.state}[/]", escape(finding.detail))
    console.print(table)


def show_data_sets(console: Console, entries: Sequence[CatalogueEntry], *, everything: bool = False) -> None:
    """The data sets known by name."""
    headings = ["name", "task", "size", "licence", "found in"]
    table = titled_table("Data sets", *headings, *(["source"] if everything else []))
    for e in entries:
        name = f"{e.name} (synthetic)" if e.synthetic else e.name
        size = format_bytes(e.size_bytes) if e.size_bytes else "-"
        fetch = f"not here: kcost data fetch {e.name}" if all(f.url for f in e.files) else "not here"
        texts = [name, e.task, size, e.licence, e.found_in or fetch]
        table.add_row(*texts, *([e.source] if everything else []))
    console.print(table)
    if not everything:
        console.print("Sources, notes and checksums: --all", highlight=False)
        return
    for e in entries:
        for note in e.notes:
            console.print(f"{e.name}: {note}", highlight=False)
    for e in entries:
        for file in e.files:
            console.print(f"{e.name} {file.path} {file.size_bytes} bytes, sha256 {file.sha256}", highlight=False)


def score_text(score: Score) -> str:
    """A score with its interval and count."""
    interval = f"95%: {score.low:.4f} to {score.high:.4f}"
    output = "" if score.output is None else f"{score.output}: "
    return f"{output}{score.name} {score.value:.4f} ({interval}; {score.count} {score.unit} of {score.split})"


def cost_text(cost: RunCost) -> str:
    """What a step took, each figure with its basis."""
    energy = "energy" if cost.energy_wh is None else f"{significant(cost.energy_wh)} Wh"
    usd = "cost not known" if cost.usd is None else format_usd(cost.usd)
    return (
        f"took {format_s(cost.wall_s)}, {energy} ({cost.energy_basis}), {usd}, "
        f"{cost.labelled_examples:,} labelled examples. {cost.usd_basis}"
    )


def show_scores(console: Console, scores: Sequence[Score]) -> None:
    """Scores, a line each."""
    for score in scores:
        console.print(score_text(score), highlight=False)


def show_quality(console: Console, report: QualityReport) -> None:
    """The answers of a model by class, and what it took for what."""
    table = titled_table(f"{report.unit} of {report.split} by class", "", "precision", "recall", "F1", "in truth")
    for name, counts in report.classes.items():
        table.add_row(
            escape(name), f"{counts.precision:.4f}", f"{counts.recall:.4f}", f"{counts.f1:.4f}", f"{counts.support:,}"
        )
    console.print(table)
    if report.confusion is not None and len(report.confusion) <= WIDEST_CONFUSION:
        names = list(report.classes)
        # Not as the table's title, which is folded to the width of the table.
        console.print("[bold]Confusion: a row for each label, a column for each answer[/bold]")
        confusion = titled_table("", "", *map(escape, names))
        for name, row in zip(names, report.confusion, strict=True):
            confusion.add_row(escape(name), *map(str, row))
        console.print(confusion)
    if report.padding_saved is not None:
        lost = "words that the model did not see, scored as missed" if report.unit == "entities" else "texts cut"
        console.print(
            f"{report.truncated:,} {lost}; length buckets spare {report.padding_saved:.0%} of the positions",
            highlight=False,
        )


def show_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Scores of a model, what they rest on, and its answers by class."""
    for note in evaluation.dataset.notes:
        console.print(f"{evaluation.dataset.name}: {note}", highlight=False, markup=False)
    show_scores(console, evaluation.scores)
    show_answers(console, evaluation.answers)
    if evaluation.report is not None:
        show_quality(console, evaluation.report)


def show_answers(console: Console, answers: Answers) -> None:
    """What each output of a model was taken as, and why nothing is scored where nothing is."""
    if answers.unscored_because is not None:
        console.print(f"no score: {answers.unscored_because}", highlight=False, markup=False)
    for answer in answers.outputs:
        console.print(str(answer), highlight=False, markup=False)


def show_attack(console: Console, report: AttackReport) -> None:
    """Scores by the size of the attacker's change."""
    norm = "largest change of a pixel, white being 1" if report.norm == "linf" else "Euclidean length of the change"
    for note in report.dataset.notes:
        console.print(f"{report.dataset.name}: {note}", highlight=False, markup=False)
    console.print(f"{report.attack} on {report.dataset.name}, epsilon is the {norm}", highlight=False)
    if report.mean_length is not None:
        console.print(f"mean length of what is changed: {significant(report.mean_length)}", highlight=False)
    for result in report.results:
        for score in result.scores:
            console.print(f"epsilon {result.epsilon:g}: {score_text(score)}", highlight=False)


def show_checkpoint(console: Console, report: CheckpointReport) -> None:
    """A Hugging Face folder that was written."""
    names = ", ".join(report.files)
    console.print(
        f"{report.model}: {report.task}, {report.parameters:,} parameters, in {report.folder}", highlight=False
    )
    console.print(f"for transformers: {names}", highlight=False)


def show_artifact(console: Console, artifact: Artifact, out: Path) -> None:
    """A model that was just made."""
    console.print(f"{artifact.name}: {artifact.task}, {artifact.parameters:,} parameters, in {out}", highlight=False)
    if artifact.dataset is not None:
        kind = "synthetic data" if artifact.dataset.synthetic else "real data"
        console.print(f"{artifact.dataset.name}, {kind}, {artifact.dataset.licence}", highlight=False)
        for note in artifact.dataset.notes:
            console.print(f"  {note}", highlight=False, markup=False)
    for step in artifact.steps:
        console.print(f"{step.kind} on {step.backend} {step.backend_version}", highlight=False)
        for note in (*step.changed, *(f"warning: {w}" for w in step.warnings)):
            console.print(f"  {note}", highlight=False, markup=False)
        if step.cost is not None:
            console.print(f"  {cost_text(step.cost)}", highlight=False, markup=False)
    show_scores(console, artifact.scores)
    if artifact.report is not None:
        show_quality(console, artifact.report)


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


def show_payoff(console: Console, payoff: Payoff) -> None:
    """What optimizing brought; the word last."""
    for step in payoff.steps:
        console.print(f"{step.kind} on {step.backend} {step.backend_version}", highlight=False)
        for note in (*step.changed, *(f"skipped {s}" for s in step.skipped), *(f"warning: {w}" for w in step.warnings)):
            console.print(f"  {note}", highlight=False, markup=False)
        if step.cost is not None:
            console.print(f"  {cost_text(step.cost)}", highlight=False, markup=False)
    table = titled_table(
        f"Before and after on {payoff.backend}", "batch", "before", "after", "faster", "USD per million"
    )
    for s in payoff.speeds:
        usd = f"{format_usd(s.before_usd_per_million)} -> {format_usd(s.after_usd_per_million)}"
        times = [f"{significant(ms)} ms" for ms in (s.before_ms, s.after_ms)]
        table.add_row(f"{s.batch} ({s.method})", *times, str(s.times_faster), usd)
    console.print(table)
    before, after = payoff.before, payoff.after
    console.print(f"file {format_bytes(before.file_bytes)} -> {format_bytes(after.file_bytes)}", highlight=False)
    if before.parameters is not None and after.parameters is not None:
        console.print(f"parameters {before.parameters:,} -> {after.parameters:,}", highlight=False)
    if before.peak_host_bytes is not None and after.peak_host_bytes is not None:
        peaks = f"{format_bytes(before.peak_host_bytes)} -> {format_bytes(after.peak_host_bytes)}"
        console.print(f"peak memory of the worker while it was got ready {peaks}", highlight=False)
    d = payoff.drop
    p = "" if d.p_value is None else f", p {significant(d.p_value)}"
    console.print(
        f"{d.score} {d.before:.4f} -> {d.after:.4f}: drop {d.value:.4f}, at most {d.bound:.4f} with 95% confidence "
        f"({d.method}{p}; {d.count:,} {d.unit})",
        highlight=False,
    )
    for assumption in payoff.assumptions:
        console.print(assumption, highlight=False)
    console.print(f"{payoff.word}: {payoff.sentence}", highlight=False, markup=False)
    console.print(f"model: {payoff.out}", highlight=False)


def show_prices(console: Console, prices: Sequence[Price], *, everything: bool = False) -> None:
    """Prices, the cheapest first; with their days and sources where everything is asked for."""
    shown = prices if everything else prices[:MOST_ROWS]
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


def show_price_check(console: Console, check: PriceCheck) -> None:
    """The problems and warnings of a price book, or that it has none."""
    for problem in sorted((*check.problems, *check.warnings), key=lambda p: p.row):
        console.print(str(problem), highlight=False, markup=False)
    verdict = f"refused: {len(check.problems)} problem(s)" if check.problems else "no problems"
    if check.warnings:
        verdict += f", {len(check.warnings)} warning(s): look at these rows again"
    console.print(f"{check.name}: {check.rows} rows, {verdict}", highlight=False)


def show_export(console: Console, report: ExportReport) -> None:
    """An exported version and what was checked."""
    checks = ", ".join(f"batch {c.batch}: {c.max_abs_difference:.1e}" for c in report.checks)
    console.print(
        f"{report.name} version {report.version}: loaded by TensorFlow {report.library_version} without XLA; "
        f"largest difference from the model's outputs at {checks}",
        highlight=False,
    )
    if report.signatures:
        named = ", ".join(f"{s.signature} ({s.rows} rows: {s.max_abs_difference:.1e})" for s in report.signatures)
        console.print(f"besides serving_default: {named}", highlight=False)
    if report.batching is not None:
        sizes = ", ".join(map(str, report.batching.allowed_batch_sizes))
        console.print(
            f"batches of {sizes}, waiting {report.batching.timeout_us / 1e3:.3g} ms: {report.batching.why}",
            highlight=False,
            markup=False,
        )
    for b in report.beside:
        console.print(
            f"for {b.runtime} in {b.precision}: {b.file}, {b.file_bytes:,} bytes, relative error "
            f"{b.relative_error:.1e}; kcost serve DIR --backend {b.runtime}",
            highlight=False,
        )
    for left_out in report.left_out:
        console.print(f"without {left_out.what}: {left_out.reason}", highlight=False, markup=False)
    if report.temperature is not None:
        console.print(f"its probabilities are at the temperature {report.temperature:.4g}", highlight=False)
    for warning in report.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False)


def show_demo(console: Console, report: DemoReport, *, everything: bool = False) -> None:
    """What the demo says: its verdicts, where things are, and what to try next; every way with it, if asked."""
    if everything:
        for artifact in report.artifacts:
            show_artifact(console, artifact, report.out / "models" / artifact.name)
        for export in report.exports:
            show_export(console, export)
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
