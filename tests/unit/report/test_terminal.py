import io
import re

from rich.console import Console

from kcost.cost.pricebook import PriceBook
from kcost.cost.verdict import Verdict, conclude, prices_for
from kcost.report.terminal import show_summary, show_verdict
from testing.runs import disturbed, plan, replaced, simulated_run


def verdict_of(run, outputs, **limits) -> Verdict:
    return conclude(run, prices_for(run, PriceBook.read()), lambda c: outputs.get(c.spec.cell_id), **limits)


def summary(verdict: Verdict, width: int = 100) -> str:
    text = io.StringIO()
    show_summary(Console(file=text, width=width), verdict, "The rest: elsewhere.")
    return text.getvalue()


def shown(verdict: Verdict, width: int, **options: int) -> str:
    text = io.StringIO()
    show_verdict(Console(file=text, width=width), verdict, **options)
    return text.getvalue()


def test_the_verdicts_come_first_and_the_tables_hold_the_ranking() -> None:
    verdict = verdict_of(*simulated_run(plan(models=("simulated-cnn", "simulated-bert"))))
    text = shown(verdict, 200, rows=100)
    flat = " ".join(text.split())
    for ranking in verdict.rankings:
        assert f"{ranking.model}, {ranking.phase}: USD per {ranking.usd_scale.unit}" in text
    table = text.split("simulated-cnn, training: USD")[0].split("simulated-cnn, inference: USD")[1]
    for cell in verdict.rankings[0].cells:
        assert f"{cell.backend}/{cell.method}" in table
    assert table.count("tensorflow/predict *") == 1
    assert verdict.conclusions[-1].sentence in flat.partition("simulated-cnn, inference: USD")[0]
    assert "Source: aws/karpenter-provider-aws" in flat
    assert "as of 2026-07-20" in flat


def test_it_fits_into_eighty_columns_and_leaves_out_the_less_telling_columns() -> None:
    verdict = verdict_of(*simulated_run(plan()))
    narrow, wide = shown(verdict, 80), shown(verdict, 140)
    assert max(len(line) for line in narrow.splitlines()) <= 80
    assert "…" not in narrow
    assert "95% interval" in wide
    assert "95% interval" not in narrow


def test_energy_is_shown_with_its_basis_where_it_is_known() -> None:
    run, outputs = simulated_run(plan(phases=("inference",)))
    assert "J/1,000" not in shown(verdict_of(run, outputs), 140)
    one = run.cells[0]
    real = one.preparation.model_copy(update={"simulated": False})
    known = verdict_of(replaced(run, one.spec.cell_id, preparation=real), outputs)
    (cell,) = (c for c in known.rankings[0].cells if c.step_joules is not None)
    assert cell.cell_id == one.spec.cell_id
    assert cell.joules_per_thousand == cell.step_joules / cell.batch * 1000
    text = " ".join(shown(known, 140).split())
    assert "J/1,000" in text
    assert "Energy of 1,000 examples: estimated: 3.97 W a core" in text


def test_memory_is_shown_where_there_is_room_and_is_that_of_the_accelerator_for_a_cell_on_one() -> None:
    run, outputs = simulated_run(plan(phases=("inference",), batches=(1,)), steps=None)
    verdict = verdict_of(run, outputs)
    assert "memory" in shown(verdict, 160)
    assert "memory" not in shown(verdict, 140)
    (ranking,) = verdict.rankings
    cell = ranking.cells[0]
    rounds = next(c for c in run.cells if c.spec.cell_id == cell.cell_id).rounds
    assert cell.peak_bytes == max(r.peak_host_bytes for r in rounds)
    assert f"{cell.peak_bytes >> 20} MiB" in shown(verdict, 160)
    on_gpu = cell.model_copy(update={"device": "gpu", "peak_device_bytes": 3 << 30})
    assert on_gpu.peak_bytes == 3 << 30
    without = verdict_of(*simulated_run(plan(phases=("inference",))))
    assert "memory" not in shown(without, 160)


def test_few_rows_still_show_plain_keras() -> None:
    verdict = verdict_of(*simulated_run(plan(phases=("inference",))))
    text = shown(verdict, 140, rows=3)
    assert "tensorflow/predict *" in text
    assert f"and {len(verdict.rankings[0].cells) - 3} more" in text


