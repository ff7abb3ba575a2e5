"""Hosts that the user names, reached by ssh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.text import count_noun
from hvdtools.launch.hosts import Host, read_hostfile, read_hosts
from hvdtools.launch.scheduler import Option, Scheduler, require_slots

if TYPE_CHECKING:
    from typing_extensions import Self

    from hvdtools.launch.machine import Machine
    from hvdtools.launch.spec import JobSpec

_PANEL = "Where"


@dataclass(frozen=True)
class Hosts(Scheduler):
    """Machines that ssh reaches without a password.

    Attributes:
        named: The hosts, with their slots.

    Raises:
        HvdtoolsError: There is none.
    """

    named: tuple[Host, ...] = ()

    name = "hosts"
    title = "Hosts"
    unsupported: ClassVar[Mapping[str, str]] = {
        "nodes": "--hosts names them",
        "gpus_per_node": "give each host as many slots as it has GPUs",
        "name": "only a submitted job has a name",
        "oversubscribe": "give the hosts more slots",
    }

    def __post_init__(self) -> None:
        if not self.named:
            raise HvdtoolsError("Name the hosts: --hosts a:4,b:4 or --hostfile FILE.")

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        return (
            Option("hosts", str, "Hosts and their slots, reached by ssh.", _PANEL, "A:4,B:4"),
            Option("hostfile", str, "The same from a file, one on a line.", _PANEL, "FILE"),
        )

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        if "hosts" in values and "hostfile" in values:
            raise HvdtoolsError("--hosts and --hostfile both name the hosts: use one of them.")
        slots = values.get("ranks-per-node")
        if "hostfile" in values:
            return cls(read_hostfile(Path(values["hostfile"]), slots))
        return cls(read_hosts(values["hosts"], slots) if "hosts" in values else ())

    def default_ranks(self) -> int:
        return sum(host.slots for host in self.named)

    def submits(self, machine: Machine) -> bool:
        return False

    def require_room(self, spec: JobSpec, machine: Machine) -> None:
        require_slots(spec, self.named)

    def hosts(self, machine: Machine) -> tuple[Host, ...]:
        return self.named

    def choose_launcher(self, spec: JobSpec, machine: Machine) -> None:
        return None

    def describe(self, machine: Machine) -> str:
        names = ", ".join(map(str, self.named[:4])) + ", …" * (len(self.named) > 4)
        return f"on {count_noun(len(self.named), 'host')} ({names})"
