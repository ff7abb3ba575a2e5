"""Headings that tell works apart."""

from __future__ import annotations

from collections.abc import Sequence

from hvdtools.bench.analysis.workloads import Workload
from hvdtools.bench.suite.engines import FAMILIES


def titles(workloads: Sequence[Workload]) -> dict[Workload, str]:
    """A heading for each work, without its scaling; with options where others have the same one."""
    plain = {workload: _plain(workload) for workload in workloads}
    made = {}
    for workload, title in plain.items():
        alike = [other for other in workloads if _as_headed(other) == _as_headed(workload)]
        extra = _differing(workload, alike)
        made[workload] = f"{title} ({', '.join(extra)})" if extra else title
    return made


def _plain(workload: Workload) -> str:
    family = FAMILIES[workload.family]
    model = (
        f"{workload.model} on {workload.data}"
        if workload.model and workload.data
        else workload.model or workload.data
    )
    named = ", ".join(filter(None, (model, workload.precision)))
    shipped = "" if workload.program == family.program else f" ({workload.program})"
    return f"{family.name}{shipped}{f': {named}' if named else ''}"


def _as_headed(workload: Workload) -> tuple[str, str | None]:
    return _plain(workload), workload.scaling


def _differing(workload: Workload, alike: Sequence[Workload]) -> list[str]:
    """The options in which works of one heading differ, as this one has them."""
    told = [dict(other.options) for other in alike]
    names = sorted({name for options in told for name in options})
    mine = dict(workload.options)
    return [
        f"{name} {mine.get(name, 'not set')}"
        for name in names
        if len({options.get(name) for options in told}) > 1
    ]
