"""From facts to findings. Pure: a test feeds facts that were made by hand."""

from __future__ import annotations

from hvdtools.doctor.facts import Facts
from hvdtools.doctor.finding import Finding
from hvdtools.doctor.findings_gpu import examine_gpus
from hvdtools.doctor.findings_host import examine_host
from hvdtools.doctor.findings_network import examine_network
from hvdtools.doctor.findings_software import examine_software


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Everything that can be concluded without starting ranks."""
    return (
        *examine_software(facts),
        *examine_gpus(facts),
        *examine_network(facts),
        *examine_host(facts),
    )
