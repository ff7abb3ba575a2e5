"""What `hvdtools bench` prints: the tables of a run, a comparison, a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from hvdtools.bench.analysis.comparison import Change, Comparison, compare
from hvdtools.bench.analysis.interval import Estimate
from hvdtools.bench.analysis.summary import RunSummary, analyze
from hvdtools.bench.formatting import (
    format_bytes,
    format_list,
    format_number,
    format_percent,
    format_size,
)
from hvdtools.bench.predict.engine_prediction import EnginePrediction
from hvdtools.bench.predict.run_prediction import RunPrediction, predict_run, request_for_report
from hvdtools.bench.report.csv_files import write_csv
from hvdtools.bench.report.page import write_page
from hvdtools.bench.report.sections import Section, sections_of, titles
from hvdtools.bench.report.table import Cell, Row, Table
from hvdtools.bench.results.result_file import FILE_NAME, Result, read
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.text import count_noun


def report_run(folder: Path, run_id: str | None, *, csv: bool = False) -> tuple[Result, ...]:
    """Print the tables of a run, write its page, print the path of each file; the run's results."""
    reading = read(folder / FILE_NAME)
    results = reading.of_run(run_id)
    if reading.incomplete_lines:
        lines = count_noun(reading.incomplete_lines, "incomplete line")
        typer.echo(f"{folder / FILE_NAME}: {lines} ignored.", err=True)
    typer.echo(f"{results[0].suite}, run {results[0].run_id}")
    run = analyze(results)
    print_run(Console(), run)
    page = write_page(folder, run, predict_run(run, request_for_report(run)))
    typer.echo(f"results: {folder / FILE_NAME}\nreport:  {page}")
    for file in write_csv(folder, run) if csv else ():
        typer.echo(f"csv:     {file}")
    return results


def read_run(folder_and_run: str) -> tuple[Result, ...]:
    """The results of "FOLDER", its newest run, or of "FOLDER@RUN"."""
    folder, _, run_id = folder_and_run.partition("@")
    return read(Path(folder) / FILE_NAME).of_run(run_id or None)


def print_run(console: Console, run: RunSummary) -> None:
    """Print a table for each workload and, below it, notes and failures."""
    for section in sections_of(run):
        console.print()
        console.print(_fitting(console, section))
        for line in (*section.notes, *(f"failed: {line}" for line in section.failures)):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_comparison(
    console: Console, baseline: Sequence[Result], candidate: Sequence[Result], tolerance: float
) -> int:
    """Print what changed; the number of regressions.

    Raises:
        HvdtoolsError: The tolerance is not a share of 1, or the runs have no case in common.
    """
    if not 0 <= tolerance < 1:
        raise HvdtoolsError(
            f"--tolerance must be at least 0 and less than 1 (got {tolerance:g}): 0.03 is 3 %."
        )
    comparison = compare(
        analyze(baseline, names_from=candidate), analyze(candidate, names_from=baseline), tolerance
    )
    if not comparison.common_cases:
        raise HvdtoolsError("The two runs have no case in common: compare runs of one suite.")
    for name, (old, new) in comparison.differing.items():
        typer.echo(f"{name} differs: {old} in the baseline, {new} in the candidate")
    console.print(_changes_table(comparison))
    for change in comparison.changes:
        if change.note:
            typer.echo(f"{_case(change)}: {change.note}")
    counts = [f"{count} {verdict}" for verdict, count in comparison.verdicts.items()]
    typer.echo(format_list(counts))
    typer.echo(
        f"Noise alone gives at most {comparison.expected_by_chance:.2g} verdicts of slower or "
        "faster among these."
    )
    return comparison.regressions


def print_prediction(
    console: Console, folder: Path, run: RunSummary, prediction: RunPrediction
) -> None:
    """Print the predictions of a run and write them into its page.

    Raises:
        HvdtoolsError: There is none.
    """
    if not prediction.engines:
        raise HvdtoolsError((*prediction.missing, "No training was measured: run a suite.")[0])
    names = titles([each.workload for each in prediction.engines])
    for each in prediction.engines:
        _print_engine_prediction(console, each, names[each.workload])
    for reason in prediction.missing:
        typer.echo(f"no prediction of {reason}")
    typer.echo(f"report:  {write_page(folder, run, prediction)}")


