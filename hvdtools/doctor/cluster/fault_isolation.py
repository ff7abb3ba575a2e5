"""Which host breaks a job? Found by trying smaller groups of hosts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# True if ranks on these hosts add up.
Works = Callable[[tuple[str, ...]], bool]


class OutOfTimeError(Exception):
    """Raised by a `Works` when no more may be tried."""


@dataclass(frozen=True)
class FaultIsolation:
    """What trying smaller groups told.

    Attributes:
        hosts: Those that break a group which works without them.
        alone: Those of them that fail by themselves, too.
        good: A host that worked with another; None if none did.
        suspects: Hosts that could not be cleared before time was up, or because no two
            hosts worked together.
        groups: True if each group works, but not all hosts together.
    """

    hosts: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    good: str | None = None
    suspects: tuple[str, ...] = ()
    groups: bool = False


def isolate_faults(hosts: Sequence[str], works: Works) -> FaultIsolation:
    """Find the hosts that break the job which failed on all of `hosts`.

    A pair that works gives a host to trust; the others are tried together with it in
    halves, so that one culprit among 64 hosts takes about ten jobs.
    """
    if len(hosts) < 3:
        return _of_few(hosts, works)
    search = _Search(works, hosts)
    try:
        search.look()
    except OutOfTimeError:
        return search.isolation(out_of_time=True)
    return search.isolation()


def _of_few(hosts: Sequence[str], works: Works) -> FaultIsolation:
    """Of two hosts, or one: each by itself."""
    try:
        alone = tuple(host for host in hosts if not works((host,))) if len(hosts) > 1 else ()
    except OutOfTimeError:
        return FaultIsolation(suspects=tuple(hosts))
    if len(alone) == len(hosts) or not alone:
        return FaultIsolation(alone=alone, suspects=tuple(hosts))
    return FaultIsolation(alone, alone)


class _Search:
    """The state of a search: who is cleared, who is guilty."""

    def __init__(self, works: Works, hosts: Sequence[str]) -> None:
        self._works = works
        self._hosts = tuple(hosts)
        self._cleared: list[str] = []
        self._guilty: list[str] = []
        self._alone: list[str] = []

    def look(self) -> None:
        pair = next((pair for pair in _pairs(self._hosts) if self._works(pair)), None)
        if pair is None:
            self._alone = [host for host in self._hosts[:2] if not self._works((host,))]
            return
        self._cleared.extend(pair)
        self._sift(tuple(host for host in self._hosts if host not in pair))
        self._alone = [host for host in self._guilty if not self._works((host,))]

    def _sift(self, suspects: tuple[str, ...]) -> None:
        """Clear or convict hosts of which at least one is thought to be guilty."""
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
            self._guilty.extend(suspects)
        else:
            self._sift(suspects)

    def isolation(self, *, out_of_time: bool = False) -> FaultIsolation:
        known = {*self._cleared, *self._guilty}
        suspects = tuple(host for host in self._hosts if host not in known)
        good = self._cleared[0] if self._cleared else None
        cleared_all = not suspects and not self._guilty and not out_of_time
        return FaultIsolation(tuple(self._guilty), tuple(self._alone), good, suspects, cleared_all)


def _pairs(hosts: tuple[str, ...]) -> list[tuple[str, str]]:
    """Pairs without a common host; of few hosts, all pairs."""
    apart = list(zip(hosts[::2], hosts[1::2], strict=False))
    if len(hosts) > 4:
        return apart
    return [*apart, *(pair for pair in itertools.combinations(hosts, 2) if pair not in apart)]
