"""The namespaces of a host, and how to start a process in them."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster_state import ClusterError, Place

CLONE_NEWPID = 0x20000000
# What a host has for itself; where one of these holds the project, that part shows through.
OWN_FOLDERS = ("/tmp", "/run", "/dev/shm")
OWN_ETC = ("hosts", "hostname", "resolv.conf", "nsswitch.conf", "ssh", "slurm")
# The options of `unshare` and `nsenter` have the same names.
NAMESPACES = ("--net", "--uts", "--ipc", "--mount")


def hold(place: Place, part: str, script: str) -> None:
    """Start process 1 of `part` in namespaces of its own; `script` ends by becoming it."""
    # Nobody's child: it outlives the process that brings the test cluster up.
    argv = ["setsid", "--fork", "unshare", *NAMESPACES, "--pid", "--fork", "--kill-child"]
    with (place.log / part).open("a") as log:
        subprocess.run(
            [*argv, "--mount-proc", "sh", "-ec", script, place.mark(part)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/",
        )


def furnish(place: Place, host: str, seen: Sequence[str]) -> str:
    """The shell script of `host`'s process 1: its own name, folders and /etc, then sshd."""
    own = place.of(host)
    lines: list[Sequence[str]] = [("hostname", host)]
    for folder in OWN_FOLDERS:
        lines += _own_folder(folder, own / folder.strip("/").replace("/", "-"), seen)
    lines.append(("mkdir", "-p", "/run/sshd", "/run/munge"))
    lines += _own_sys(own / "cgroup")
    for name in OWN_ETC:
        # A dangling link (resolv.conf into the outer /run) is as good as an empty file.
        if Path("/etc", name).exists() and (own / "etc" / name).exists():
            lines.append(("mount", "--bind", str(own / "etc" / name), f"/etc/{name}"))
    keys = Path.home() / ".ssh"
    if keys.is_dir():  # the person's own keys and settings have no say among the hosts
        lines.append(("mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", str(keys)))
    lines.append(("exec", "/usr/sbin/sshd", "-D", "-E", str(place.log / f"sshd.{host}")))
    return "\n".join(shlex.join(line) for line in lines)


def _own_folder(folder: str, staged: Path, seen: Sequence[str]) -> Iterator[Sequence[str]]:
    """Build the new folder aside, since what shows through is out of sight once it is mounted."""
    yield "mkdir", "-p", str(staged)
    if folder == "/tmp":
        yield "chmod", "1777", str(staged)  # on disk, as a node's is; it outlives a crash
    else:
        mode = "1777" if folder == "/dev/shm" else "755"
        yield "mount", "-t", "tmpfs", "-o", f"size=2g,mode={mode}", "tmpfs", str(staged)
    for path in seen:
        if Path(path).is_relative_to(folder):
            through = str(staged / Path(path).relative_to(folder))
            yield "mkdir", "-p", through
            yield "mount", "--rbind", path, through
    yield "mount", "--rbind", str(staged), folder


def _own_sys(aside: Path) -> Iterator[Sequence[str]]:
    """A /sys that shows the host's own interfaces, with the machine's cgroups put back."""
    has_cgroups = Path("/sys/fs/cgroup").is_dir()
    if has_cgroups:
        yield "mkdir", "-p", str(aside)
        yield "mount", "--rbind", "/sys/fs/cgroup", str(aside)
    yield "mount", "-t", "sysfs", "sysfs", "/sys"
    if has_cgroups:
        yield "mount", "--rbind", str(aside), "/sys/fs/cgroup"


@contextmanager
def _born_in(pid: int) -> Iterator[None]:
    """What this thread starts meanwhile belongs to the PID namespace of process `pid`.

    `nsenter --pid` would fork and pass no signal on to the program it starts.
    """
    _enter_pids(f"/proc/{pid}/ns/pid")
    try:
        yield
    finally:
        _enter_pids("/proc/self/ns/pid")


def _enter_pids(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
    handle = os.open(path, os.O_RDONLY)
    try:
        if libc.setns(handle, CLONE_NEWPID) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    finally:
        os.close(handle)


def start_in(
    pid: int, argv: Sequence[str | Path], cwd: str | Path, **options: Any
) -> subprocess.Popen[str]:
    """Start `argv` in the namespaces of process `pid`; the handle is that of `argv` itself.

    Raises:
        ClusterError: The folder `cwd` does not exist there.
    """
    if not Path(f"/proc/{pid}/root{cwd}").is_dir():
        raise ClusterError(
            f"there is no folder {cwd} on that host: /tmp, /run and /dev/shm are its own; "
            "use the test cluster's shared folder, or bring the test cluster up with --see."
        )
    enter = ["nsenter", f"--target={pid}", *NAMESPACES, f"--wdns={cwd}", "--"]
    with _born_in(pid):
        return subprocess.Popen([*enter, *map(str, argv)], text=True, **options)


def listens(pid: int, port: int) -> bool:
    """Whether a program in the network of process `pid` accepts connections on `port`."""
    try:
        sockets = Path(f"/proc/{pid}/net/tcp").read_text().split("\n")[1:]
    except FileNotFoundError:
        return False
    return any(f":{port:04X} " in line and " 0A " in line for line in sockets)
