"""An all-reduce over several hosts, as a value."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hvdtools.build.smoke_test import LIMIT_S
from hvdtools.launch.hosts import Host

ENVIRONMENT = (
    ("OMP_NUM_THREADS", "1"),
    ("TF_CPP_MIN_LOG_LEVEL", "3"),
    ("TF_FORCE_GPU_ALLOW_GROWTH", "true"),
)


@dataclass(frozen=True)
class Job:
    """An all-reduce over hosts: "mpi" or "gloo" coordinates it, on "cpu" or "gpu"."""

    framework: str
    controller: str
    device: str
    hosts: tuple[Host, ...]
    limit_s: float = LIMIT_S

    @property
    def ranks(self) -> int:
        """One for each slot."""
        return sum(host.slots for host in self.hosts)

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments of the program in each rank (`build/rank_check.py`)."""
        return (self.framework, self.device, self.controller, str(self.ranks))

    @property
    def name(self) -> str:
        """In words: "torch over MPI"."""
        over = {"mpi": "MPI", "gloo": "Gloo"}[self.controller]
        return f"{self.framework} over {over}{', NCCL' if self.device == 'gpu' else ''}"

    @property
    def size(self) -> str:
        """In words: "6 ranks on 3 hosts"."""
        words = (("rank", self.ranks), ("host", len(self.hosts)))
        ranks, hosts = (f"{count} {noun}{'s' * (count != 1)}" for noun, count in words)
        return f"{ranks} on {hosts}"

    def over(self, names: tuple[str, ...], limit_s: float) -> Job:
        """The same on some of its hosts."""
        hosts = tuple(host for host in self.hosts if host.name in names)
        return replace(self, hosts=hosts, limit_s=limit_s * self.limit_s / LIMIT_S)
