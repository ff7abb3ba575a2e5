"""Run on each host: looks at it, and prints what it found as one line of JSON.

Usage: python -m hvdtools.doctor.cluster.probe_host --slots N [NAME ...]
with the ranks that the host is to have, and the names of all hosts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from hvdtools import __version__
from hvdtools.build.query import first_match
from hvdtools.core.mpi import Mpirun
from hvdtools.doctor.cluster.facts import HostFacts
from hvdtools.doctor.describe import (
    describe_cards,
    describe_driver,
    describe_horovod,
    describe_ports,
)
from hvdtools.doctor.facts import Facts
from hvdtools.doctor.finding import Finding
from hvdtools.doctor.findings_gpu import examine_gpus
from hvdtools.doctor.findings_host import examine_host
from hvdtools.doctor.findings_network import examine_interfaces
from hvdtools.doctor.findings_software import examine_software
from hvdtools.doctor.probe import look
from hvdtools.doctor.probe_network import addresses_of

MARK = "hvdtools-host "
LATE = "hvdtools-late"  # printed by a probe that ends itself
LIMIT_S = 180  # a framework on a network disk has two thirds of it to load


def look_at_host(slots: int, names: Sequence[str]) -> HostFacts:
    """The facts of this host, which is to have `slots` ranks beside hosts of these names."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        addresses = pool.map(addresses_of, names)
        facts = look(slots, os.environ)
        resolved = dict(zip(names, addresses, strict=True))
    cores = facts.cores
    return HostFacts(
        versions=versions(facts),
        usable=usable(facts),
        nccl=facts.horovod is not None and facts.horovod.installed.nccl,
        network=facts.network,
        resolved=resolved,
        cores=min(float(cores.usable), cores.quota or cores.usable),
        memory=facts.memory,
        clock_s=time.time(),
        findings=tuple(told(facts)),
    )


def versions(facts: Facts) -> dict[str, str]:
    """What hosts are compared by; what is not here is left out."""
    found = {
        **own_versions(facts.mpi),
        **{each.name: each.version for each in facts.frameworks},
        "Horovod": _horovod(facts),
        "NCCL": facts.nccl.version if facts.nccl else "",
        "GPUs": describe_cards(facts.gpus),
        "driver": describe_driver(facts.gpus),
        "InfiniBand": ", ".join(describe_ports(facts.network)),
        "CPU": _cpu(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    return {subject: text for subject, text in found.items() if text}


def own_versions(mpi: Mpirun | None) -> dict[str, str]:
    """The part of `versions` that also counts where the ranks are only started from."""
    here = {"hvdtools": __version__, "Python": platform.python_version()}
    return {**here, "MPI": mpi.name} if mpi else here


def usable(facts: Facts) -> dict[str, int]:
    """See `HostFacts`."""
    built_for = facts.horovod.installed.built_for if facts.horovod else {}
    loads = [load for load in facts.loads if not load.complaint]
    return {load.framework: load.gpus or 0 for load in loads if load.framework in built_for}


def told(facts: Facts) -> list[Finding]:
    """What this host alone has to fix; names and addresses are compared between hosts."""
    found = (
        *examine_software(facts),
        *examine_gpus(facts),
        *examine_interfaces(facts),
        *examine_host(facts),
    )
    return [each for each in found if each.level == "error" or each.remedy]


def _horovod(facts: Facts) -> str:
    if facts.horovod is None:
        return ""
    installed = facts.horovod.installed
    has_nccl = ("nccl",) if installed.nccl else ()
    names = {"mpi": "MPI", "gloo": "Gloo", "nccl": "NCCL"}
    moved_by = ", ".join(names[each] for each in (*installed.controllers, *has_nccl))
    return f"{describe_horovod(facts.horovod)} ({moved_by or 'no controller'})"


def _cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    return (first_match(r"^model name\s*:\s*(.*)$", text) or platform.processor()).strip()


def _give_up(signum: int, frame: FrameType | None) -> None:
    print(LATE, flush=True)
    os._exit(1)


def main(words: Sequence[str]) -> None:
    """Print the facts of this host behind `MARK`, or `LATE` if that takes too long."""
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(LIMIT_S)
    # `-m` puts the working folder first: a file in it is not to be taken for a framework.
    if sys.path and sys.path[0] == str(Path.cwd()):
        del sys.path[0]
    parser = argparse.ArgumentParser(prog="python -m hvdtools.doctor.cluster.probe_host")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args(words)
    facts = look_at_host(asked.slots, asked.names)
    print(MARK + json.dumps(dataclasses.asdict(facts), default=str), flush=True)
    os._exit(0)  # nothing to tidy up, and the clock's difference is measured by our end


if __name__ == "__main__":
    main(sys.argv[1:])
