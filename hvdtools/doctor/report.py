"""The doctor's facts, checks and findings: as one JSON object, and as a verdict."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from hvdtools.doctor.check import Check
from hvdtools.doctor.facts import Facts
from hvdtools.doctor.finding import LEVELS, Finding

# 2: `facts` or, of several hosts, `hosts`; the other is null. 3: the levels and `message`.
SCHEMA = 3


@dataclass(frozen=True)
class Report:
    """All that one call found; `checks` is None where no ranks were asked for."""

    facts: Facts
    findings: tuple[Finding, ...]
    checks: tuple[Check, ...] | None = None

    @property
    def level(self) -> str:
        """The worst level of all findings."""
        return worst(self.findings)

    def of(self, subject: str) -> tuple[Finding, ...]:
        """The findings about this subject."""
        return tuple(finding for finding in self.findings if finding.subject == subject)


def worst(findings: tuple[Finding, ...]) -> str:
    """The worst level among findings; "warning" where there are none, for bare facts."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="warning")


def to_json(report: Report) -> str:
    """One object: `schema`, `level`, `findings`, `checks` and `facts`, field by field.

    Of several hosts (`cluster.report`), `facts` is null and `hosts` has an object for each:
    its name, slots, problem (null if it answered), clock, and facts.
    """
    whole = {
        "schema": SCHEMA,
        "level": report.level,
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "checks": None
        if report.checks is None
        else [dataclasses.asdict(check) for check in report.checks],
        "facts": dataclasses.asdict(report.facts),
        "hosts": None,
    }
    return json.dumps(whole, indent=2, default=str)
