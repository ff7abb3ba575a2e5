"""`hvdtools bench`: run a suite, show what it found."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvdtools.errors import HvdtoolsError

if TYPE_CHECKING:
    from rich.console import Console

    from hvdtools.bench.results import Result
    from hvdtools.bench.suite import Suite

bench = typer.Typer(help="Measure how training scales with the number of ranks.")


@bench.command("run")
def run(
    suite: Annotated[str, typer.Argument(help="A suite's name (demo), or a path to a .toml file.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of results, added to.  [default: results/SUITE]"),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="How often each case is run.  [default: as the suite says]")
    ] = None,
) -> None:
    """Run every case of SUITE; write each result when it is known; end with a table and a page."""
    from rich.console import Console

    from hvdtools.bench.cases import cases, results_folder
    from hvdtools.bench.live import watching
    from hvdtools.bench.results import FILE_NAME, new_run_id
    from hvdtools.bench.runs import now_utc, run_suite
    from hvdtools.bench.suite import load

    wanted = load(suite)
    if rounds is not None:
        wanted = dataclasses.replace(wanted, rounds=rounds)
    _check_data(wanted)
    folder = _made(results_folder(wanted) if out is None else out)
    run_id = new_run_id(now_utc())
    console = Console()
    with watching(console, len(cases(wanted))) as watcher:
        for result in run_suite(wanted, run_id, folder / FILE_NAME, watcher.say):
            watcher.ended(result)
    results = _show(console, folder, run_id)
    _exit_if_untrue(results)


@bench.command("report")
def report(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder of results.  [default: the newest in results/]")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Which run.  [default: the newest]")] = None,
) -> None:
    """Show a run's table again and write its page, report.html, anew."""
    from rich.console import Console

    _show(Console(), folder or _newest(Path("results")), run)


def _show(console: Console, folder: Path, run_id: str | None) -> tuple[Result, ...]:
    """Print the table, write the page, say where both are."""
    from hvdtools.bench.report import write_page
    from hvdtools.bench.results import FILE_NAME, read
    from hvdtools.bench.stats import by_framework, summarise
    from hvdtools.bench.table import show

    reading = read(folder / FILE_NAME)
    results = reading.of_run(run_id)
    if reading.cut_lines:
        typer.echo(
            f"{reading.cut_lines} line(s) of {folder / FILE_NAME} were cut short and are left out.",
            err=True,
        )
    first = results[0]
    typer.echo(f"{first.suite}, {first.scaling} scaling, run {first.run_id}")
    for framework, of_one in by_framework(results).items():
        show(console, framework, summarise(of_one))
    page = write_page(folder, results)
    typer.echo(f"results: {folder / FILE_NAME}\nreport:  {page}")
    return results


def _exit_if_untrue(results: tuple[Result, ...]) -> None:
    """End with code 1 where a case failed or replicas differ: a script must not pass over it."""
    failed = sum(result.error is not None for result in results)
    differing = sum(result.in_sync is False for result in results)
    if failed or differing:
        typer.echo(
            f"hvdtools: {failed} of {len(results)} cases failed, and in {differing} the replicas "
            "differ: the table says which.",
            err=True,
        )
        raise typer.Exit(1)


def _check_data(suite: Suite) -> None:
    """Say before the first case, not in each, that the images are missing."""
    missing = importlib.util.find_spec("sklearn") is None
    if missing and any(program.asked("data") == "digits" for program in suite.programs):
        raise HvdtoolsError(
            "The digits images come with scikit-learn, which is not installed: run "
            '`pip install scikit-learn`, or set data = "synthetic" in the suite.'
        )


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HvdtoolsError(
            f"The folder {folder} cannot be made ({error.strerror}): choose another with --out."
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise HvdtoolsError(f"The folder {folder} cannot be written to: choose another with --out.")
    return folder


def _newest(folder: Path) -> Path:
    from hvdtools.bench.results import FILE_NAME

    files = sorted(folder.glob(f"*/{FILE_NAME}"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise HvdtoolsError(
            f"There are no results in {folder}: run `hvdtools bench run demo`, or name a folder."
        )
    return files[-1].parent
