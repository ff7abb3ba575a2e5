"""The rules: pure functions from facts to findings. Here, and only here, a line gets its level.

One host: `software`, `gpu`, `network`, `resources`. Several: `hosts`, `versions`, `names`,
`network`. All-reduces: `allreduce`. A new finding is a function in one of these modules and its
name in the `RULES` at the end of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from hvdtools.core.text import count_noun
from hvdtools.doctor.compare import listed
from hvdtools.doctor.facts import ClusterFacts
from hvdtools.doctor.findings import Finding
from hvdtools.doctor.rules import gpu, hosts, names, network, resources, software, versions

HOST_RULES = (*software.RULES, *gpu.RULES, *network.RULES, *resources.RULES)
CLUSTER_RULES = (*hosts.RULES, *versions.RULES, *names.RULES, *network.CLUSTER_RULES)
# Names are compared between hosts.
_ONLY_ON_ONE_HOST = (network.own_name,)


def examine(cluster: ClusterFacts) -> tuple[Finding, ...]:
    """All findings that need no running ranks."""
    if cluster.local is not None:
        return tuple(finding for rule in HOST_RULES for finding in rule(cluster.local))
    compared = tuple(finding for rule in CLUSTER_RULES for finding in rule(cluster))
    return (*compared, *_on_each_host(cluster))


def _on_each_host(cluster: ClusterFacts) -> Iterator[Finding]:
    """Errors and remedies of single hosts; what several have in common is reported once."""
    found: dict[Finding, list[str]] = {}
    rules = [rule for rule in HOST_RULES if rule not in _ONLY_ON_ONE_HOST]
    for name, facts in cluster.facts.items():
        for finding in (finding for rule in rules for finding in rule(facts)):
            if finding.level == "error" or finding.remedy:
                found.setdefault(finding, []).append(name)
    for finding, affected in found.items():
        every = f"all {count_noun(len(affected), 'host')}"
        where = every if len(affected) == len(cluster.facts) > 1 else listed(affected)
        yield Finding(finding.level, finding.subject, f"{where}: {finding.message}", finding.remedy)
