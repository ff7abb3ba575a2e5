"""Where a suite's ranks run: on this machine, on hosts that ssh reaches, in a Slurm job."""

from __future__ import annotations

import os
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path

from hvdtools.bench.suite.cases import Case, program_arguments
from hvdtools.bench.suite.engines import PROGRAMS
from hvdtools.bench.suite.suite_file import Suite
from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch import JobSpec
from hvdtools.launch.hosts import Host
from hvdtools.launch.schedulers.local import LOCAL, Local
from hvdtools.launch.schedulers.slurm.request import Slurm
from hvdtools.launch.schedulers.ssh import Hosts

# Gloo over the loopback interface, as horovodrun's is: left alone, it fails where the machine's
# own name resolves to an address of no interface.
_LOOPBACK = (("GLOO_SOCKET_IFNAME", "lo"),)


@dataclass(frozen=True)
class Placement:
    """Where every case of a run starts.

    Attributes:
        on: This machine, hosts, or the Slurm job that this process is in.
        interface: The network interface that ranks talk over; None leaves it to them.
        oversubscribe: Allow more ranks than slots.
    """

    on: Local | Hosts | Slurm = LOCAL
    interface: str | None = None
    oversubscribe: bool = False

    def job(self, suite: Suite, case: Case, port: int, answer: Path) -> JobSpec:
        """The case as a job whose rank 0 leaves its result in `answer`.

        Raises:
            HvdtoolsError: The place has too few nodes.
        """
        per_node = case.ranks // case.nodes
        in_slurm = isinstance(self.on, Slurm)
        return JobSpec(
            command=(
                *("python", str(case.program.file), *program_arguments(case)),
                *("--result", str(answer)),
            ),
            ranks=case.ranks,
            launcher=_launcher(case, in_slurm=in_slurm),
            env=self.environment(suite, case, port),
            oversubscribe=self.oversubscribe,
            on=self._on(case.nodes, per_node),
            nodes=None if isinstance(self.on, Local) else case.nodes,
            ranks_per_node=None if isinstance(self.on, Local) else per_node,
            interface=self.interface,
        )

    def _on(self, nodes: int, per_node: int) -> Local | Hosts | Slurm:
        if isinstance(self.on, Local) and nodes > 1:
            raise HvdtoolsError(
                f"{nodes} nodes need other machines: add --on slurm, or name them with --hosts."
            )
        if not isinstance(self.on, Hosts):
            return self.on
        hosts = self.on.named[:nodes]
        if len(hosts) < nodes or any(host.slots < per_node for host in hosts):
            raise HvdtoolsError(
                f"{nodes} nodes with {per_node} ranks each are more than --hosts "
                f"{','.join(map(str, self.on.named))} has: name more hosts or slots."
            )
        return Hosts(tuple(Host(host.name, per_node) for host in hosts))

    def environment(self, suite: Suite, case: Case, port: int) -> tuple[tuple[str, str], ...]:
        """What ranks see beside what they inherit: the same thread bound for every case."""
        seen = {"OMP_NUM_THREADS": str(suite.threads_per_rank)}
        for engine in case.bench_engines:
            if not (isinstance(self.on, Slurm) and engine.launcher == "horovodrun"):
                seen |= dict(engine.environment)
        if any(engine.needs_ports for engine in case.bench_engines):
            seen |= {"MASTER_ADDR": self._meeting_host(), "MASTER_PORT": str(port)}
            is_local = isinstance(self.on, Local) and self.interface is None
            seen |= dict(_LOOPBACK if is_local else ())
        return tuple(seen.items())

    def _meeting_host(self) -> str:
        """Where rank 0 is."""
        if isinstance(self.on, Local):
            return "127.0.0.1"
        if isinstance(self.on, Hosts):
            return self.on.named[0].name.rpartition("@")[2]
        return os.environ.get("SLURMD_NODENAME") or socket.gethostname()

    def command_by_hand(self, suite: Suite, case: Case, port: int) -> str:
        """The case as a line to paste in a clone: no path of the machine that it ran on."""
        spec = self.job(suite, case, port, Path("result.jsonl"))
        words = ["hvdtools", "launch", "-n", str(case.ranks), "--launcher", spec.launcher]
        if isinstance(spec.on, Hosts):
            words += ["--hosts", ",".join(map(str, spec.on.named))]
        if isinstance(spec.on, Slurm):
            words += ["--on", "slurm", "--nodes", str(case.nodes)]
        words += ["--interface", self.interface] if self.interface else []
        words += ["--oversubscribe"] if self.oversubscribe else []
        for name, value in spec.env:
            words += ["--env", f"{name}={value}"]
        file = case.program.file
        shipped = file.is_relative_to(PROGRAMS)
        program = f"benchmarks/{file.relative_to(PROGRAMS)}" if shipped else file.name
        return shlex.join([*words, "--", "python", program, *program_arguments(case)])


def _launcher(case: Case, *, in_slurm: bool) -> str:
    """Who starts a case. Inside a Slurm job srun does what horovodrun does elsewhere."""
    wanted = next((e.launcher for e in case.bench_engines if e.launcher is not None), None)
    if in_slurm:
        return "mpirun" if wanted == "mpirun" else "srun"
    return wanted or "auto"


def inside_slurm() -> bool:
    """True if this process runs in a Slurm job."""
    return "SLURM_JOB_ID" in os.environ
