"""Finds the host that breaks a job by trying smaller groups of hosts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# True if the job works on these hosts.
Works = Callable[[tuple[str, ...]], bool]


class OutOfTimeError(Exception):
    """Raised by a `Works` when no more may be tried."""


@dataclass(frozen=True)
class FaultIsolation:
    """What trying smaller groups of hosts revealed.

    Attributes:
        hosts: Hosts that break a group that works without them.
        alone: Those of them that also fail alone.
        good: A host that worked together with another; None if none did.
        suspects: Hosts that were not cleared, because time was up or no two hosts worked
            together.
        groups: True if each group works, but not all hosts together.
    """

    hosts: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    good: str | None = None
    suspects: tuple[str, ...] = ()
    groups: bool = False


def isolate_faults(hosts: Sequence[str], works: Works) -> FaultIsolation:
    """Find the hosts that break a job that failed on all of `hosts`.

    A pair that works gives a trusted host; the others are tried together with it in halves, so
    that finding one faulty host among 64 takes about ten jobs.
    """
    if len(hosts) < 3:
        return _isolate_pair(hosts, works)
    search = _Search(works, hosts)
    try:
        search.run()
    except OutOfTimeError:
        return search.isolation(out_of_time=True)
    return search.isolation()


def _isolate_pair(hosts: Sequence[str], works: Works) -> FaultIsolation:
    """With two hosts, or one: try each alone."""
    try:
        alone = tuple(host for host in hosts if not works((host,))) if len(hosts) > 1 else ()
    except OutOfTimeError:
        return FaultIsolation(suspects=tuple(hosts))
    if len(alone) == len(hosts) or not alone:
        return FaultIsolation(alone=alone, suspects=tuple(hosts))
    return FaultIsolation(alone, alone)


class _Search:
    """The state of a search: the hosts that are cleared, and those that are faulty."""

    def __init__(self, works: Works, hosts: Sequence[str]) -> None:
        self._works = works
        self._hosts = tuple(hosts)
        self._cleared: list[str] = []
        self._faulty: list[str] = []
        self._alone: list[str] = []

    def run(self) -> None:
        pair = next((pair for pair in _pairs(self._hosts) if self._works(pair)), None)
        if pair is None:
            self._alone = [host for host in self._hosts[:2] if not self._works((host,))]
            return
        self._cleared.extend(pair)
        self._bisect(tuple(host for host in self._hosts if host not in pair))
        self._alone = [host for host in self._faulty if not self._works((host,))]

    def _bisect(self, suspects: tuple[str, ...]) -> None:
        """Try hosts of which at least one is probably faulty."""
        if len(suspects) > 1:
            middle = len(suspects) // 2
            for half in (suspects[:middle], suspects[middle:]):
                self._try(half)
        elif suspects:
            self._try(suspects)

    def _try(self, suspects: tuple[str, ...]) -> None:
        if self._works((self._cleared[0], *suspects)):
            self._cleared.extend(suspects)
        elif len(suspects) == 1:
            self._faulty.extend(suspects)
        else:
            self._bisect(suspects)

    def isolation(self, *, out_of_time: bool = False) -> FaultIsolation:
        known = {*self._cleared, *self._faulty}
        suspects = tuple(host for host in self._hosts if host not in known)
        good = self._cleared[0] if self._cleared else None
        cleared_all = not suspects and not self._faulty and not out_of_time
        return FaultIsolation(tuple(self._faulty), tuple(self._alone), good, suspects, cleared_all)


def _pairs(hosts: tuple[str, ...]) -> list[tuple[str, str]]:
    """Disjoint pairs; all pairs if there are few hosts."""
    apart = list(zip(hosts[::2], hosts[1::2], strict=False))
    if len(hosts) > 4:
        return apart
    return [*apart, *(pair for pair in itertools.combinations(hosts, 2) if pair not in apart)]
