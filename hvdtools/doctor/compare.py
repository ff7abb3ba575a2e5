"""Which hosts differ from the others, by majority."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NAMED = 3  # hosts that a list names; a cluster can have hundreds
NONE = "none"


@dataclass(frozen=True)
class Comparison:
    """The hosts, grouped by a text that describes each.

    Attributes:
        usual: The text of more than half of the hosts; None if there is no such text.
        groups: (text, hosts that have it): the largest first, then in the order of the hosts.
    """

    usual: str | None
    groups: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def agree(self) -> bool:
        """True if all hosts have the same text."""
        return len(self.groups) < 2

    @property
    def outliers(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The groups other than the usual one; all groups if there is no usual one."""
        return self.groups[1:] if self.usual is not None else self.groups

    @property
    def outlier_hosts(self) -> tuple[str, ...]:
        """The hosts of these groups."""
        return tuple(host for _, hosts in self.outliers for host in hosts)


def compare(texts: Mapping[str, str]) -> Comparison:
    """Group hosts (host -> text) by their text."""
    found: dict[str, list[str]] = {}
    for host, text in texts.items():
        found.setdefault(text, []).append(host)
    groups = sorted(found.items(), key=lambda group: -len(group[1]))  # stable: ties stay in order
    usual = groups[0][0] if groups and 2 * len(groups[0][1]) > len(texts) else None
    return Comparison(usual, tuple((text, tuple(hosts)) for text, hosts in groups))


def difference(subject: str, compared: Comparison) -> str:
    """ "host3 has torch 2.12.0, the 3 others 2.13.0"."""
    parts = []
    for position, (text, hosts) in enumerate(compared.outliers):
        verb = "" if position else (" has" if len(hosts) == 1 else " have")
        name = "" if position else f" {subject}"
        thing = f" no {subject}" if text == NONE and not position else f"{name} {text}"
        parts.append(f"{listed(hosts)}{verb}{thing}")
    if compared.usual is not None:
        parts.append(f"the {len(compared.groups[0][1])} others {compared.usual}")
    return ", ".join(parts)


def listed(hosts: Sequence[str]) -> str:
    """ "host3", "host1 and host2", "host1, host2, host3 and 61 more"."""
    if len(hosts) > NAMED + 1:
        return f"{', '.join(hosts[:NAMED])} and {len(hosts) - NAMED} more"
    return " and ".join(part for part in (", ".join(hosts[:-1]), *hosts[-1:]) if part)


def row(compared: Comparison) -> str:
    """A cell of the table: the usual text once, then what differs."""
    if compared.agree:
        return compared.groups[0][0] if compared.groups else NONE
    differing = [f"{listed(hosts)}: {text}" for text, hosts in compared.outliers[:NAMED]]
    left = len(compared.outliers) - NAMED
    more = [f"and {left} more kinds"] if left > 0 else []
    return "; ".join([*([compared.usual] if compared.usual is not None else []), *differing, *more])