def _print_engine_prediction(console: Console, prediction: EnginePrediction, title: str) -> None:
    typer.echo(f"\n{title}, {prediction.workload.scaling} scaling, {prediction.engine}")
    for cost, where in (
        (prediction.model.in_node, "in a node"),
        (prediction.model.between_nodes, "between nodes"),
    ):
        if cost is not None:
            typer.echo(
                f"all-reduce {where}: {1e6 * cost.constant_s:.0f} µs + "
                f"2 (N-1) {1e6 * cost.alpha_s:.1f} µs + "
                f"2 (N-1)/N bytes / {cost.bytes_per_s / 1e9:.3g} GB/s"
            )
    if prediction.network is not None:
        typer.echo(f"network: {prediction.network.text}, as given")
    overlap = prediction.model.overlap
    least = "at least " if overlap.is_lower_bound else ""
    typer.echo(f"overlap: {least}{format_percent(overlap.share, 0)} of the backward pass")
    table = _plain_table("ranks", "nodes", "step, ms", "samples/s [95 %]", "efficiency [95 %]")
    for size in prediction.sizes:
        share = size.efficiency
        table.add_row(
            *(str(size.ranks), str(size.nodes), f"{1e3 * size.step_s.value:.2f}"),
            _rate(size.samples_per_s),
            f"{format_percent(share.value)} [{100 * share.low:.0f}–{100 * share.high:.0f}]",
        )
    console.print(table)
    for each in prediction.hold_outs:
        typer.echo(
            f"held out: a step on {each.ranks} ranks is predicted to take "
            f"{1e3 * each.predicted_s:.2f} ms and took {1e3 * each.measured_s:.2f} ms "
            f"({100 * each.error:+.1f} %)"
        )
    for note in filter(None, (prediction.not_held_out, *prediction.notes)):
        typer.echo(note)


def _changes_table(comparison: Comparison) -> RichTable:
    table = _plain_table("case", "baseline", "candidate", "candidate / baseline", "verdict")
    for change in comparison.changes:
        found = change.ratio
        ratio = "" if found is None else f"{found.value:.3f} [{found.low:.3f}–{found.high:.3f}]"
        rates = _rate(change.baseline), _rate(change.candidate)
        table.add_row(_case(change), *rates, ratio, change.verdict)
    return table


def _case(change: Change) -> str:
    workload, message = change.workload, change.message
    scaling = f"{workload.scaling} scaling" if workload.scaling else ""
    parts = [workload.model, scaling, change.engine]
    if message is not None:
        parts += [format_bytes(message.message_bytes), message.dtype]
        parts += [f"{message.tensors} tensors"] if message.tensors > 1 else []
    return ", ".join(filter(None, (*parts, format_size(change.ranks, change.nodes))))


def _rate(estimate: Estimate | None) -> str:
    return "" if estimate is None else format_number(estimate.value)


def _plain_table(*headings: str) -> RichTable:
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right")
    return table


def _fitting(console: Console, section: Section) -> RichTable:
    """The table with two spaces between columns where there is room, else with one."""
    table = _section_table(section, gap=2)
    unlimited = console.options.update(max_width=1000)
    is_wide = Measurement.get(console, unlimited, table).maximum > console.width
    return _section_table(section, gap=1) if is_wide else table


def _section_table(section: Section, gap: int) -> RichTable:
    table = section.table
    has_interval = any(cell.short_note for row in table.rows for cell in row.cells)
    rich_table = RichTable(
        title=Text(", ".join(filter(None, (section.title, section.scaling)))),
        title_justify="left",
        title_style="bold",
        caption="±: the 95 % interval's longer side" if has_interval else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 0, 0, gap - 1),
    )
    # An interval is below its value, so that a row fits on a terminal of 80 columns.
    shown = [number for number in range(len(table.columns)) if _is_shown(table, number)]
    for column in (table.columns[number] for number in shown):
        heading = Text((column.short or "").replace(" ", "\n"))
        rich_table.add_column(heading, justify="left" if column.is_text else "right", no_wrap=True)
    for number, row in enumerate(table.rows):
        cells = [_stacked(row.cells[column]) for column in shown]
        rich_table.add_row(*cells, end_section=_is_last_of_engine(table.rows, number))
    return rich_table


def _is_shown(table: Table, number: int) -> bool:
    """Only columns with a short heading; nodes only where a job has several."""
    if table.columns[number].heading == "nodes":
        return any(row.cells[number].value not in (None, 1) for row in table.rows)
    return table.columns[number].short is not None


def _stacked(cell: Cell) -> Text:
    text = Text(cell.text, style="bold red" if cell.alarm else "")
    return text.append(f"\n{cell.short_note}", style="dim") if cell.short_note else text


def _is_last_of_engine(rows: Sequence[Row], number: int) -> bool:
    return number + 1 < len(rows) and rows[number].cells[0] != rows[number + 1].cells[0]
