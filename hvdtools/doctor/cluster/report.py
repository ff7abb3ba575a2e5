"""What the doctor found on several hosts, as one JSON object."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from hvdtools.doctor.cluster.check import ClusterCheck
from hvdtools.doctor.cluster.facts import Cluster, HostAnswer
from hvdtools.doctor.finding import Finding
from hvdtools.doctor.report import SCHEMA, worst


@dataclass(frozen=True)
class ClusterReport:
    """All that one call found; `checks` is None where no ranks were to be started."""

    cluster: Cluster
    findings: tuple[Finding, ...]
    checks: tuple[ClusterCheck, ...] | None = None

    @property
    def level(self) -> str:
        """The worst level of all findings."""
        return worst(self.findings)

    def of(self, subject: str) -> tuple[Finding, ...]:
        """The findings about this subject."""
        return tuple(finding for finding in self.findings if finding.subject == subject)


def to_json(report: ClusterReport) -> str:
    """The object of `report.to_json`, with `hosts` in place of `facts`."""
    whole = {
        "schema": SCHEMA,
        "level": report.level,
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "checks": None
        if report.checks is None
        else [dataclasses.asdict(check) for check in report.checks],
        "facts": None,
        "hosts": [_host(each) for each in report.cluster.answers],
    }
    return json.dumps(whole, indent=2, default=str)


def _host(answer: HostAnswer) -> dict[str, Any]:
    facts = dataclasses.asdict(answer.facts) if answer.facts else None
    if facts is not None:
        del facts["findings"]  # they stand among all findings
    return {
        "name": answer.host.name,
        "slots": answer.host.slots,
        "problem": answer.problem.message if answer.problem else None,
        "ahead_s": round(answer.ahead_s, 1),
        "facts": facts,
    }
