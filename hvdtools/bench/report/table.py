"""A run's tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from hvdtools.bench.report.cells import Cell, Grid, Line
from hvdtools.bench.report.sections import Section, sections
from hvdtools.bench.results.result_file import Result


def show(console: Console, results: Sequence[Result]) -> None:
    """Print a table of each work and, below it, what to know and why cases failed."""
    for section in sections(results):
        console.print()
        console.print(_fitting(console, section))
        for line in (*section.notes, *(f"failed: {line}" for line in section.failures)):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _fitting(console: Console, section: Section) -> Table:
    """The table with two spaces between columns where there is room, else with one."""
    table = _table(section, gap=2)
    endless = console.options.update(max_width=1000)
    is_wide = Measurement.get(console, endless, table).maximum > console.width
    return _table(section, gap=1) if is_wide else table


def _table(section: Section, gap: int) -> Table:
    grid = section.grid
    title = f"{section.title}, {section.scaling}" if section.scaling else section.title
    table = Table(
        title=Text(title),
        title_justify="left",
        title_style="bold",
        caption="±: the 95 % interval's longer side" if _has_interval(grid) else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 0, 0, gap - 1),
    )
    shown = [place for place in range(len(grid.columns)) if _fits(grid, place)]
    # An interval stands below its value, so that a row fits on a terminal of 80 columns.
    for place in shown:
        column = grid.columns[place]
        words = Text((column.short or "").replace(" ", "\n"))
        table.add_column(words, justify="left" if column.of_words else "right", no_wrap=True)
    for number, line in enumerate(grid.lines):
        cells = [_stacked(line.cells[place]) for place in shown]
        table.add_row(*cells, end_section=_ends_engine(grid.lines, number))
    return table


def _fits(grid: Grid, place: int) -> bool:
    """Short columns only; nodes only where a job had several."""
    if grid.columns[place].heading == "nodes":
        return any(line.cells[place].value not in (None, 1) for line in grid.lines)
    return grid.columns[place].short is not None


def _stacked(cell: Cell) -> Text:
    text = Text(cell.text, style="bold red" if cell.alarm else "")
    return text.append(f"\n{cell.short_note}", style="dim") if cell.short_note else text


def _ends_engine(lines: Sequence[Line], number: int) -> bool:
    if number + 1 == len(lines):
        return False
    return lines[number].cells[0] != lines[number + 1].cells[0]


def _has_interval(grid: Grid) -> bool:
    return any(cell.short_note for line in grid.lines for cell in line.cells)
