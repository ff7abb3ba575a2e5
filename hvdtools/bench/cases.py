"""A suite unrolled into cases, in the order they are run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from hvdtools.bench.engines import ENGINES, BenchEngine
from hvdtools.bench.program import PROGRAMS, Program
from hvdtools.bench.suite import Suite


@dataclass(frozen=True)
class Case:
    """One job: a program under an engine on a number of ranks, in one round (from 1)."""

    program: Program
    engine: str
    ranks: int
    round: int


def cases(suite: Suite) -> list[Case]:
    """All cases: every engine and rank count once, then again in the next round.

    A machine that slows down or a neighbour that wakes up thus falls on every
    engine alike, and the engines of one program, round and rank count run back
    to back.
    """
    return [
        Case(program, engine, ranks, turn)
        for turn in range(1, suite.rounds + 1)
        for program in suite.programs
        for ranks in suite.ranks
        for engine in program.engines
    ]


def program_arguments(case: Case) -> tuple[str, ...]:
    """What the program is told, but for where to put its result."""
    arguments = ["--engine", ENGINES[case.engine].program_engine]
    for name, value in case.program.train:
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    return tuple(arguments)


def environment(suite: Suite, engine: BenchEngine, port: int) -> tuple[tuple[str, str], ...]:
    """What the ranks see beside what they inherit: the same thread bound for every case."""
    bound = (("OMP_NUM_THREADS", str(suite.threads_per_rank)), *engine.environment)
    if not engine.needs_ports:
        return bound
    return (*bound, ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(port)))


def command_by_hand(suite: Suite, case: Case, port: int) -> str:
    """The case as a line to paste in a clone: no path of the machine that it ran on."""
    engine, file = ENGINES[case.engine], case.program.file
    program = f"benchmarks/{file.name}" if file.parent == PROGRAMS else file.name
    words = ["hvdtools", "launch", "-n", str(case.ranks), "--with", engine.starter]
    for name, value in environment(suite, engine, port):
        words += ["--env", f"{name}={value}"]
    return shlex.join([*words, "--", "python", program, *program_arguments(case)])


def results_folder(suite: Suite) -> Path:
    """Where a suite's results go unless the user says otherwise."""
    return Path("results") / suite.name
