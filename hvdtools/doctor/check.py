"""The all-reduce of `--np N`: real ranks, every framework and controller, the right sums."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hvdtools.build.smoke_test import SmokeTest, attempt, jobs, telling
from hvdtools.doctor.explain import explain, shortened
from hvdtools.doctor.facts import Facts
from hvdtools.doctor.finding import Finding, error, ok, warning

SUBJECT = "all-reduce"


@dataclass(frozen=True)
class Check:
    """One job that was run.

    Attributes:
        name: In words, "torch over MPI, 2 ranks".
        complaint: What is wrong, "" if every rank had the right sums.
        said: Of a job that failed, the lines that say why, four at most.
        elapsed_s: From the start of the job to its end.
    """

    name: str
    complaint: str
    said: tuple[str, ...]
    elapsed_s: float


def planned(facts: Facts, ranks: int) -> Iterator[SmokeTest]:
    """A job for each framework that loads, each controller, and NCCL where it has the GPUs."""
    if facts.horovod is None:
        return
    installed = facts.horovod.installed
    controllers = [name for name in installed.controllers if name != "mpi" or facts.mpi]
    for load in facts.loads:
        if load.complaint or load.framework not in installed.built_for:
            continue
        sizes = {"cpu": ranks}
        if installed.nccl and (load.gpus or 0) >= ranks:
            sizes["gpu"] = ranks
        yield from jobs([load.framework], controllers, sizes, Path(sys.executable), facts.mpi)


def check(facts: Facts, ranks: int, on_start: Callable[[str], object]) -> tuple[Check, ...]:
    """Run the jobs one after another; `on_start` is told the name of each."""
    cores = min(facts.cores.usable, facts.cores.quota or facts.cores.usable)
    done = []
    for test in planned(facts, ranks):
        on_start(test.name)
        tried = attempt(test, ranks / cores)
        said = tuple(telling(tried.output)) if tried.complaint else ()
        done.append(Check(test.name, tried.complaint, said, round(tried.elapsed_s, 1)))
    return tuple(done)


def examine_checks(facts: Facts, ranks: int, checks: tuple[Check, ...]) -> Iterator[Finding]:
    """The jobs' ends as findings, and what could not be run."""
    if not checks:
        yield warning(SUBJECT, "nothing to run it with: fix the errors first")
    for each in checks:
        if not each.complaint:
            yield ok(SUBJECT, f"{each.name}: right sums ({each.elapsed_s:.1f} s)")
            continue
        meaning, remedy = explain("\n".join([*each.said, each.complaint]))
        because = meaning or shortened(each.said[-1] if each.said else "it said nothing")
        message = f"{each.name}: {each.complaint} after {each.elapsed_s:.1f} s: {because}"
        yield error(
            SUBJECT, message, remedy or "run `hvdtools build --smoke-test`, which logs it all"
        )
    if facts.horovod is not None and facts.horovod.installed.nccl:
        for load in facts.loads:
            if load.gpus is not None and load.gpus < ranks:
                message = f"{load.framework} over NCCL was not run: {ranks} ranks, {load.gpus} GPUs"
                yield warning(SUBJECT, message)
