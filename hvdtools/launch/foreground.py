"""Runs a plan for a user who watches: progress, log files, restarts, last words."""

from __future__ import annotations

import io
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from hvdtools.launch.logfiles import LogFiles
from hvdtools.launch.outcome import Outcome, outcome_text
from hvdtools.launch.plan import Plan
from hvdtools.launch.progress import Progress
from hvdtools.launch.run import run, show
from hvdtools.launch.spec import JobSpec

_BROKEN_PIPE = 141  # 128 + SIGPIPE: what a shell reports for a program whose reader went away


def run_and_tell(plan: Plan, spec: JobSpec) -> int:
    """Run the plan, again as often as `spec.restarts` allows, and return its exit code.

    Raises:
        HvdtoolsError: The log files cannot be written; nothing was started then.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a rank's text must not break a plain terminal
            stream.reconfigure(errors="backslashreplace")
    folder = spec.log_dir
    with LogFiles(folder, plan.ranks) if folder else nullcontext() as files:
        try:
            return _run_with_restarts(plan, spec, files)
        except BrokenPipeError:
            # Whoever read our output is gone; Python would complain once more when it closes it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _BROKEN_PIPE


def _run_with_restarts(plan: Plan, spec: JobSpec, files: LogFiles | None) -> int:
    for attempt in range(spec.restarts + 1):
        if attempt and files is not None:
            files.restart(attempt)
        outcome = _run_once(plan, spec, files)
        code = spec.on.exit_code(outcome)
        if outcome.exit_code == 0:
            return code
        print(outcome_text(plan.launcher, outcome), file=sys.stderr, flush=True)
        if outcome.stopped or outcome.told_to_save or attempt == spec.restarts:
            break
        print(f"restart {attempt + 1} of {spec.restarts}", file=sys.stderr, flush=True)
    if files is not None:
        print(f"each rank's output is in {Path(spec.log_dir or '')}", file=sys.stderr)
    return code


def _run_once(plan: Plan, spec: JobSpec, files: LogFiles | None) -> Outcome:
    progress = Progress(plan.note)

    def on_line(rank: int | None, stream: str, line: str) -> None:
        progress.saw(rank, line)
        if files is not None and rank is not None:
            files.write(rank, line)
        show(rank, stream, line)

    try:
        return run(plan, on_line=on_line, timeout_s=spec.timeout_s)
    finally:
        progress.stop()
