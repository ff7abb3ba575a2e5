"""The all-reduces: whether they succeed, and which hosts break those that fail."""

from __future__ import annotations

from collections.abc import Iterator

from hvdtools.doctor.allreduce.check import Check
from hvdtools.doctor.allreduce.fault_isolation import FaultIsolation
from hvdtools.doctor.compare import listed
from hvdtools.doctor.facts import ClusterFacts
from hvdtools.doctor.findings import Finding, error, ok, warning
from hvdtools.doctor.known_errors import explain, shortened

SUBJECT = "all-reduce"


def examine_checks(cluster: ClusterFacts, checks: tuple[Check, ...]) -> Iterator[Finding]:
    """One finding for each all-reduce, in their order; then what could not be run."""
    if not checks:
        yield warning(SUBJECT, "nothing to run it with: fix the errors first")
    for check in checks:
        yield _finding(check, cluster)
    if cluster.local is not None and cluster.local.has_nccl:
        for load in cluster.local.loads:
            if load.gpus is not None and load.gpus < cluster.slots:
                sizes = f"{cluster.slots} ranks, {load.gpus} GPUs"
                yield warning(SUBJECT, f"{load.framework} over NCCL was not run: {sizes}")


def _finding(check: Check, cluster: ClusterFacts) -> Finding:
    absent = [each.host.name for each in cluster.answers if each.host.name not in check.hosts]
    without = f" (without {listed(absent)})" if absent and check.hosts else ""
    if not check.complaint:
        return ok(SUBJECT, f"{check.name}{without}: right sums ({check.elapsed_s:.1f} s)")
    meaning, remedy = explain("\n".join([*check.said, check.complaint]))
    because = meaning or shortened(check.said[0] if check.said else "no output")
    failed = f"{check.name}{without}: {check.complaint} after {check.elapsed_s:.1f} s: {because}"
    if check.isolation is not None:
        result, remedy = isolation_result(check.isolation)
        return error(SUBJECT, f"{failed}. {result}", remedy)
    if check.hosts:
        return error(SUBJECT, failed, remedy or f"run `hvdtools doctor --np 2` on {check.hosts[0]}")
    return error(
        SUBJECT, failed, remedy or "run `hvdtools build --smoke-test`, which keeps the whole log"
    )


def in_short(check: Check, finding: Finding) -> str:
    """The row of a check on the screen for several hosts; the details of a failure are below."""
    if not check.complaint:
        return finding.message
    hosts = check.isolation.hosts if check.isolation else ()
    culprit = f": {listed(hosts)} {'breaks' if len(hosts) == 1 else 'break'} it" if hosts else ""
    return f"{check.name}: {check.complaint}{culprit}"


def isolation_result(isolation: FaultIsolation) -> tuple[str, str]:
    """What smaller groups of hosts revealed, and what to do."""
    if isolation.hosts:
        return _faulty_hosts(isolation)
    if isolation.groups:
        return (
            f"Every host works together with {isolation.good}, but not all at once",
            "try fewer ranks per host, and check the limits of the switch and of open files",
        )
    suspects = listed(isolation.suspects)
    if isolation.alone:
        return (
            f"{listed(isolation.alone)} cannot even do it alone",
            f"run `hvdtools doctor --np 2` on {isolation.alone[0]}",
        )
    if isolation.good is not None:
        return (f"Time was up; {suspects} may break it", "name fewer hosts with --hosts")
    remedy = "allow every TCP port between the hosts, and name the network with --interface"
    return (f"No two of {suspects} work together, though each works alone", remedy)


def _faulty_hosts(isolation: FaultIsolation) -> tuple[str, str]:
    hosts = listed(isolation.hosts)
    one = len(isolation.hosts) == 1
    breaks = f"{hosts} {'breaks' if one else 'break'} it: the others work without"
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
