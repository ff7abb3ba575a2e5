"""What each command of `tests/bed.py` does."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from bed_hosts import HostsBed
from bed_network import LOGIN, address
from bed_slurm import SlurmBed, is_on
from bed_state import BedError, Place, default_name
from bed_why import why_no_bed


def run_command(given: argparse.Namespace) -> int:
    """Do what was asked of the bed that HVDTOOLS_BED names. Returns the exit code."""
    name = default_name()
    if given.command == "up":
        _up(name, given)
    elif given.command == "down":
        Place(name).end()
    elif given.command in ("exec", "run"):
        return _exec(HostsBed(name), getattr(given, "host", LOGIN), given.argv)
    else:
        DO[given.command](HostsBed(name), given)
    return 0


def _up(name: str, given: argparse.Namespace) -> None:
    reason = why_no_bed(given.slurm)
    if reason:
        raise BedError(reason)
    bed = HostsBed.up(name, given.hosts, given.see)
    if given.slurm:
        try:
            SlurmBed.up(bed)
        except BaseException:
            bed.down()
            raise
    _status(bed)


def _exec(bed: HostsBed, host: str, argv: list[str]) -> int:
    """Run a command with this process's own streams, and pass on a request to end."""
    argv = argv[1:] if argv[:1] == ["--"] else argv
    if not argv:
        raise BedError("which command?")
    process = bed.popen(host, argv, stdin=None, start_new_session=False)
    # The terminal sends Ctrl-C to the command as well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda got, _: process.send_signal(got))
    code = process.wait()
    return code if code >= 0 else 128 - code


def _boot(bed: HostsBed, given: argparse.Namespace) -> None:
    if is_on(bed):
        SlurmBed(bed).boot(given.host)
    else:
        bed.boot(given.host)


def _heal(bed: HostsBed) -> None:
    bed.disturbed = True  # by other processes, perhaps
    if is_on(bed):
        SlurmBed(bed).heal()
    else:
        bed.heal()


def _status(bed: HostsBed) -> None:
    for host in bed.hosts:
        words = [host, address(host), "up" if bed.is_up(host) else "down"]
        if bed.is_up(host) and bed.is_cut(host):
            words.append("cut")
        print("\t".join(words))
    print(f"shared\t{bed.shared}")
    if is_on(bed) and bed.is_up(LOGIN):
        sys.stdout.write(SlurmBed(bed).run(["sinfo"], cwd="/").stdout)


def _processes(bed: HostsBed, host: str) -> None:
    for found in bed.processes(host):
        print(found.pid, *found.argv)


DO: dict[str, Callable[[HostsBed, argparse.Namespace], None]] = {
    "cut": lambda bed, given: bed.cut(given.host),
    "join": lambda bed, given: bed.join(given.host),
    "crash": lambda bed, given: bed.crash(given.host),
    "boot": _boot,
    "nic": lambda bed, given: bed.nic(given.host, given.state == "up"),
    "own-name": lambda bed, given: bed.loopback_name(given.host, given.is_at == "loopback"),
    "add-nic": lambda bed, given: bed.add_nic(
        given.host, given.nic, given.address, cabled=not given.uncabled
    ),
    "shape": lambda bed, given: bed.shape(None if given.rate == "off" else given.rate),
    "heal": lambda bed, given: _heal(bed),
    "status": lambda bed, given: _status(bed),
    "shared": lambda bed, given: print(bed.shared),
    "processes": lambda bed, given: _processes(bed, given.host),
}
