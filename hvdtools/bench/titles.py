"""Headings that tell works apart."""

from __future__ import annotations

from collections.abc import Sequence

from hvdtools.bench.engines import FAMILIES
from hvdtools.bench.works import Work


def titles(works: Sequence[Work]) -> dict[Work, str]:
    """A heading for each work, without its scaling; with options where others have the same one."""
    plain = {work: _plain(work) for work in works}
    made = {}
    for work, title in plain.items():
        alike = [other for other in works if _as_headed(other) == _as_headed(work)]
        extra = _differing(work, alike)
        made[work] = f"{title} ({', '.join(extra)})" if extra else title
    return made


def _plain(work: Work) -> str:
    family = FAMILIES[work.family]
    model = f"{work.model} on {work.data}" if work.model and work.data else work.model or work.data
    named = ", ".join(filter(None, (model, work.precision)))
    shipped = "" if work.program == family.program else f" ({work.program})"
    return f"{family.name}{shipped}{f': {named}' if named else ''}"


def _as_headed(work: Work) -> tuple[str, str | None]:
    return _plain(work), work.scaling


def _differing(work: Work, alike: Sequence[Work]) -> list[str]:
    """The options in which works of one heading differ, as this one has them."""
    told = [dict(other.options) for other in alike]
    names = sorted({name for options in told for name in options})
    mine = dict(work.options)
    return [
        f"{name} {mine.get(name, 'not set')}"
        for name in names
        if len({options.get(name) for options in told}) > 1
    ]
