"""Collects the facts of all hosts at once: of this machine, over ssh, or through Slurm's srun."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hvdtools.build.programs import Answer, query
from hvdtools.core.errors import TIMED_OUT, HvdtoolsError
from hvdtools.doctor.facts import ClusterFacts, HostAnswer, HostFacts, read_host_facts
from hvdtools.doctor.known_errors import shortened
from hvdtools.doctor.probes import host as probe
from hvdtools.launch import detect_host
from hvdtools.launch.hosts import Host
from hvdtools.launch.ssh_check import AT_ONCE, Problem, problems, ssh

_PROGRAM = (sys.executable, "-m", "hvdtools.doctor.probes.host")
_PATIENCE_S = probe.LIMIT_S + 20


def collect_local(ranks: int | None) -> ClusterFacts:
    """This machine as a cluster of one.

    Args:
        ranks: Ranks to compute threads for; None for one per GPU, or two without GPUs.
    """
    facts = probe.probe_host(ranks, os.environ)
    answer = HostAnswer(Host("localhost", ranks or 1), facts)
    return ClusterFacts("local", socket.gethostname(), facts.versions, (answer,))


def collect_cluster(
    hosts: Sequence[Host], way: str, interface: str | None, on_progress: Callable[[str], object]
) -> ClusterFacts:
    """Probe every host at once.

    Args:
        way: "ssh" or "srun".
        interface: The network interface that jobs will use, or None.
        on_progress: Called with a text for the user.

    Raises:
        HvdtoolsError: There is no ssh on this machine, or no host of that name.
    """
    waiting = {host.name for host in hosts}
    names = [host.name for host in hosts]
    on_progress(f"Examining {len(hosts)} hosts")
    unreached = problems(names, Path.cwd(), sys.executable) if way == "ssh" else {}
    for problem in unreached.values():
        if problem.unknown:
            raise HvdtoolsError(f"{problem.message}: {problem.remedy}.")

    def ask(host: Host) -> HostAnswer:
        problem = unreached.get(host.name)
        answer = HostAnswer(host, problem=problem) if problem else _ask(host, way, names)
        waiting.discard(host.name)
        on_progress(f"Examining {len(hosts)} hosts: {len(hosts) - len(waiting)} are done")
        return answer

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = tuple(pool.map(ask, hosts))
    versions_here = probe.program_versions(detect_host().mpirun)
    return ClusterFacts(way, socket.gethostname(), versions_here, answers, interface)


def _ask(host: Host, way: str, names: Sequence[str]) -> HostAnswer:
    known_as = [name.rpartition("@")[2] for name in names]
    command = (*_PROGRAM, "--slots", str(host.slots), *known_as)
    argv = ssh(host.name, shlex.join(command)) if way == "ssh" else _srun(host.name, command)
    said = query(argv, _PATIENCE_S)
    return read_answer(host, said, way, time.time())


def _srun(host: str, command: Sequence[str]) -> tuple[str, ...]:
    """The command line that runs a program once on a node of this allocation.

    It does not wait for the resources of another step, such as a shell's under `srun --pty`.
    """
    one = ("--nodes=1", "--ntasks=1", "--ntasks-per-node=1", f"--nodelist={host}")
    return ("srun", *one, "--overlap", "--mpi=none", "--quiet", "--chdir=/", *command)


def read_answer(host: Host, said: Answer | None, way: str, now_s: float) -> HostAnswer:
    """The answer of a host, from the output of its probe at the time `now_s`."""
    if said is None:
        return HostAnswer(host, problem=Problem(f"{way} cannot be started here", f"install {way}"))
    lines = [line for line in said.text.splitlines() if line.strip()]
    found = [line.removeprefix(probe.MARK) for line in lines if line.startswith(probe.MARK)]
    if not found:
        return HostAnswer(host, problem=_problem(host.name, said.status, lines, way))
    try:
        facts = read_host_facts(json.loads(found[-1]))
    except (AttributeError, KeyError, TypeError, ValueError):
        message = f"{host.name} has another version of hvdtools, with an answer of another format"
        return HostAnswer(host, problem=Problem(message, f"install the same on {host.name}"))
    return HostAnswer(host, facts, ahead_s=_ahead(facts, said.status, now_s))


def _ahead(facts: HostFacts, status: int, now_s: float) -> float:
    # If ssh lingered, the time of the answer is unknown.
    return 0.0 if status == TIMED_OUT else facts.clock_s - now_s


def _problem(name: str, status: int, lines: list[str], way: str) -> Problem:
    text = "\n".join(lines)
    if status == TIMED_OUT or probe.LATE in lines:
        return Problem(
            f"{name} hangs: {way} reaches it, but the doctor had no answer from it in "
            f"{probe.LIMIT_S} s",
            f"log in to {name} and check whether a network disk or nvidia-smi hangs there",
        )
    if "hvdtools" in text and ("No module named" in text or "ModuleNotFoundError" in text):
        return Problem(
            f"{name} has no hvdtools, or an older one, in {sys.executable}",
            f"install this hvdtools on {name}, in the same Python environment",
        )
    because = shortened(lines[-1].strip() if lines else f"{way} ended with {status}")
    remedy = f"fix this error on {name}, or leave the host out"
    return Problem(f"{name} cannot be examined: {because}", remedy)
