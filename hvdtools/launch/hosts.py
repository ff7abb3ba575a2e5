"""Hosts and their slots: read from `--hosts a:4,b:4` or from a hostfile."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hvdtools.core.errors import HvdtoolsError

# A name, an IPv4 address, or user@name; launchers give other characters a meaning of their own.
_NAME = re.compile(r"([A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Host:
    """A machine to start ranks on.

    Attributes:
        name: As ssh finds it.
        slots: How many ranks it takes.

    Raises:
        HvdtoolsError: It has no such name, or no slot.
    """

    name: str
    slots: int = 1

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise HvdtoolsError(f"{self.name!r} is not the name of a host: write name:slots.")
        if self.slots < 1:
            raise HvdtoolsError(f"Host {self.name} has {self.slots} slots: give it 1 or more.")

    def __str__(self) -> str:
        return f"{self.name}:{self.slots}"


def read_hosts(text: str, slots: int | None = None) -> tuple[Host, ...]:
    """The hosts of "a:4,b:4"; a name without a number has `slots` (1 if None).

    Raises:
        HvdtoolsError: A part is no host, or one stands there twice.
    """
    return _distinct(_host(*word.strip().partition(":"), slots) for word in text.split(","))


def read_hostfile(file: Path, slots: int | None = None) -> tuple[Host, ...]:
    """The hosts of a file with one on a line, as Open MPI ("a slots=4") or MPICH ("a:4") has it.

    Empty lines and what stands behind a # are passed over; a name without a
    number has `slots` (1 if None).

    Raises:
        HvdtoolsError: The file cannot be read, a line of it (its number is named)
            is no host, or it names none.
    """
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise HvdtoolsError(f"The hostfile {str(file)!r} cannot be read: {error}.") from None
    found = []
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        try:
            if words:
                found.append(_host_of_line(words, slots))
                _distinct(found)
        except HvdtoolsError as error:
            raise HvdtoolsError(f"{file}, line {number} ({line.strip()!r}): {error}") from None
    if not found:
        raise HvdtoolsError(f"The hostfile {str(file)!r} names no host: write `name slots=4`.")
    return tuple(found)


def _host_of_line(words: list[str], slots: int | None) -> Host:
    first, *more = words
    name, colon, number = first.partition(":")
    for word in more:
        key, equals, value = word.partition("=")
        # Open MPI's max_slots bounds what --oversubscribe may do; nothing here goes beyond slots.
        if key not in ("slots", "max_slots", "max-slots") or not equals or colon:
            raise HvdtoolsError(f"{word!r} is not known: write `{name} slots=4` or `{name}:4`.")
        if key == "slots":
            number = value or "nothing"
    return _host(name, colon or number, number, slots)


def _host(name: str, colon: str, number: str, slots: int | None) -> Host:
    if not colon:
        return Host(name, slots or 1)
    if not re.fullmatch(r"\d+", number, re.ASCII):
        raise HvdtoolsError(f"{number!r} is no number of slots: write `{name}:4`.")
    return Host(name, int(number))


def _distinct(hosts: Iterable[Host]) -> tuple[Host, ...]:
    found: dict[str, Host] = {}
    for host in hosts:
        if host.name in found:
            raise HvdtoolsError(
                f"Host {host.name} is named twice: name it once, with all of its slots."
            )
        found[host.name] = host
    return tuple(found.values())
