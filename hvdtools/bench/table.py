"""The rows of a run in words, the same for the terminal and for the page."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hvdtools.bench.engines import FRAMEWORKS
from hvdtools.bench.stats import Row, Span


def headings(framework: str) -> tuple[str, ...]:
    """The columns of a framework's table."""
    return (
        "engine",
        "ranks",
        "samples/s [25–75\u00a0%]",
        "scaling efficiency [rounds]",
        f"against {FRAMEWORKS[framework].yardstick_name} [rounds]",
        "test accuracy",
        "replicas in\u00a0sync",
    )


def cells(row: Row) -> tuple[str, ...]:
    """A row in words, one for each of `headings`; "–" where there is nothing to say."""
    accuracy = "–" if row.accuracy is None else f"{100 * row.accuracy:.1f} %"
    synced = {True: "yes", False: "NO", None: "–"}[row.in_sync]
    rate = "failed" if row.samples_per_s is None else _rate(row.samples_per_s)
    return (
        row.engine,
        str(row.ranks),
        rate,
        _percent(row.efficiency) if row.ranks > 1 else "–",
        _ratio(row.against_yardstick),
        accuracy,
        synced,
    )


def _rate(span: Span) -> str:
    return f"{span.middle:,.0f} [{span.low:,.0f}–{span.high:,.0f}]"


def _percent(span: Span | None) -> str:
    if span is None:
        return "–"
    if span.low == span.high:
        return f"{100 * span.middle:.1f} % [one\u00a0round]"
    return f"{100 * span.middle:.1f} % [{100 * span.low:.0f}–{100 * span.high:.0f}]"


def _ratio(span: Span | None) -> str:
    if span is None:
        return "–"
    if span.low == span.high:
        return f"{span.middle:.3f} [one\u00a0round]"
    return f"{span.middle:.3f} [{span.low:.2f}–{span.high:.2f}]"


def failures(rows: list[Row]) -> list[str]:
    """A line for each case that failed."""
    return [
        f"{row.engine}, ranks {row.ranks}: {why}"
        for row in rows
        for why in dict.fromkeys(row.failures)
    ]


def show(console: Console, framework: str, rows: list[Row]) -> None:
    """Print a framework's table and, below it, why cases failed."""
    table = Table(
        title=FRAMEWORKS[framework].name,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    # A spread stands below its value, and the title says "Keras" for all its engines: so a row
    # fits on a terminal of 80 columns.
    for heading in headings(framework):
        words = Text(heading.replace(" ", "\n"))
        table.add_column(words, justify="left" if heading == "engine" else "right", no_wrap=True)
    for row in rows:
        engine, *others = cells(row)
        stacked = [Text(cell.replace(" [", "\n[")) for cell in others]
        table.add_row(
            engine.removeprefix(f"{framework}-"), *stacked, end_section=_last_of_engine(row, rows)
        )
    console.print()
    console.print(table)
    for line in failures(rows):
        console.print(f"failed: {line}", markup=False, highlight=False, soft_wrap=True)


def _last_of_engine(row: Row, rows: list[Row]) -> bool:
    return row is [other for other in rows if other.engine == row.engine][-1]
