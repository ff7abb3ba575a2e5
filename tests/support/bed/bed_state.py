"""What a bed is made of: a name, a folder, and processes that are found by their command line."""

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
ALL_BEDS = Path("/var/lib")
PREFIX = "hvdtools-bed."
ENDING_S = 10.0


class BedError(Exception):
    """The bed cannot do what was asked; the sentence says why."""


@dataclass(frozen=True)
class Place:
    """Where the bed called `name` keeps everything, and how its processes are known.

    No process id is ever written down. A bed's processes carry its mark as their last
    argument and everything else of it (namespaces, mounts, cables, daemons) ends with
    them, so that any later process can find and end all of a bed, whoever began it.
    """

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", self.name):
            raise BedError(f"a bed's name is up to 32 of a-z, 0-9 and -, not {self.name!r}.")

    @property
    def folder(self) -> Path:
        return ALL_BEDS / f"{PREFIX}{self.name}"

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
        """Make the folder and keep `settings` in it. Raises BedError if there is one already."""
        try:
            self.folder.mkdir(mode=0o755)
        except FileExistsError:
            raise BedError(
                f"the bed {self.name!r} is up or has fallen over; take it down first, or "
                "choose another name with HVDTOOLS_BED."
            ) from None
        self.shared.mkdir()
        self.log.mkdir()
        (self.folder / "settings.json").write_text(json.dumps(settings))

    def settings(self) -> dict[str, Any]:
        """What `claim` kept. Raises BedError if the bed is not up."""
        try:
            kept: dict[str, Any] = json.loads((self.folder / "settings.json").read_text())
        except FileNotFoundError:
            raise BedError(f"the bed {self.name!r} is not up.") from None
        return kept

    def mark(self, part: str) -> str:
        return f"hvdtools-bed:{self.name}:{part}"

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
        """End the bed, however it came to be and whatever state it is in, and all its files.

        Raises:
            BedError: Something of it stays.
        """
        holders = [process for _, process in self._marked()]
        inits = [init for holder in holders for init in children(holder)]
        end([*living_in(inits), *holders])
        # Another process may be taking the same bed down.
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.exists():
            raise BedError(f"{self.folder} cannot be removed.")


def default_name() -> str:
    return os.environ.get("HVDTOOLS_BED") or f"u{os.getuid()}"


def beds() -> list[str]:
    """The names of all beds on this machine."""
    return sorted(folder.name.removeprefix(PREFIX) for folder in ALL_BEDS.glob(f"{PREFIX}*"))


def end(processes: Iterable[psutil.Process]) -> None:
    """Kill these and wait until they are gone. Raises BedError for one that stays."""
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
    """Poll until it is so. Raises BedError when it takes longer than `timeout_s`."""
    until = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > until:
            raise BedError(f"waited {timeout_s:g} s for {what}, in vain.")
        time.sleep(0.01)
