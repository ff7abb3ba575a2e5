"""What the user sees while a suite runs: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hvdtools.bench.analysis.bandwidth import busbw_gb_per_s
from hvdtools.bench.analysis.interval import median_interval
from hvdtools.bench.formatting import (
    format_bytes,
    format_half_width,
    format_list,
    format_number,
    format_size,
)
from hvdtools.bench.results.measured import Allreduce, Training
from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.cases import Case
from hvdtools.bench.suite.engines import as_it_ran

QUIET_S = 2.0  # a log gets a line of the running job at most this often


class Watcher:
    """Shows the job that runs and what its program says, and a line for each engine that ended."""

    def __init__(self, console: Console, progress: Progress, cases: int) -> None:
        self._console, self._progress, self._cases = console, progress, cases
        self._task = progress.add_task("", total=cases)
        self._ended: set[tuple[object, ...]] = set()
        self._said_s = time.monotonic()

    def say(self, case: Case, line: str) -> None:
        """A line from rank 0 of the job that runs."""
        if self._console.is_terminal:
            self._progress.update(self._task, description=escape(f"{_named(case)}: {line}"))
        elif time.monotonic() - self._said_s >= QUIET_S:
            self._print(f"  {_named(case)}: {line}")

    def ended(self, result: Result) -> None:
        """A job is over, for one of its engines."""
        self._ended.add(_job(result))
        self._progress.update(self._task, completed=len(self._ended))
        self._print(f"{len(self._ended)}/{self._cases} {outcome(result)}")

    def _print(self, line: str) -> None:
        self._said_s = time.monotonic()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def watching(console: Console, cases: int) -> Iterator[Watcher]:
    """Show progress over that many jobs while the block runs."""
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    # The ranks own the cores: a bar drawn often would slow what is measured.
    with Progress(
        *columns, console=console, refresh_per_second=2, disable=not console.is_terminal
    ) as progress:
        yield Watcher(console, progress, cases)


def _job(result: Result) -> tuple[object, ...]:
    """What the results of interleaved engines have in common, and no other job has."""
    options = tuple(sorted(result.options.items()))
    where = (result.scaling, result.ranks, result.nodes, result.repeat)
    return (result.program, result.family, options, result.interleaved, *where)


def _named(case: Case) -> str:
    return f"{format_list(case.engines)}, {_where(case.ranks, case.nodes, case.repeat)}"


def _where(ranks: int, nodes: int, turn: int) -> str:
    return f"{format_size(ranks, nodes)}, repeat {turn}"


def outcome(result: Result) -> str:
    """The result in a line: whose, where, and what was found or why nothing was."""
    measured = result.measured
    transport = None if measured is None else getattr(measured, "transport", None)
    engine = as_it_ran(result.family, result.engine, transport)
    scaling = f", {result.scaling} scaling" if result.scaling else ""
    model = getattr(measured, "model", result.options.get("model"))
    named = f"{f'{model}, ' if model else ''}{engine}, "
    named += f"{_where(result.ranks, result.nodes, result.repeat)}{scaling}"
    if result.error is not None or measured is None:
        return f"{named}: FAILED, {result.error}"
    found = _allreduces(result, measured) if isinstance(measured, Allreduce) else _rate(result)
    if isinstance(measured, Training):
        found += _trained(measured)
    return f"{named}: {found} ({result.wall_s:.1f} s)"


def _rate(result: Result) -> str:
    rates = result.block_rates
    interval = median_interval(rates)
    width = "" if interval is None else f" {format_half_width(interval.half_width)}"
    return f"{format_number(float(np.median(rates)))} samples/s{width}"


def _trained(training: Training) -> str:
    synced = {True: ", replicas in sync", False: ", REPLICAS DIFFER", None: ""}[training.in_sync]
    accuracy = "" if training.accuracy is None else f", accuracy {100 * training.accuracy:.1f} %"
    return f"{accuracy}{synced}"


def _allreduces(result: Result, measured: Allreduce) -> str:
    done = [point for point in measured.points if point.op_s]
    if not done:
        return "no all-reduce that it does"
    rate, most = max(
        (busbw_gb_per_s(point.message_bytes, float(np.median(point.op_s)), result.ranks), number)
        for number, point in enumerate(done)
    )
    best = done[most]
    wrong = sum(point.wrong_elements for point in done)
    return (
        f"best bus bandwidth {rate:.3g} GB/s ({format_bytes(best.message_bytes)} of "
        f"{best.dtype}){f', {wrong:,} WRONG ELEMENTS' if wrong else ''}"
    )
