"""A suite unrolled into cases, in the order they are run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.engines import FAMILIES, BenchEngine, Family
from hvdtools.bench.suite.program import Program
from hvdtools.bench.suite.suite_file import Suite


@dataclass(frozen=True)
class Case:
    """One repeat of a job: a program under one engine or several interleaved, on a number of ranks.

    Attributes:
        program: What runs in every rank.
        engines: Those that take turns in it.
        scaling: "weak", "strong", or None.
        ranks, nodes: Of the job.
        repeat: Which repetition, from 1.
    """

    program: Program
    engines: tuple[str, ...]
    scaling: str | None
    ranks: int
    nodes: int
    repeat: int

    @property
    def family(self) -> Family:
        """The program's."""
        return FAMILIES[self.program.family]

    @property
    def bench_engines(self) -> tuple[BenchEngine, ...]:
        """What is known of `engines`."""
        return tuple(self.family.engines[name] for name in self.engines)


def cases(suite: Suite) -> list[Case]:
    """All cases: every one once, then all again in the next repeat.

    A machine that slows down or a neighbour that wakes up thus falls on every
    engine alike, and the engines of one program, repeat and number of ranks run
    back to back. Every second repeat runs them the other way repeat, so that a drift
    within a repeat falls on both ends, too.

    Raises:
        HvdtoolsError: Strong scaling cannot share its batch evenly.
    """
    made = []
    for turn in range(1, suite.repeats + 1):
        for program in suite.programs:
            for scaling in program.scalings:
                for ranks, nodes in suite.sizes:
                    if ranks == 1 and FAMILIES[program.family].kind == "allreduce":
                        continue  # one rank has nobody to send to
                    program.batch_per_rank(scaling, ranks)
                    jobs = list(together(program))
                    for engines in jobs if turn % 2 else reversed(jobs):
                        made.append(Case(program, engines, scaling, ranks, nodes, turn))
    return made


def together(program: Program) -> Iterator[tuple[str, ...]]:
    """The engines of each job: one, or interleaved all that one launcher serves."""
    if not program.interleaved:
        yield from ((name,) for name in program.engines)
        return
    known = FAMILIES[program.family].engines
    groups: dict[object, list[str]] = {}
    guests = []
    for name in program.engines:
        engine = known[name]
        if engine.launcher is None:
            guests.append(name)
        else:
            groups.setdefault((engine.launcher, engine.environment), []).append(name)
    # Who can be started by anyone joins the first job.
    first = next(iter(groups), None)
    groups.setdefault(first, []).extend(guests)
    # In the suite's order, which is that of the turns.
    for names in groups.values():
        yield tuple(name for name in program.engines if name in names)


def name_of(result: Result) -> tuple[object, ...]:
    """What tells a run's results apart: each is there once, however often the run is resumed."""
    return (
        *(result.family, result.program, tuple(sorted(result.options.items())), result.engine),
        *(result.scaling, result.ranks, result.nodes, result.repeat),
    )


def names_of(case: Case) -> list[tuple[object, ...]]:
    """The same of the results that a case will have, one for each engine."""
    program = case.program
    options = tuple(sorted(program.options_under(case.scaling).items()))
    return [
        (
            *(program.family, program.file.name, options, engine),
            *(case.scaling, case.ranks, case.nodes, case.repeat),
        )
        for engine in case.engines
    ]


def program_arguments(case: Case) -> tuple[str, ...]:
    """What the program is told, but for where to put its result."""
    named = ",".join(engine.program_engine for engine in case.bench_engines)
    arguments = ["--engine", named]
    batch = case.program.batch_per_rank(case.scaling, case.ranks)
    for name, value in case.program.options:
        told = batch if name == "batch_size" else value
        if name == "lr" and case.scaling == "strong":
            told = float(value) / case.ranks  # programs multiply it, and the job's batch stays
        arguments += [f"--{name.replace('_', '-')}", str(told)]
    if batch is not None and case.program.asked("batch_size") is None:
        arguments += ["--batch-size", str(batch)]
    return tuple(arguments)


def results_folder(suite: Suite) -> Path:
    """Where a suite's results go unless the user says otherwise."""
    return Path("results") / suite.name
