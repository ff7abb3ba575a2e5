"""Programs on the hosts of a test cluster: started without ssh, and found again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cluster_namespaces
import psutil
from cluster_network import SWITCH
from cluster_state import ClusterError, Place, children, end, is_alive, living_in

NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
# The caller's, and of no meaning on a host.
NOT_PASSED_ON = ("TMPDIR", "SSH_AUTH_SOCK", "SLURM_CONF")
# What a host runs when nobody uses it, beside its process 1.
DAEMONS = {"munged", "slurmd", "slurmctld", "slurmscriptd", "sge_qmaster", "sge_execd"}


@dataclass(frozen=True)
class Found:
    """A process on a host: its id as this machine sees it, and its command line."""

    pid: int
    argv: tuple[str, ...]

    @property
    def is_step(self) -> bool:
        """Whether it is Slurm's process above those of a job's step."""
        return self.argv[:1] != () and self.argv[0].startswith("slurmstepd: ")


class Running:
    """The hosts of a test cluster that is up, as places where programs run.

    A method raises ClusterError where a host is not up or unknown.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        settings = place.settings()
        self.hosts: tuple[str, ...] = tuple(settings["hosts"])
        self.seen: tuple[str, ...] = tuple(settings["seen"])
        self._inits: dict[str, psutil.Process] = {}

    def is_up(self, host: str) -> bool:
        return self.find(host) is not None

    def init(self, host: str) -> int:
        """The host's process 1, as this machine numbers it."""
        if host not in (*self.hosts, SWITCH):
            raise ClusterError(f"there is no host {host!r}; there are {', '.join(self.hosts)}.")
        pid = self.find(host)
        if pid is None:
            raise ClusterError(f"{host} is not up.")
        return pid

    def find(self, part: str) -> int | None:
        """Process 1 of a host or of the switch, or None."""
        init = self._inits.get(part)
        if init is None or not is_alive(init):
            holder = self.place.holders().get(part)
            found = children(holder) if holder else []
            if not found:
                return None
            init = self._inits[part] = found[0]
        return int(init.pid)

    def path(self, host: str, path: str | Path) -> Path:
        """How this machine reaches the file that is `path` on `host`, its own /tmp for instance."""
        return Path(f"/proc/{self.init(host)}/root{path}")

    def popen(
        self,
        host: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] = NO_VARIABLES,
        cwd: str | Path | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start a program on `host`, without ssh; a signal to the handle reaches it directly.

        Args:
            env: Variables beside this process's own.
            cwd: Where it starts; this process's own folder unless given. Must exist there.
            options: Those of `subprocess.Popen`.
        """
        kept = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
        options = {"stdin": subprocess.DEVNULL, "start_new_session": True, **options}
        folder = Path(cwd or Path.cwd()).absolute()
        return cluster_namespaces.start_in(
            self.init(host), argv, folder, env={**kept, **env}, **options
        )

    def exec(
        self,
        host: str,
        argv: Sequence[str | Path],
        *,
        timeout_s: float = 60,
        env: Mapping[str, str] = NO_VARIABLES,
        cwd: str | Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on `host` to its end, whatever its exit code.

        Raises:
            subprocess.TimeoutExpired: It did not end in time; it and its children are killed.
        """
        pipe = subprocess.PIPE
        process = self.popen(host, argv, env, cwd, stdout=pipe, stderr=pipe)
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except BaseException as error:
            root = psutil.Process(process.pid)
            end([root, *children(root, all_below=True)])
            said = process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise subprocess.TimeoutExpired(list(argv), timeout_s, *said) from None
            raise
        return subprocess.CompletedProcess(list(argv), process.returncode, output, errors)

    def processes(self, *hosts: str) -> list[Found]:
        """What runs on these hosts (all that are up, if none is named) beside their daemons.

        Empty when nothing is left of a job.
        """
        return [found for _, found in self.guests(*hosts)]

    def guests(self, *hosts: str) -> list[tuple[psutil.Process, Found]]:
        """The same, each with a handle."""
        up = hosts or filter(self.is_up, self.hosts)
        inits = [psutil.Process(self.init(host)) for host in up]
        guests = []
        for process in living_in(inits):
            try:
                if process not in inits and process.name() not in DAEMONS:
                    guests.append((process, Found(process.pid, tuple(process.cmdline()))))
            except psutil.NoSuchProcess:
                continue
        return guests
