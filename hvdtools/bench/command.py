"""`hvdtools bench`: run a suite, show what it found, compare runs, predict larger machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvdtools.core.renamed import new_name, new_value

if TYPE_CHECKING:
    from hvdtools.bench.results.result_file import Result
    from hvdtools.bench.run.run_options import Flags
    from hvdtools.bench.run.runner import Run
    from hvdtools.bench.suite.cases import Case

bench = typer.Typer(help="Measure how training scales with the number of ranks.")

_WHERE, _WHAT, _AGAIN = "Where", "What", "Again"


@bench.command("run")
def run(
    suite: Annotated[
        str, typer.Argument(help="demo, cpu, gpu or cluster, or a path to a .toml file.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of results, added to.  \\[default: results/SUITE]"),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            help="How often each case is run.  \\[default: as the suite says]",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(hidden=True)] = None,
    ranks: Annotated[
        str | None,
        typer.Option(metavar="1,2,4", help="Numbers of ranks on one node.", rich_help_panel=_WHAT),
    ] = None,
    nodes: Annotated[
        str | None,
        typer.Option(metavar="1,2,4", help="Numbers of full nodes.", rich_help_panel=_WHAT),
    ] = None,
    ranks_per_node: Annotated[
        int | None, typer.Option(help="Ranks on a full node.", rich_help_panel=_WHAT)
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(help="local, hosts or slurm.  \\[default: local]", rich_help_panel=_WHERE),
    ] = None,
    hosts: Annotated[
        str | None,
        typer.Option(metavar="a:4,b:4", help="Hosts that ssh reaches.", rich_help_panel=_WHERE),
    ] = None,
    interface: Annotated[
        str | None,
        typer.Option(help="The network interface that ranks talk over.", rich_help_panel=_WHERE),
    ] = None,
    oversubscribe: Annotated[
        bool,
        typer.Option("--oversubscribe", help="More ranks than cores.", rich_help_panel=_WHERE),
    ] = False,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="Any option of sbatch, as in --sbatch partition=gpu; may be repeated.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the newest run in the folder.", rich_help_panel=_AGAIN
        ),
    ] = False,
    run: Annotated[
        str | None,
        typer.Option(help="Which run to go on with, or a new one's name.", rich_help_panel=_AGAIN),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write tables as CSV, too.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every case's command, and stop.")
    ] = False,
) -> None:
    """Run every case of SUITE; write each result when it is known; end with a table and a page."""
    from hvdtools.bench.run.run_options import Flags

    flags = Flags(
        suite=suite,
        out=out,
        repeats=new_value("--rounds", rounds, "--repeats", repeats),
        ranks=ranks,
        nodes=nodes,
        ranks_per_node=ranks_per_node,
        on=on,
        hosts=hosts,
        interface=interface,
        oversubscribe=oversubscribe,
        sbatch=tuple(sbatch or ()),
        resume=resume,
        run=run,
    )
    _run(flags, csv=csv, dry_run=dry_run)


def _run(flags: Flags, *, csv: bool, dry_run: bool) -> None:
    from hvdtools.bench.report.console import report_run
    from hvdtools.bench.results.result_file import FILE_NAME, migrate_file
    from hvdtools.bench.run.placement import inside_slurm
    from hvdtools.bench.run.run_options import made, placement_of, run_id_of, suite_of
    from hvdtools.bench.run.runner import Run
    from hvdtools.bench.suite.cases import cases, results_folder

    wanted, placement = suite_of(flags), placement_of(flags)
    todo = cases(wanted)
    folder = results_folder(wanted) if flags.out is None else flags.out
    is_submitted = flags.on == "slurm" and not inside_slurm()
    if not is_submitted:
        # Also before a run: a placement that is too small is said here, and nothing has started.
        commands = [placement.command_by_hand(wanted, case, 29500) for case in todo]
        if dry_run:
            typer.echo("\n".join(commands))
            return
    this = Run(wanted, placement, run_id_of(flags, folder / FILE_NAME), folder / FILE_NAME)
    if not dry_run:
        made(folder)
        migrate_file(this.file)
    if is_submitted:
        _submit(this, todo, flags, dry_run=dry_run)
        if dry_run:
            return
    else:
        _measure(this, todo)
    results = report_run(folder, this.run_id, csv=csv)
    _exit_if_untrue(results)


def _measure(this: Run, wanted: list[Case]) -> None:
    from rich.console import Console

    from hvdtools.bench.run.progress import watching
    from hvdtools.bench.run.runner import run_cases

    left = this.left_of(wanted)
    if len(left) < len(wanted):
        typer.echo(f"{len(wanted) - len(left)} of {len(wanted)} cases are there already.")
    with watching(Console(), len(left)) as watcher:
        for result in run_cases(this, left, watcher.say):
            watcher.ended(result)


def _submit(this: Run, wanted: list[Case], flags: Flags, *, dry_run: bool) -> None:
    """One Slurm job for each number of nodes that has cases left."""
    import shlex

    from hvdtools.bench.run.run_options import sbatch_words, words_again
    from hvdtools.bench.run.slurm_jobs import Request, gather, jobs_for, run_jobs, submissions

    folder = this.file.parent
    sbatch = sbatch_words(flags)
    request = Request(flags.suite, this.run_id, folder, words_again(flags), sbatch)
    jobs = submissions(request, this.suite)
    if dry_run:
        for nodes, job in jobs.items():
            typer.echo(f"# nodes {nodes}: {shlex.join(job.argv)}\n{job.document}")
        return
    gather(request)
    run_jobs(jobs_for(this.left_of(wanted), jobs), request, typer.echo)


@bench.command("report")
def report(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A folder of results.  \\[default: the newest in results/]"),
    ] = None,
    run: Annotated[str | None, typer.Option(help="Which run.  \\[default: the newest]")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write tables as CSV, too.")] = False,
) -> None:
    """Show a run's table again and write its page, report.html, anew."""
    from hvdtools.bench.report.console import report_run
    from hvdtools.bench.run.run_options import newest

    report_run(folder or newest(Path("results")), run, csv=csv)


