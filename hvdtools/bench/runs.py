"""From a suite to result lines: every case started by `hvdtools launch`, one after another."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hvdtools import installed
from hvdtools.bench import facts
from hvdtools.bench.cases import Case, cases, command_by_hand, environment, program_arguments
from hvdtools.bench.engines import ENGINES, FRAMEWORKS, BenchEngine
from hvdtools.bench.results import Result, append
from hvdtools.bench.suite import Suite
from hvdtools.errors import HvdtoolsError
from hvdtools.launch import JobSpec, Outcome, Plan, look_around, make_plan, run
from hvdtools.launch.machine import Machine

# 128 + SIGHUP, SIGINT, SIGTERM: whoever ended the case meant the suite.
STOPPED = (129, 130, 143)
TIMED_OUT = 124

Say = Callable[[Case, str], None]


def run_suite(suite: Suite, run_id: str, file: Path, say: Say) -> Iterator[Result]:
    """Run every case and yield its result when it is on disk in `file`.

    A case that fails is a result that says why; the suite goes on.

    Args:
        say: Called when a case starts, and with each line that its rank 0 prints.

    Raises:
        HvdtoolsError: The user stopped it, by Ctrl-C or a signal.
    """
    machine = look_around()
    for case in cases(suite):
        say(case, "starting")
        result = _run_case(suite, case, run_id, machine, say)
        append(file, result)
        yield result
        if result.exit_code in STOPPED:
            raise HvdtoolsError(
                f"The run was stopped: `hvdtools bench report {file.parent}` shows what was "
                "measured until then."
            )


def _run_case(suite: Suite, case: Case, run_id: str, machine: Machine, say: Say) -> Result:
    port = free_ports(case.ranks)
    plan: Plan | None = None
    measured: dict[str, Any] = {}
    start_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hvdtools-bench-") as folder:
        answer = Path(folder) / "result.jsonl"
        try:
            _check_installed(ENGINES[case.engine])
            plan = make_plan(_job(suite, case, port, answer), machine)
            outcome = run(plan, on_line=_only_rank_0(case, say), timeout_s=suite.timeout_s)
            exit_code, error = outcome.exit_code, _why(outcome, suite.timeout_s)
        except HvdtoolsError as not_started:
            exit_code, error = 2, str(not_started)
        if error is None and not answer.is_file():
            error = "the program ended well but wrote no result"
        if error is None:
            measured = json.loads(answer.read_text())
    wall_s = time.perf_counter() - start_s
    seen = {**os.environ, **dict(plan.env if plan else ())}
    return Result(
        run_id=run_id,
        time_utc=now_utc(),
        suite=suite.name,
        scaling=suite.scaling,
        framework=case.program.framework,
        program=case.program.file.name,
        model=case.program.asked("model"),
        data=case.program.asked("data"),
        engine=case.engine,
        ranks=case.ranks,
        round=case.round,
        wall_s=round(wall_s, 3),
        exit_code=exit_code,
        error=None if error is None else facts.without_names(error),
        command=command_by_hand(suite, case, port),
        versions=facts.versions(machine.mpirun.name if machine.mpirun else "none found"),
        hardware=facts.hardware(),
        environment=facts.recorded_environment(seen),
        **_measured(suite, case, measured),
    )


def _job(suite: Suite, case: Case, port: int, answer: Path) -> JobSpec:
    arguments = program_arguments(case)
    return JobSpec(
        command=("python", str(case.program.file), *arguments, "--result", str(answer)),
        ranks=case.ranks,
        starter=ENGINES[case.engine].starter,
        env=environment(suite, ENGINES[case.engine], port),
    )


def _check_installed(engine: BenchEngine) -> None:
    """Raise if the engine's framework is missing, or the Horovod here does not fit it.

    A rank would say so too, in a traceback.
    """
    framework = FRAMEWORKS[engine.framework]
    if installed.framework_version(framework.package) is None:
        raise HvdtoolsError(
            f"{framework.name} needs {framework.package}, which is not installed: run "
            f"`pip install {framework.package}` and `hvdtools build`."
        )
    if engine.program_engine == "horovod":
        installed.require(framework.package)


def _measured(suite: Suite, case: Case, said: dict[str, Any]) -> dict[str, Any]:
    """The fields of a result that the program fills; for one that failed, what was asked for."""
    block_s = tuple(said.get("block_s", ()))
    batch = said.get("batch_per_rank", case.program.asked("batch_size"))
    steps = said.get("steps_per_block")
    rate = None
    if block_s:
        rate = float(np.median([said["ranks"] * batch * steps / seconds for seconds in block_s]))
    return {
        "batch_per_rank": batch,
        "threads_per_rank": said.get("threads_per_rank", suite.threads_per_rank),
        "steps_per_block": steps,
        "block_s": block_s,
        "samples_per_s": rate,
        **{name: said.get(name) for name in ("moved_by", "device", "lr", "accuracy", "in_sync")},
    }


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
    if outcome.exit_code in STOPPED:
        return "stopped by the user"
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
