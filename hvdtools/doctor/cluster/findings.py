"""From the facts of several hosts to findings. Pure: a test feeds facts that were made by hand."""

from __future__ import annotations

from hvdtools.doctor.cluster.facts import Cluster
from hvdtools.doctor.cluster.findings_hosts import examine_alone, examine_hosts
from hvdtools.doctor.cluster.findings_names import examine_names
from hvdtools.doctor.cluster.findings_network import examine_network
from hvdtools.doctor.cluster.findings_versions import examine_versions
from hvdtools.doctor.finding import Finding


def examine(cluster: Cluster) -> tuple[Finding, ...]:
    """Everything that can be concluded without starting ranks."""
    return (
        *examine_hosts(cluster),
        *examine_versions(cluster),
        *examine_names(cluster),
        *examine_network(cluster),
        *examine_alone(cluster),
    )