def test_notices_of_a_kind_are_counted_when_they_are_many() -> None:
    run, outputs = simulated_run(plan())
    for cell in run.cells[:5]:
        run = replaced(run, cell.spec.cell_id, status="crash", reason="it [bold]fell[/bold] over")
    text = shown(verdict_of(run, outputs), 160)
    assert text.count("crash: it [bold]fell[/bold] over") == 3
    assert "failed: and 2 more" in text


def test_what_may_not_be_ranked_says_why() -> None:
    text = shown(verdict_of(*simulated_run(plan(phases=("inference",))), p99_ms=10.0), 140, rows=100)
    assert "simulated-cnn, inference, within 10 ms" in text
    assert "jax/predict [too slow]" in text


def test_a_run_without_measurements_says_so() -> None:
    run, outputs = simulated_run(plan(batches=(1,), phases=("inference",)))
    for cell in run.cells:
        run = replaced(run, cell.spec.cell_id, status="timeout", reason="no answer")
    assert "nothing to rank" in shown(verdict_of(run, outputs), 100)


def test_a_summary_fits_on_a_screen_and_says_what_it_left_out() -> None:
    verdict = verdict_of(*simulated_run(plan(models=("simulated-cnn", "simulated-bert"))))
    lines = summary(verdict).splitlines()
    assert lines[0].startswith("simulated-cnn: cheapest is")
    assert lines[-1] == "The rest: elsewhere."
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    rows = [line for line in lines if line.split()[:1] and line.split()[0].isdigit() and " ms" in line]
    assert len(rows) == 6, "of two of four rankings"
    assert "95% interval" not in summary(verdict)
    assert "more: --all" in summary(verdict)


def test_a_summary_tells_the_three_most_serious_kinds_of_notices() -> None:
    run, outputs = simulated_run(plan())
    for cell in run.cells[:5]:
        run = replaced(run, cell.spec.cell_id, status="crash", reason="it [bold]fell[/bold] over")
    lines = [line for line in summary(verdict_of(run, outputs), 200).splitlines() if ": " in line]
    kinds = [line.partition(":")[0].partition(" (")[0] for line in lines]
    assert [k for k in kinds if k in ("simulated", "failed", "synthetic-data", "price-assumed")][:2] == [
        "simulated",
        "failed",
    ]
    assert "failed (5 times)" in summary(verdict_of(run, outputs), 200)


def test_what_was_measured_beside_other_work_gives_no_figure_anywhere() -> None:
    run, outputs = simulated_run(plan(phases=("inference",)))
    best = verdict_of(run, outputs).rankings[0].best
    verdict = verdict_of(disturbed(run, best.cell_id), outputs)
    (conclusion,) = verdict.conclusions
    assert (conclusion.outcome, conclusion.valid, conclusion.times_cheaper) == ("invalid", False, None)
    reason = "INVALID: other processes took 50.0% of the machine's CPU time: measure again while nothing else runs."
    assert reason in conclusion.sentence
    assert conclusion.sentence.endswith(" [simulated]")
    cell = verdict.rankings[0].cell(best.cell_id)
    assert (cell.valid, cell.cost, cell.times_cheaper) == (False, None, None)
    assert cell.step_ms == best.step_ms, "its time is what was measured, as the notice says"
    for text in (summary(verdict), shown(verdict, 160)):
        first, second = (next(line for line in text.splitlines() if line.split()[:1] == [n]) for n in ("1", "2"))
        assert "measure again" in first
        assert ("$" in first, "$" in second) == (False, True)


def test_a_run_that_was_disturbed_as_a_whole_has_no_dollars_in_its_tables() -> None:
    run, outputs = simulated_run(plan())
    verdict = verdict_of(disturbed(run), outputs)
    assert {c.cost for r in verdict.rankings for c in r.cells} == {None}
    assert [r.unit for r in verdict.rankings] == ["million predictions", "training run (10 epochs of 1,437 examples)"]
    for text in (summary(verdict, 200), shown(verdict, 200)):
        tables = [line for line in text.splitlines() if re.match(r"\d+ ", line)]
        assert tables
        assert all("measure again" in line and "$" not in line for line in tables)
