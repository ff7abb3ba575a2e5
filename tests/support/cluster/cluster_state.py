"""The name, folder and processes of a test cluster; processes are found by command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

# Not below /run or /tmp: devices and programs lie here, and hosts have their own of those.
ALL_CLUSTERS = Path("/var/lib")
PREFIX = "hvdtools-test-cluster."
ENDING_S = 10.0


class ClusterError(Exception):
    """The test cluster cannot do what was asked; the sentence says why."""


@dataclass(frozen=True)
class Place:
    """Where the test cluster called `name` keeps everything, and how its processes are known.

    No process id is ever written down. A test cluster's processes carry its mark as their last
    argument and everything else of it (namespaces, mounts, cables, daemons) ends with
    them, so that any later process can find and end all of a test cluster, whoever began it.
    """

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", self.name):
            raise ClusterError(
                f"a test cluster's name is up to 32 of a-z, 0-9 and -, not {self.name!r}."
            )

    @property
    def folder(self) -> Path:
        return ALL_CLUSTERS / f"{PREFIX}{self.name}"

    @property
    def shared(self) -> Path:
        """A folder that is the same on every host, as a cluster's home is."""
        return self.folder / "shared"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def of(self, host: str) -> Path:
        """What only `host` has: its part of /etc and its /tmp."""
        return self.folder / "of" / host

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Make the folder and keep `settings` in it. Raises ClusterError if there is one."""
        try:
            self.folder.mkdir(mode=0o755)
        except FileExistsError:
            raise ClusterError(
                f"the test cluster {self.name!r} is up or has fallen over; take it down first, or "
                "choose another name with HVDTOOLS_TEST_CLUSTER."
            ) from None
        self.shared.mkdir()
        self.log.mkdir()
        (self.folder / "settings.json").write_text(json.dumps(settings))

    def settings(self) -> dict[str, Any]:
        """What `claim` kept. Raises ClusterError if the test cluster is not up."""
        try:
            kept: dict[str, Any] = json.loads((self.folder / "settings.json").read_text())
        except FileNotFoundError:
            raise ClusterError(f"the test cluster {self.name!r} is not up.") from None
        return kept

    def mark(self, part: str) -> str:
        return f"hvdtools-test-cluster:{self.name}:{part}"

    def holders(self) -> dict[str, psutil.Process]:
        """Part (a host, or the switch) -> the process that all of it ends with."""
        return dict(self._marked())

    def _marked(self) -> Iterator[tuple[str, psutil.Process]]:
        start = self.mark("")
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"]
            if command and command[0] == "unshare" and command[-1].startswith(start):
                yield command[-1].removeprefix(start), process

    def end(self) -> None:
        """End the test cluster, in whatever state it is, and remove all its files.

        Raises:
            ClusterError: Something of it stays.
        """
        holders = [process for _, process in self._marked()]
        inits = [init for holder in holders for init in children(holder)]
        end([*living_in(inits), *holders])
        # Another process may be taking the same cluster down.
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.exists():
            raise ClusterError(f"{self.folder} cannot be removed.")


def default_name() -> str:
    return os.environ.get("HVDTOOLS_TEST_CLUSTER") or f"u{os.getuid()}"


def clusters() -> list[str]:
    """The names of all clusters on this machine."""
    return sorted(folder.name.removeprefix(PREFIX) for folder in ALL_CLUSTERS.glob(f"{PREFIX}*"))


def end(processes: Iterable[psutil.Process]) -> None:
    """Kill these and wait until they are gone. Raises ClusterError for one that stays."""
    waiting = list(processes)
    for process in waiting:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    pids = [process.pid for process in waiting]
    wait_for(lambda: not any(map(is_alive, waiting)), f"the end of {pids}", ENDING_S)


def children(process: psutil.Process, *, all_below: bool = False) -> list[psutil.Process]:
    """Its children, or all that descend from it; none if it has ended."""
    try:
        return list(process.children(recursive=all_below))
    except psutil.NoSuchProcess:
        return []


def living_in(inits: Iterable[psutil.Process]) -> list[psutil.Process]:
    """All processes that have one of these as their process 1, and these."""
    rooms = {_room_of(init) for init in inits} - {None}
    return [process for process in psutil.process_iter() if _room_of(process) in rooms]


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs. One that its parent has not collected, or whose children have not been
    collected by theirs, exists without running: the kernel has taken its namespaces already."""
    return bool(process.is_running()) and _room_of(process) is not None


def _room_of(process: psutil.Process) -> str | None:
    """The PID namespace of a process, or None where it has ended."""
    try:
        Path(f"/proc/{process.pid}/ns/net").readlink()
        return str(Path(f"/proc/{process.pid}/ns/pid").readlink())
    except OSError:
        return None


def wait_for(is_so: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Poll until it is so. Raises ClusterError when it takes longer than `timeout_s`."""
    until = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > until:
            raise ClusterError(f"waited {timeout_s:g} s for {what}, in vain.")
        time.sleep(0.01)