@bench.command("compare")
def compare(
    baseline: Annotated[str, typer.Argument(help="A folder of results, or FOLDER@RUN.")],
    candidate: Annotated[
        str, typer.Argument(help="Another folder, or another run in the same one.")
    ],
    tolerance: Annotated[
        float, typer.Option(help="What counts as no change: 0.03 is 3 % either way.")
    ] = 0.03,
) -> None:
    """Tell what became slower from noise; exit code 1 if anything did, or failed."""
    from rich.console import Console

    from hvdtools.bench.report.console import print_comparison, read_run

    regressions = print_comparison(Console(), read_run(baseline), read_run(candidate), tolerance)
    if regressions:
        raise typer.Exit(1)


@bench.command("predict")
def predict(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A folder of results.  \\[default: the newest in results/]"),
    ] = None,
    ranks: Annotated[
        str | None,
        typer.Option(
            metavar="8,64,512",
            help="Numbers of ranks to predict.  \\[default: 8,64,512; of a single node without "
            "--network those measured]",
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="100Gbit[,5us]",
            help="A node's link, and the latency of a hop.  \\[default: as measured]",
        ),
    ] = None,
    ranks_per_node: Annotated[
        int | None, typer.Option(help="Ranks on a node.  \\[default: as measured]")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Which engine.  \\[default: all that were measured]")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Which model.  \\[default: all that were measured]")
    ] = None,
    allreduces_per_step: Annotated[
        int | None,
        typer.Option(help="All-reduces in a step.  \\[default: as the engine says]"),
    ] = None,
    messages: Annotated[int | None, typer.Option(hidden=True)] = None,
    run: Annotated[str | None, typer.Option(help="Which run.  \\[default: the newest]")] = None,
) -> None:
    """Say what the measured training would do on more ranks or another network, and how surely."""
    from rich.console import Console

    from hvdtools.bench.analysis.summary import analyze
    from hvdtools.bench.predict.engine_prediction import PredictionRequest
    from hvdtools.bench.predict.network import parse_network
    from hvdtools.bench.predict.run_prediction import LARGE_RANKS, default_ranks, predict_run
    from hvdtools.bench.report.console import print_prediction
    from hvdtools.bench.results.result_file import FILE_NAME, read
    from hvdtools.bench.run.run_options import counts, newest
    from hvdtools.bench.suite.engines import RENAMED_ENGINES

    folder = folder or newest(Path("results"))
    summary = analyze(read(folder / FILE_NAME).of_run(run))
    given = None if network is None else parse_network(network)
    by_default = default_ranks(summary, given, ranks_per_node)
    request = PredictionRequest(
        ranks=by_default if ranks is None else counts("--ranks", ranks),
        network=given,
        ranks_per_node=ranks_per_node,
        engine=None if engine is None else new_name("engine", engine, RENAMED_ENGINES),
        model=model,
        allreduces_per_step=new_value(
            "--messages", messages, "--allreduces-per-step", allreduces_per_step
        ),
    )
    print_prediction(Console(), folder, summary, predict_run(summary, request))
    if ranks is None and by_default != LARGE_RANKS:
        typer.echo(
            "The network between nodes was not measured: to predict more ranks, describe it as in "
            "--network 100Gbit,5us."
        )


def _exit_if_untrue(results: tuple[Result, ...]) -> None:
    """End with code 1 where a case failed or is wrong: a script must not pass over it."""
    failed = sum(result.error is not None for result in results)
    differing = sum(
        result.training is not None and result.training.in_sync is False for result in results
    )
    wrong = sum(
        any(point.wrong_elements for point in result.allreduce.points)
        for result in results
        if result.allreduce is not None
    )
    if failed or differing or wrong:
        said = f"{failed} of {len(results)} cases failed, in {differing} the replicas differ"
        typer.echo(
            f"hvdtools: {said}, and in {wrong} a sum was wrong: the tables say which.", err=True
        )
        raise typer.Exit(1)
