"""How far a build is: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# make's own "[ 42%] Building CXX object horovod/torch/.../operations.cc.o"
_PERCENT = re.compile(r"^\s*\[\s*(\d+)%\]\s*(.*)")
_PLAIN_EVERY_PERCENT = 10


def percent(line: str) -> int | None:
    """The progress that a line of make's output tells, or None."""
    found = _PERCENT.match(line)
    return int(found.group(1)) if found else None


@contextlib.contextmanager
def shown(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Show a step that runs; feed its output lines to what this yields."""
    if console.is_terminal:
        with _bar(console, title) as feed:
            yield feed
    else:
        console.print(f"{title} ...", highlight=False)
        yield _plain(console)


@contextlib.contextmanager
def _bar(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[done]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None, done="")

        def feed(line: str) -> None:
            done = percent(line)
            if done is not None:
                progress.update(task, total=100, completed=done, done=f"{done:3d}%")

        yield feed


def _plain(console: Console) -> Callable[[str], None]:
    start_s = time.monotonic()
    reached = 0

    def feed(line: str) -> None:
        nonlocal reached
        done = percent(line)
        if done is not None and done >= reached + _PLAIN_EVERY_PERCENT:
            reached = done - done % _PLAIN_EVERY_PERCENT
            elapsed_s = time.monotonic() - start_s
            console.print(f"  {done:3d} %  {elapsed_s:5.0f} s", highlight=False)

    return feed
