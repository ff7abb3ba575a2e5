"""What the verbs of `hvdtools bench` print and write at their end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from hvdtools.bench.analysis.compare import Change, by_chance, compare, differing_facts
from hvdtools.bench.analysis.interval import Span
from hvdtools.bench.analysis.sides import sides_of
from hvdtools.bench.predict.forecast import Forecast
from hvdtools.bench.predict.forecasts import Forecasts, forecasts, question_of
from hvdtools.bench.report.grids import size_words
from hvdtools.bench.report.page import write_page
from hvdtools.bench.report.table import show
from hvdtools.bench.report.titles import titles
from hvdtools.bench.report.words import bytes_in_words, listed, percent, rate_in_words
from hvdtools.bench.results.export import write_csv
from hvdtools.bench.results.result_file import FILE_NAME, Result, read
from hvdtools.core.errors import HvdtoolsError


def show_run(folder: Path, run_id: str | None, *, csv: bool = False) -> tuple[Result, ...]:
    """Print a run's tables, write its page, say where both are."""
    reading = read(folder / FILE_NAME)
    results = reading.of_run(run_id)
    if reading.cut_lines:
        typer.echo(
            f"{reading.cut_lines} line(s) of {folder / FILE_NAME} were cut short and are left out.",
            err=True,
        )
    typer.echo(f"{results[0].suite}, run {results[0].run_id}")
    show(Console(), results)
    page = write_page(folder, results, forecasts(results, question_of(results)))
    typer.echo(f"results: {folder / FILE_NAME}\nreport:  {page}")
    for table in write_csv(folder, results) if csv else ():
        typer.echo(f"csv:     {table}")
    return results


def run_named(word: str) -> tuple[Result, ...]:
    """The results of "FOLDER", its newest run, or of "FOLDER@RUN"."""
    folder, _, run_id = word.partition("@")
    return read(Path(folder) / FILE_NAME).of_run(run_id or None)


def show_changes(
    console: Console, before: Sequence[Result], after: Sequence[Result], tolerance: float
) -> int:
    """Print what changed; the number of regressions.

    Raises:
        HvdtoolsError: The tolerance is no share, or the runs have no case in common.
    """
    if not 0 <= tolerance < 1:
        raise HvdtoolsError(f"--tolerance {tolerance:g} is no share: give 0.03 for 3 %.")
    changes = compare(before, after, tolerance)
    if not set(sides_of(before, after)) & set(sides_of(after, before)):
        raise HvdtoolsError("The two runs have no case in common: compare runs of one suite.")
    for name, (old, new) in differing_facts(before, after).items():
        typer.echo(f"{name} differs: {old} before, {new} after")
    table = _table("case", "before", "after", "after / before", "verdict")
    for change in changes:
        span = change.ratio
        ratio = "" if span is None else f"{span.middle:.3f} [{span.low:.3f}–{span.high:.3f}]"
        table.add_row(
            _case(change), _rate(change.before), _rate(change.after), ratio, change.verdict
        )
    console.print(table)
    for change in changes:
        if change.why:
            typer.echo(f"{_case(change)}: {change.why}")
    regressions = sum(change.is_regression for change in changes)
    counted = {
        v: sum(c.verdict == v for c in changes) for v in dict.fromkeys(c.verdict for c in changes)
    }
    typer.echo(listed([f"{number} {verdict}" for verdict, number in counted.items()]))
    chance = by_chance(changes)
    typer.echo(f"Noise alone gives at most {chance:.2g} verdicts of slower or faster among these.")
    return regressions


def show_forecasts(
    console: Console,
    folder: Path,
    results: Sequence[Result],
    made: Forecasts,
) -> None:
    """Print forecasts and write them into the run's page.

    Raises:
        HvdtoolsError: There is none.
    """
    if not made.found:
        raise HvdtoolsError((*made.missing, "No training was measured: run a suite.")[0])
    named = titles([forecast.workload for forecast in made.found])
    for forecast in made.found:
        _show_forecast(console, forecast, named[forecast.workload])
    for why in made.missing:
        typer.echo(f"no forecast of {why}")
    typer.echo(f"report:  {write_page(folder, results, made)}")


def _show_forecast(console: Console, forecast: Forecast, title: str) -> None:
    typer.echo(f"\n{title}, {forecast.workload.scaling} scaling, {forecast.engine}")
    for cost, where in (
        (forecast.cost_in_node, "in a node"),
        (forecast.cost_between_nodes, "between nodes"),
    ):
        if cost is not None:
            typer.echo(
                f"all-reduce {where}: {1e6 * cost.constant_s:.0f} µs + "
                f"2 (N-1) {1e6 * cost.alpha_s:.1f} µs + "
                f"2 (N-1)/N bytes / {cost.bytes_per_s / 1e9:.3g} GB/s"
            )
    if forecast.network is not None:
        typer.echo(f"network: {forecast.network.said}, as given")
    least = "at least " if forecast.overlap_is_least else ""
    typer.echo(f"overlap: {least}{percent(forecast.overlap, 0)} of the backward pass")
    table = _table("ranks", "nodes", "step, ms", "samples/s [95 %]", "efficiency [95 %]")
    for each in forecast.predictions:
        share = each.efficiency
        table.add_row(
            *(str(each.ranks), str(each.nodes), f"{1e3 * each.step_s.middle:.2f}"),
            _rate(each.samples_per_s),
            f"{percent(share.middle)} [{100 * share.low:.0f}–{100 * share.high:.0f}]",
        )
    console.print(table)
    for held in forecast.held_out:
        typer.echo(
            f"held out: a step on {held.ranks} ranks is predicted to take "
            f"{1e3 * held.predicted_s:.2f} ms without having seen it, and took "
            f"{1e3 * held.measured_s:.2f} ms ({100 * held.error:+.1f} %)"
        )
    for note in filter(None, (forecast.not_held_out, *forecast.notes)):
        typer.echo(note)


def _case(change: Change) -> str:
    workload, message = change.workload, change.message
    what = [
        workload.model,
        f"{workload.scaling} scaling" if workload.scaling else "",
        change.engine,
    ]
    if message is not None:
        what += [bytes_in_words(message.message_bytes), message.dtype]
        what += [f"{message.tensors} tensors"] if message.tensors > 1 else []
    return ", ".join(filter(None, (*what, size_words(change.ranks, change.nodes))))


def _rate(span: Span | None) -> str:
    return "" if span is None else rate_in_words(span.middle)


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 else "right")
    return table
