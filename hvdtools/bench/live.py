"""What the user sees while a suite runs: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hvdtools.bench.cases import Case
from hvdtools.bench.engines import as_it_ran
from hvdtools.bench.results import Result

QUIET_S = 2.0  # a log gets a line of the running case at most this often


class Watcher:
    """Shows the case that runs and what its program says, and a line for each that ended."""

    def __init__(self, console: Console, progress: Progress, cases: int) -> None:
        self._console, self._progress, self._cases = console, progress, cases
        self._task = progress.add_task("", total=cases)
        self._done = 0
        self._said_s = time.monotonic()

    def say(self, case: Case, line: str) -> None:
        """A line from rank 0 of the case that runs."""
        if self._console.is_terminal:
            self._progress.update(self._task, description=escape(f"{_named(case)}: {line}"))
        elif time.monotonic() - self._said_s >= QUIET_S:
            self._print(f"  {_named(case)}: {line}")

    def ended(self, result: Result) -> None:
        """A case is over."""
        self._done += 1
        self._progress.update(self._task, completed=self._done)
        self._print(f"{self._done}/{self._cases} {_outcome(result)}")

    def _print(self, line: str) -> None:
        self._said_s = time.monotonic()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def watching(console: Console, cases: int) -> Iterator[Watcher]:
    """Show progress over that many cases while the block runs."""
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


def _named(case: Case) -> str:
    return f"{case.engine}, {_ranks(case.ranks)}, round {case.round}"


def _ranks(ranks: int) -> str:
    return "1 rank" if ranks == 1 else f"{ranks} ranks"


def _outcome(result: Result) -> str:
    named = (
        f"{as_it_ran(result.engine, result.moved_by)}, {_ranks(result.ranks)}, round {result.round}"
    )
    if result.error is not None or result.samples_per_s is None:
        return f"{named}: FAILED, {result.error}"
    synced = {True: ", replicas in sync", False: ", REPLICAS DIFFER", None: ""}[result.in_sync]
    accuracy = "" if result.accuracy is None else f", accuracy {100 * result.accuracy:.1f} %"
    return (
        f"{named}: {result.samples_per_s:,.0f} samples/s{accuracy}{synced} ({result.wall_s:.1f} s)"
    )
