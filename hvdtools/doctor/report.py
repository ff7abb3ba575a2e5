"""The doctor's facts, findings and checks: as one value, and as one JSON object."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from hvdtools.doctor.allreduce.check import Check
from hvdtools.doctor.facts import ClusterFacts, HostAnswer, HostFacts
from hvdtools.doctor.findings import Finding, worst

# 2: `facts` for one host, `hosts` for several; the other is null. 3: renamed levels, `message`.
SCHEMA = 3
_ONLY_AMONG_SEVERAL = ("versions", "resolved", "clock_s")


@dataclass(frozen=True)
class Report:
    """All that one call found; `checks` is None if no all-reduce was requested."""

    cluster: ClusterFacts
    findings: tuple[Finding, ...]
    checks: tuple[Check, ...] | None = None

    @property
    def level(self) -> str:
        """The worst level of all findings."""
        return worst(self.findings)

    def of(self, subject: str) -> tuple[Finding, ...]:
        """The findings about this subject."""
        return tuple(finding for finding in self.findings if finding.subject == subject)


def to_json(report: Report) -> str:
    """One object: `schema`, `level`, `findings`, `checks`, `facts` and `hosts`.

    For this machine alone, `facts` has all facts and `hosts` is null. For several hosts, `facts`
    is null and `hosts` has an object for each: its name, slots, problem (null if it answered),
    clock, and what it is compared by.
    """
    local = report.cluster.local
    checks = report.checks
    whole = {
        "schema": SCHEMA,
        "level": report.level,
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "checks": None if checks is None else [_check(each) for each in checks],
        "facts": _facts(local) if local else None,
        "hosts": None if local else [_host(each) for each in report.cluster.answers],
    }
    return json.dumps(whole, indent=2, default=str)


def _check(check: Check) -> dict[str, Any]:
    whole = dataclasses.asdict(check)
    if not check.hosts:
        del whole["hosts"], whole["isolation"]
    return whole


def _facts(facts: HostFacts) -> dict[str, Any]:
    whole = dataclasses.asdict(facts)
    for name in _ONLY_AMONG_SEVERAL:
        del whole[name]
    return {"machine": facts.machine, **whole}


def _host(answer: HostAnswer) -> dict[str, Any]:
    return {
        "name": answer.host.name,
        "slots": answer.host.slots,
        "problem": answer.problem.message if answer.problem else None,
        "ahead_s": round(answer.ahead_s, 1),
        "facts": _compared(answer.facts) if answer.facts else None,
    }


def _compared(facts: HostFacts) -> dict[str, Any]:
    return {
        "versions": facts.versions,
        "usable": facts.usable,
        "nccl": facts.has_nccl,
        "network": dataclasses.asdict(facts.network),
        "resolved": facts.resolved,
        "cores": facts.available_cores,
        "memory": dataclasses.asdict(facts.memory),
        "clock_s": facts.clock_s,
    }
