"""Findings about the all-reduces: whether they went well, and who breaks those that did not."""

from __future__ import annotations

from collections.abc import Iterator

from hvdtools.doctor.cluster.check import ClusterCheck
from hvdtools.doctor.cluster.compare import listed
from hvdtools.doctor.cluster.facts import Cluster
from hvdtools.doctor.cluster.fault_isolation import FaultIsolation
from hvdtools.doctor.explain import explain, shortened
from hvdtools.doctor.finding import Finding, error, ok, warning

SUBJECT = "all-reduce"


def examine_checks(cluster: Cluster, checks: tuple[ClusterCheck, ...]) -> Iterator[Finding]:
    """The jobs' ends as findings, and what could not be run."""
    if not checks:
        yield warning(SUBJECT, "nothing to run it with: fix the errors first")
    for each in checks:
        absent = [a.host.name for a in cluster.answers if a.host.name not in each.hosts]
        without = f" (without {listed(absent)})" if absent else ""
        if not each.complaint:
            yield ok(SUBJECT, f"{each.name}{without}: right sums ({each.elapsed_s:.1f} s)")
            continue
        meaning, remedy = explain("\n".join([*each.said, each.complaint]))
        because = meaning or shortened(each.said[0] if each.said else "it said nothing")
        failed = f"{each.name}{without}: {each.complaint} after {each.elapsed_s:.0f} s ({because})"
        if each.isolation is None:
            yield error(
                SUBJECT, failed, remedy or f"run `hvdtools doctor --np 2` on {each.hosts[0]}"
            )
            continue
        culprit, what_to_do = told(each.isolation)
        yield error(SUBJECT, f"{failed}. {culprit}", what_to_do)


def in_short(check: ClusterCheck, finding: Finding) -> str:
    """What the row of a job says: of one that failed, who breaks it; the rest stands below."""
    if not check.complaint:
        return finding.message
    hosts = check.isolation.hosts if check.isolation else ()
    culprit = f": {listed(hosts)} {'breaks' if len(hosts) == 1 else 'break'} it" if hosts else ""
    return f"{check.name}: {check.complaint}{culprit}"


def told(isolation: FaultIsolation) -> tuple[str, str]:
    """What smaller groups told, and what to do."""
    if isolation.hosts:
        return _culprits(isolation)
    if isolation.groups:
        return (
            f"Every host works together with {isolation.good}, but not all at once",
            "try fewer ranks a host, and look at limits of the switch and of open files",
        )
    suspects = listed(isolation.suspects)
    if isolation.alone:
        return (
            f"{listed(isolation.alone)} cannot even do it alone",
            f"run `hvdtools doctor --np 2` on {isolation.alone[0]}",
        )
    if isolation.good is not None:
        return (f"Time was up; {suspects} may break it", "name fewer hosts with --hosts")
    remedy = "let every TCP port through between the hosts, and name the network with --interface"
    return (f"No two of {suspects} work together, though each does alone", remedy)


def _culprits(isolation: FaultIsolation) -> tuple[str, str]:
    hosts = listed(isolation.hosts)
    one = len(isolation.hosts) == 1
    breaks = f"{hosts} {'breaks' if one else 'break'} it: the others add up without"
    if set(isolation.hosts) <= set(isolation.alone):
        return (
            f"{breaks}, and {'it fails' if one else 'they fail'} alone, too",
            f"run `hvdtools doctor --np 2` on {hosts}",
        )
    return (
        f"{breaks}, and {'it works' if one else 'they work'} alone",
        f"look at the network between {hosts} and {isolation.good or 'the others'} (firewall, MTU, "
        "routes)",
    )
