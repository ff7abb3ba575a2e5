"""Which hosts to examine: those that the user names, or the nodes of the Slurm allocation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hvdtools.build.programs import query_output
from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.core.text import parse_tasks_per_node
from hvdtools.doctor.probes.host import read_count
from hvdtools.doctor.rules.versions import FRAMEWORKS
from hvdtools.launch.hosts import Host, read_hostfile, read_hosts

SCOPES = ("local", "hosts", "slurm")


def choose_scope(
    on: str | None, hosts: str | None, hostfile: Path | None, environ: Mapping[str, str]
) -> str:
    """ "local" for this machine, "hosts" for named hosts, "slurm" for the nodes of the allocation.

    The default is the allocation if it has several nodes, unless srun started several of us: then
    each examines its own machine.

    Raises:
        HvdtoolsError: The options contradict one another, or there is no allocation.
    """
    if on is not None and on not in SCOPES:
        raise unknown_name("place", on, SCOPES)
    named = hosts is not None or hostfile is not None
    if hosts is not None and hostfile is not None:
        raise HvdtoolsError("--hosts and --hostfile both name the hosts: use one of them.")
    if named and on not in (None, "hosts"):
        raise HvdtoolsError(f"--on {on} and named hosts contradict each other: leave one out.")
    if on == "hosts" and not named:
        raise HvdtoolsError("--on hosts needs hosts: name them with --hosts a:4,b:4 or --hostfile.")
    if on == "slurm" and "SLURM_JOB_ID" not in environ:
        raise HvdtoolsError(
            "--on slurm needs a Slurm allocation, and this process is in none: run "
            "`salloc -N2 hvdtools doctor`."
        )
    if named or on is not None:
        return "hosts" if named else str(on)
    several = read_count(environ, "SLURM_JOB_NUM_NODES") > 1
    return "slurm" if several and read_count(environ, "SLURM_STEP_NUM_TASKS") < 2 else "local"


def named_hosts(hosts: str | None, hostfile: Path | None) -> tuple[Host, ...]:
    """The hosts of --hosts or --hostfile.

    Raises:
        HvdtoolsError: They cannot be read.
    """
    return read_hostfile(hostfile) if hostfile is not None else read_hosts(hosts or "")


def allocated_hosts(environ: Mapping[str, str]) -> tuple[Host, ...]:
    """The nodes of the allocation, with the tasks that it requested, or one each.

    Raises:
        HvdtoolsError: scontrol does not name the nodes.
    """
    nodes = environ.get("SLURM_JOB_NODELIST", "")
    names = (query_output(["scontrol", "show", "hostnames", nodes]) or "").split()
    if not names:
        raise HvdtoolsError(
            f"scontrol does not name the nodes of this allocation ({nodes or 'none'}): run "
            "`scontrol show hostnames`, which says why."
        )
    # Without SLURM_NTASKS, SLURM_TASKS_PER_NODE counts the cores.
    requested = environ.get("SLURM_TASKS_PER_NODE", "") if "SLURM_NTASKS" in environ else ""
    tasks = parse_tasks_per_node(requested)
    if len(tasks) != len(names):
        tasks = [1] * len(names)
    return tuple(Host(name, slots) for name, slots in zip(names, tasks, strict=True))


def assign_ranks(hosts: tuple[Host, ...], ranks: int | None) -> tuple[Host, ...]:
    """The hosts with as many of their slots as `ranks` need, at least one on each.

    Raises:
        HvdtoolsError: There are more ranks than slots, or fewer than hosts.
    """
    slots = sum(host.slots for host in hosts)
    if ranks is None or ranks == slots:
        return hosts
    if ranks > slots:
        raise HvdtoolsError(
            f"--np {ranks} is more than the {slots} slots of {_shown(hosts)}: use --np {slots} or "
            "fewer, or give the hosts more slots."
        )
    if ranks < len(hosts):
        raise HvdtoolsError(
            f"--np {ranks} leaves some of the {len(hosts)} hosts without a rank: use --np "
            f"{len(hosts)} or more, or name fewer hosts."
        )
    shares = [1] * len(hosts)
    while sum(shares) < ranks:
        for position, host in enumerate(hosts):
            if shares[position] < host.slots and sum(shares) < ranks:
                shares[position] += 1
    return tuple(replace(host, slots=share) for host, share in zip(hosts, shares, strict=True))


def read_frameworks(text: str) -> tuple[str, ...]:
    """The frameworks of "torch,tensorflow"; all of them if the text is empty.

    Raises:
        HvdtoolsError: It names an unknown framework.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in FRAMEWORKS:
            raise unknown_name("framework", name, FRAMEWORKS)
    return names or FRAMEWORKS


def _shown(hosts: tuple[Host, ...]) -> str:
    return ",".join(map(str, hosts[:4])) + ",…" * (len(hosts) > 4)
