"""Asks hosts for their facts, all at once, over ssh or through Slurm's srun."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hvdtools.build.query import Answer, query
from hvdtools.core.errors import TIMED_OUT, HvdtoolsError
from hvdtools.doctor.cluster.facts import HostAnswer, HostFacts, read_host_facts
from hvdtools.doctor.cluster.probe_host import LATE, LIMIT_S, MARK
from hvdtools.doctor.explain import shortened
from hvdtools.launch.hosts import Host
from hvdtools.launch.reach import AT_ONCE, Problem, problems, ssh

_PROGRAM = (sys.executable, "-m", "hvdtools.doctor.cluster.probe_host")
_PATIENCE_S = LIMIT_S + 20


def ask_all(
    hosts: Sequence[Host], way: str, on_answer: Callable[[HostAnswer], object]
) -> tuple[HostAnswer, ...]:
    """Ask every host; `on_answer` is told each answer as it comes.

    Args:
        way: "ssh" or "srun".

    Raises:
        HvdtoolsError: There is no ssh on this machine, or no host of that name.
    """
    names = [host.name for host in hosts]
    unreached = problems(names, Path.cwd(), sys.executable) if way == "ssh" else {}
    for problem in unreached.values():
        if problem.unknown:
            raise HvdtoolsError(f"{problem.message}: {problem.remedy}.")

    def ask(host: Host) -> HostAnswer:
        problem = unreached.get(host.name)
        answer = HostAnswer(host, problem=problem) if problem else _ask(host, way, names)
        on_answer(answer)
        return answer

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(pool.map(ask, hosts))


def _ask(host: Host, way: str, names: Sequence[str]) -> HostAnswer:
    known_as = [name.rpartition("@")[2] for name in names]
    command = (*_PROGRAM, "--slots", str(host.slots), *known_as)
    argv = ssh(host.name, shlex.join(command)) if way == "ssh" else srun(host.name, command)
    said = query(argv, _PATIENCE_S)
    return read(host, said, way, time.time())


def srun(host: str, command: Sequence[str]) -> tuple[str, ...]:
    """The command line that runs a program once on a node of this allocation.

    It does not wait for the resources of another step, such as a shell's under `srun --pty`.
    """
    one = ("--nodes=1", "--ntasks=1", "--ntasks-per-node=1", f"--nodelist={host}")
    return ("srun", *one, "--overlap", "--mpi=none", "--quiet", "--chdir=/", *command)


def read(host: Host, said: Answer | None, way: str, now_s: float) -> HostAnswer:
    """What asking a host came to, from what was said until `now_s`."""
    if said is None:
        return HostAnswer(host, problem=Problem(f"{way} cannot be started here", f"install {way}"))
    lines = [line for line in said.text.splitlines() if line.strip()]
    told = [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]
    if not told:
        return HostAnswer(host, problem=_problem(host.name, said.status, lines, way))
    try:
        facts = read_host_facts(json.loads(told[-1]))
    except (KeyError, TypeError, ValueError):
        message = f"{host.name} has another version of hvdtools, whose answer is not understood"
        return HostAnswer(host, problem=Problem(message, f"install the same on {host.name}"))
    return HostAnswer(host, facts, ahead_s=_ahead(facts, said.status, now_s))


def _ahead(facts: HostFacts, status: int, now_s: float) -> float:
    # Where ssh lingered, the time of the answer is not known.
    return 0.0 if status == TIMED_OUT else facts.clock_s - now_s


def _problem(name: str, status: int, lines: list[str], way: str) -> Problem:
    text = "\n".join(lines)
    if status == TIMED_OUT or LATE in lines:
        return Problem(
            f"{name} hangs: {way} reaches it, but the doctor had no answer from it in {LIMIT_S} s",
            f"log in to {name} and look whether a network disk or nvidia-smi hangs there",
        )
    if "hvdtools" in text and ("No module named" in text or "ModuleNotFoundError" in text):
        return Problem(
            f"{name} has no hvdtools, or an older one, in {sys.executable}",
            f"install this hvdtools on {name}, in the same Python environment",
        )
    because = shortened(lines[-1].strip() if lines else f"{way} ended with {status}")
    remedy = f"fix what it says on {name}, or leave the host out"
    return Problem(f"{name} cannot be looked at: {because}", remedy)
