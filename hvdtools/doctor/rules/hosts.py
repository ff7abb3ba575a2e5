"""The hosts of a cluster: which of them answer, their clocks and their memory."""

from __future__ import annotations

from collections.abc import Iterator

from hvdtools.doctor.compare import compare, listed
from hvdtools.doctor.facts import ClusterFacts
from hvdtools.doctor.findings import Finding, error, ok, warning
from hvdtools.launch.ssh_check import Problem

_HOST = "HOST"
_GIB = 2**30
# Ranks need no common time; logs, make and Kerberos tickets do.
_SKEW_S = 5.0
# With less memory free, another job is likely to run there.
_FREE_FRACTION = 0.1


def answers(cluster: ClusterFacts) -> Iterator[Finding]:
    """Every host answers."""
    # One line for all hosts with the same problem: one dead switch cuts off many.
    alike: dict[Problem, list[str]] = {}
    for each in cluster.answers:
        if each.problem is not None:
            alike.setdefault(_without_name(each.problem, each.host.name), []).append(each.host.name)
    for problem, hosts in alike.items():
        remedy = problem.remedy.replace(_HOST, hosts[0])
        message = f"{listed(hosts)}: {problem.message}"
        if len(hosts) == 1:
            message = problem.message.replace(_HOST, hosts[0])
        yield error("hosts", message, remedy)
    if not alike:
        yield ok("hosts", "all answer")


def _without_name(problem: Problem, name: str) -> Problem:
    return Problem(problem.message.replace(name, _HOST), problem.remedy.replace(name, _HOST))


def unique_names(cluster: ClusterFacts) -> Iterator[Finding]:
    """Every host has a unique host name, by which Horovod distinguishes hosts."""
    own = compare({name: facts.network.host_name for name, facts in cluster.facts.items()})
    for text, hosts in own.groups:
        if len(hosts) > 1:
            message = f"{listed(hosts)} share the host name {text}: ranks treat them as one host"
            yield error("hosts", message, "give each host a unique name, or list each host once")


def clocks(cluster: ClusterFacts) -> Iterator[Finding]:
    """The clocks agree."""
    if not cluster.facts:
        return
    ahead = sorted(each.ahead_s for each in cluster.answers if each.facts)
    middle = ahead[len(ahead) // 2]
    late = [
        (each.host.name, each.ahead_s - middle)
        for each in cluster.answers
        if each.facts and abs(each.ahead_s - middle) > _SKEW_S
    ]
    for name, skew_s in late:
        way = "ahead of" if skew_s > 0 else "behind"
        message = f"{name}'s clock is {abs(skew_s):.0f} s {way} the others'"
        yield warning("clocks", message, f"let {name} follow a time server (chrony or ntpd)")
    if not late:
        yield ok("clocks", f"within {_SKEW_S:g} s")


def memory(cluster: ClusterFacts) -> Iterator[Finding]:
    """No host is short of memory."""
    if not cluster.facts:
        return
    full = {
        name: f"{facts.memory.available_bytes / _GIB:.1f} GiB"
        for name, facts in cluster.facts.items()
        if facts.memory.available_bytes < _FREE_FRACTION * facts.memory.total_bytes
    }
    for name, free in full.items():
        message = f"{name} has {free} of memory free, less than a tenth"
        yield warning("memory", message, f"run `top` on {name} to see what uses it")
    if not full:
        yield ok("memory", "enough is free")


RULES = (answers, unique_names, clocks, memory)
