"""Findings about the hosts: who answers, clocks, memory, and what each has to fix alone."""

from __future__ import annotations

from collections.abc import Iterator

from hvdtools.core.words import counted
from hvdtools.doctor.cluster.compare import compare, listed
from hvdtools.doctor.cluster.facts import Cluster
from hvdtools.doctor.finding import Finding, error, ok, warning
from hvdtools.launch.reach import Problem

HOSTS, CLOCKS, MEMORY = "hosts", "clocks", "memory"
_HOST = "HOST"
_GIB = 2**30
# Ranks need no common time; logs, make and tickets of a shared file system do.
_SKEW_S = 5.0
# Under a tenth of the memory free, somebody else's job is likely to run there.
_LITTLE = 0.1


def examine_hosts(cluster: Cluster) -> Iterator[Finding]:
    """Findings about the hosts one by one."""
    yield from _answers(cluster)
    if cluster.facts:
        yield from _clocks(cluster)
        yield from _memory(cluster)


def _answers(cluster: Cluster) -> Iterator[Finding]:
    # One line for all hosts with the same problem: a switch that is off takes many along.
    alike: dict[Problem, list[str]] = {}
    for each in cluster.answers:
        if each.problem is not None:
            alike.setdefault(_nameless(each.problem, each.host.name), []).append(each.host.name)
    for problem, hosts in alike.items():
        remedy = problem.remedy.replace(_HOST, hosts[0])
        if len(hosts) == 1:
            yield error(HOSTS, problem.message.replace(_HOST, hosts[0]), remedy)
        else:
            yield error(HOSTS, f"{listed(hosts)}: {problem.message}", remedy)
    if not alike:
        yield ok(HOSTS, "all answer")
    yield from _shared_name(cluster)


def _nameless(problem: Problem, name: str) -> Problem:
    return Problem(problem.message.replace(name, _HOST), problem.remedy.replace(name, _HOST))


def _shared_name(cluster: Cluster) -> Iterator[Finding]:
    """Horovod tells hosts apart by what they call themselves."""
    own = compare({name: facts.network.host_name for name, facts in cluster.facts.items()})
    for text, hosts in own.groups:
        if len(hosts) > 1:
            message = f"{listed(hosts)} all call themselves {text}: ranks take them for one host"
            yield error(HOSTS, message, "give each a name of its own, or name each host once")


def _clocks(cluster: Cluster) -> Iterator[Finding]:
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
        yield warning(CLOCKS, message, f"let {name} follow a time server (chrony or ntpd)")
    if not late:
        yield ok(CLOCKS, f"within {_SKEW_S:g} s")


def _memory(cluster: Cluster) -> Iterator[Finding]:
    full = {
        name: f"{facts.memory.available_bytes / _GIB:.1f} GiB"
        for name, facts in cluster.facts.items()
        if facts.memory.available_bytes < _LITTLE * facts.memory.total_bytes
    }
    for name, free in full.items():
        message = f"{name} has {free} of memory free, less than a tenth"
        yield warning(MEMORY, message, f"look with `top` at what fills it on {name}")
    if not full:
        yield ok(MEMORY, "enough is free")


def examine_alone(cluster: Cluster) -> Iterator[Finding]:
    """What hosts have to fix by themselves: said once for all that have it."""
    places: dict[Finding, list[str]] = {}
    for name, facts in cluster.facts.items():
        for finding in facts.findings:
            places.setdefault(finding, []).append(name)
    for finding, hosts in places.items():
        every = f"all {counted(len(hosts), 'host')}"
        where = every if len(hosts) == len(cluster.facts) > 1 else listed(hosts)
        yield Finding(finding.level, finding.subject, f"{where}: {finding.message}", finding.remedy)
