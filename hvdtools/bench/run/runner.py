"""From a suite to result lines: every case started by `hvdtools launch`, one after another."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvdtools.bench.results.measured import Measured, from_dict
from hvdtools.bench.results.result_file import Result, append, results_so_far
from hvdtools.bench.run import environment
from hvdtools.bench.run.placement import Placement, inside_slurm
from hvdtools.bench.suite.cases import Case, name_of, names_of
from hvdtools.bench.suite.suite_file import Suite
from hvdtools.core import installed
from hvdtools.core.errors import TIMED_OUT, HvdtoolsError
from hvdtools.launch import Outcome, Plan, detect_host, make_plan, run
from hvdtools.launch.machine import Machine
from hvdtools.launch.schedulers.ssh import Hosts

# 128 + SIGHUP, SIGINT, SIGTERM. In a Slurm job they may reach the ranks before this process.
_SIGNALLED = (129, 130, 143)
_BY_USER = "stopped by the user"

Say = Callable[[Case, str], None]


@dataclass(frozen=True)
class Run:
    """One run of a suite, or what is left of it.

    Attributes:
        suite: What is measured.
        placement: Where.
        run_id: Its name in the results.
        file: Where results are appended. On several nodes all of them must see its folder.
    """

    suite: Suite
    placement: Placement
    run_id: str
    file: Path

    def left_of(self, wanted: Sequence[Case]) -> list[Case]:
        """The cases that have no result in `file` yet; one that failed has had its turn.

        Raises:
            HvdtoolsError: The run measured another suite: its results would not compare.
        """
        mine = [each for each in results_so_far(self.file) if each.run_id == self.run_id]
        if any(each.suite_digest != self.suite.digest for each in mine):
            raise HvdtoolsError(
                f"The suite {self.suite.name!r} has changed since run {self.run_id} began: start a "
                "new run without --resume."
            )
        done = {name_of(result) for result in mine}
        return [case for case in wanted if not done.issuperset(names_of(case))]


def run_cases(this: Run, wanted: Sequence[Case], say: Say) -> Iterator[Result]:
    """Run the cases and yield each result when it is on disk.

    A case that fails is a result that says why, for each of its engines; the
    suite goes on.

    Args:
        say: Called when a case starts, and with each line that its rank 0 prints.

    Raises:
        HvdtoolsError: The user stopped it, by Ctrl-C or a signal; what ran then
            leaves no result.
    """
    machine = detect_host()
    for case in wanted:
        say(case, "starting")
        ended = _run_case(this, case, machine, say)
        if any(result.error == _BY_USER for result in ended):
            raise HvdtoolsError(
                f"The run was stopped: the same command with `--resume --run {this.run_id}` goes "
                f"on where it was, and `hvdtools bench report {this.file.parent}` shows what was "
                "measured until then."
            )
        for result in ended:
            append(this.file, result)
            yield result


def _run_case(this: Run, case: Case, machine: Machine, say: Say) -> list[Result]:
    port = free_ports(case.ranks)
    plan: Plan | None = None
    measured: dict[str, Measured] = {}
    exit_code, error = 0, None
    start_s = time.perf_counter()
    # Beside the results, since on several nodes rank 0 may be on another than this.
    with tempfile.TemporaryDirectory(prefix=".running-", dir=this.file.parent) as folder:
        answer = Path(folder).resolve() / "result.jsonl"
        try:
            check_installed(case)
            plan = make_plan(this.placement.job(this.suite, case, port, answer), machine)
            outcome = run(plan, on_line=_only_rank_0(case, say), timeout_s=this.suite.timeout_s)
            exit_code, error = outcome.exit_code, _why(outcome, this.suite.timeout_s)
            if error is None:
                measured = _measured(case, answer)
        except HvdtoolsError as problem:
            exit_code, error = 2, str(problem)
    wall_s = time.perf_counter() - start_s
    # Over ssh a host has an environment of its own.
    inherited = {} if isinstance(this.placement.on, Hosts) else os.environ
    seen = {**inherited, **dict(plan.env if plan else ())}
    return [
        Result(
            run_id=this.run_id,
            time_utc=now_utc(),
            suite=this.suite.name,
            suite_digest=this.suite.digest,
            family=case.program.family,
            kind=case.family.kind,
            program=case.program.file.name,
            options=case.program.options_under(case.scaling),
            engine=engine,
            interleaved=case.engines,
            scaling=case.scaling,
            ranks=case.ranks,
            nodes=case.nodes,
            repeat=case.repeat,
            wall_s=round(wall_s, 3),
            exit_code=exit_code,
            error=None if error is None else environment.without_names(error),
            command=this.placement.command_by_hand(this.suite, case, port),
            versions=environment.versions(machine.mpirun.name if machine.mpirun else "none found"),
            hardware=environment.hardware(),
            environment=environment.recorded_environment(seen),
            measured=measured.get(engine),
        )
        for engine in case.engines
    ]


def check_installed(case: Case) -> None:
    """Raise if the program's framework is missing, or the Horovod here does not fit it.

    A rank would say so too, in a traceback.
    """
    package = case.family.package
    if installed.framework_version(package) is None:
        raise HvdtoolsError(
            f"{case.family.name} needs {package}, which is not installed: run "
            f"`pip install {package}` and `hvdtools build`."
        )
    if any(engine.uses_horovod for engine in case.bench_engines):
        installed.require(package)


def _measured(case: Case, answer: Path) -> dict[str, Measured]:
    """Engine -> what the program wrote of it.

    Raises:
        HvdtoolsError: It wrote nothing, or something else.
    """
    if not answer.is_file():
        raise HvdtoolsError("the program ended well but wrote no result")
    found = {}
    for line in answer.read_text(encoding="utf-8").splitlines():
        measured = from_dict(case.family.kind, json.loads(line))
        found[measured.engine] = measured
    by_name = {
        name: found.pop(engine.program_engine, None)
        for name, engine in zip(case.engines, case.bench_engines, strict=True)
    }
    missing = [name for name, measured in by_name.items() if measured is None]
    if missing or found:
        raise HvdtoolsError(
            f"the program was asked for {', '.join(case.engines)}, left out "
            f"{', '.join(missing) or 'none'} and wrote of {', '.join(found) or 'no other'}"
        )
    return {name: measured for name, measured in by_name.items() if measured is not None}


def _only_rank_0(case: Case, say: Say) -> Callable[[int | None, str, str], None]:
    def on_line(rank: int | None, stream: str, line: str) -> None:
        if rank == 0 and stream == "stdout":
            say(case, line.rstrip())

    return on_line


def _why(outcome: Outcome, timeout_s: float) -> str | None:
    """Why a job failed, in one line; None for one that did not."""
    if outcome.exit_code == 0:
        return None
    if outcome.exit_code == TIMED_OUT:
        return f"not done after the {timeout_s:g} s that the suite allows a case"
    if outcome.exit_code in _SIGNALLED and (outcome.stopped or inside_slurm()):
        return _BY_USER
    who = "the job" if outcome.failed_rank is None else f"rank {outcome.failed_rank}"
    return f"{who} ended with exit code {outcome.exit_code}: {_last_words(outcome)}"


def _last_words(outcome: Outcome) -> str:
    return " / ".join(line.strip() for line in outcome.last_lines[-3:] if line.strip())


def free_ports(count: int) -> int:
    """The first of `count` TCP ports in a row that nobody listens on.

    Another program could take one of them before the job does.
    """
    for _ in range(100):
        with contextlib.ExitStack() as held:
            first = 0
            try:
                for number in range(count):
                    listener = held.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", first + number if first else 0))
                    first = first or int(listener.getsockname()[1])
            except (OSError, OverflowError):
                continue  # a port above the first is taken, or there is none
            return first
    raise HvdtoolsError(f"There are no {count} free TCP ports in a row: close some programs.")


def now_utc() -> str:
    """The time as ISO 8601, "2026-01-31T12:00:00+00:00"."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
