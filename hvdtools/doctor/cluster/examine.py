"""One call of the doctor for several hosts: ask them, compare, run the all-reduce, conclude."""

from __future__ import annotations

import socket
from collections.abc import Callable

from hvdtools.doctor.cluster.ask import ask_all
from hvdtools.doctor.cluster.check import check
from hvdtools.doctor.cluster.facts import Cluster, HostAnswer
from hvdtools.doctor.cluster.findings import examine
from hvdtools.doctor.cluster.findings_checks import examine_checks
from hvdtools.doctor.cluster.probe_host import own_versions
from hvdtools.doctor.cluster.report import ClusterReport
from hvdtools.launch import detect_host
from hvdtools.launch.hosts import Host


def examined(
    hosts: tuple[Host, ...],
    way: str,
    interface: str | None,
    tell: Callable[[str], object],
    frameworks: tuple[str, ...],
) -> ClusterReport:
    """Look at the hosts, and run the all-reduce on all of their slots.

    Args:
        way: "ssh" or "srun".
        interface: The network interface that jobs will be started with, or None.
        tell: Is told what is being done.
        frameworks: Those to run the all-reduce with; () for none at all.

    Raises:
        HvdtoolsError: There is no ssh here, or a job cannot be started from here.
    """
    waited_for = {host.name for host in hosts}

    def on_answer(answer: HostAnswer) -> None:
        waited_for.discard(answer.host.name)
        tell(f"Looking at {len(hosts)} hosts: {len(hosts) - len(waited_for)} are done")

    tell(f"Looking at {len(hosts)} hosts")
    answers = ask_all(hosts, way, on_answer)
    machine = detect_host()
    here = socket.gethostname()
    cluster = Cluster(way, here, own_versions(machine.mpirun), answers, interface)
    findings = examine(cluster)
    if not frameworks:
        return ClusterReport(cluster, findings)
    checks = check(cluster, machine, frameworks, lambda name: tell(f"All-reduce: {name}"))
    return ClusterReport(cluster, (*findings, *examine_checks(cluster, checks)), checks)
