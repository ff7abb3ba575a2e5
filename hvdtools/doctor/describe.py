"""From facts to the rows of the screen: a subject and what is here, in few words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hvdtools.build.environment import Framework
from hvdtools.core.words import counted
from hvdtools.doctor.facts import Facts, Horovod
from hvdtools.doctor.facts_host import Gpus, Interface, Network
from hvdtools.doctor.findings_network import gloo_interface, outward_interfaces

_GIB = 2**30
_SHOWN = 4  # of interfaces and ports: a host of a cluster can have dozens


def rows(facts: Facts) -> Iterator[tuple[str, str]]:
    """(subject, text) in the order of the screen; "" where only a finding has words."""
    yield "Horovod", describe_horovod(facts.horovod)
    for framework in facts.frameworks:
        yield framework.name, _framework(framework, facts)
    if facts.horovod is not None:
        controllers = facts.horovod.installed.controllers
        yield "controllers", ", ".join({"mpi": "MPI", "gloo": "Gloo"}[each] for each in controllers)
    yield "MPI", f"{facts.mpi.name} ({facts.mpi.path})" if facts.mpi else ""
    yield "NCCL", _nccl(facts)
    yield "GPUs", _gpus(facts.gpus)
    if not facts.gpu_count:
        yield "a GPU run", ""
    yield "network", _network(facts)
    yield "Slurm", _slurm(facts)
    yield "cores", _cores(facts)
    yield "memory", _memory(facts)
    if facts.variables:
        yield "set here", ", ".join(f"{name}={text}" for name, text in facts.variables.items())


def describe_horovod(horovod: Horovod | None) -> str:
    """Its version, and what it was built for and with."""
    if horovod is None:
        return "not installed"
    built_for = horovod.installed.built_for.items()
    named = " and ".join(f"{name} {version}" for name, version in sorted(built_for, reverse=True))
    mpi = f", with {horovod.mpi}" if horovod.mpi else ""
    return f"{horovod.installed.version}, built for {named or 'no framework'}{mpi}"


def _framework(framework: Framework, facts: Facts) -> str:
    build = f"CUDA {framework.cuda} build" if framework.cuda else "CPU build"
    load = facts.load(framework.name)
    served = facts.horovod is not None and framework.name in facts.horovod.installed.built_for
    loads = f"; horovod.{framework.name} loads" if served and load and not load.complaint else ""
    return f"{framework.version}, {build}{loads}"


def _nccl(facts: Facts) -> str:
    here = f"NCCL {facts.nccl.version} is here" if facts.nccl else "no NCCL library is found"
    if facts.horovod is not None and facts.horovod.installed.nccl:
        return f"built into Horovod; {here}"
    # Without GPUs the finding has the words.
    return f"not built into Horovod; {here}" if facts.gpu_count else ""


def _gpus(gpus: Gpus) -> str:
    if not gpus.cards:
        return ""
    linked = f"; {describe_links(gpus.links)}" if len(gpus.cards) > 1 and gpus.links else ""
    return f"{describe_cards(gpus)}; driver {describe_driver(gpus)}{linked}"


def describe_cards(gpus: Gpus) -> str:
    """The GPUs by kind, "8 x NVIDIA H200, 141 GiB"; "" without any."""
    kinds = Counter((card.name, card.memory_bytes) for card in gpus.cards)
    return ", ".join(
        f"{count} x {name}" + (f", {memory / _GIB:.0f} GiB" if memory else "")
        for (name, memory), count in kinds.items()
    )


def describe_driver(gpus: Gpus) -> str:
    """NVIDIA's driver, "580.65.06 (CUDA 13.0)"; "" without one."""
    return f"{gpus.driver or ''}{f' (CUDA {gpus.cuda})' if gpus.cuda else ''}"


def describe_links(links: tuple[tuple[str, ...], ...]) -> str:
    """How the GPUs reach one another: "NV18 between all", "NV4 (2 pairs), SYS (4 pairs)"."""
    pairs = Counter(row[other] for one, row in enumerate(links) for other in range(one))
    if len(pairs) == 1:
        return f"{next(iter(pairs))} between all"
    return ", ".join(f"{kind} ({counted(count, 'pair')})" for kind, count in pairs.most_common())


def _network(facts: Facts) -> str:
    network = facts.network
    outward = outward_interfaces(network)
    up = [_interface(each) for each in outward]
    ports = describe_ports(network)
    down = [each.name for each in network.interfaces if not each.up]
    parts = [*_some(up), *_some(ports)]
    if down:
        parts.append(f"{', '.join(_some(down))} down")
    if chosen := facts.variables.get("HOROVOD_GLOO_IFACE") or gloo_interface(network):
        parts.append(f"Gloo takes {chosen} between hosts")
    return "; ".join(parts)


def describe_ports(network: Network) -> list[str]:
    """InfiniBand's ports by kind, "8 x InfiniBand ACTIVE 400 Gb/sec (4X NDR)"."""
    kinds = Counter(f"{port.link_layer} {port.state} {port.rate}" for port in network.ports)
    return [f"{count} x {kind}" for kind, count in kinds.items()]


def _interface(each: Interface) -> str:
    return f"{each.name} {' and '.join(each.addresses[:2])}{_speed(each.speed_mbit_per_s)}"


def _some(texts: list[str]) -> list[str]:
    more = len(texts) - _SHOWN
    return texts if more <= 0 else [*texts[:_SHOWN], f"and {more} more"]


def _speed(mbit_per_s: int) -> str:
    if mbit_per_s <= 0:
        return ""
    return f", {mbit_per_s / 1000:g} Gbit/s" if mbit_per_s >= 1000 else f", {mbit_per_s} Mbit/s"


def _slurm(facts: Facts) -> str:
    slurm = facts.slurm
    if slurm is None:
        return ""
    kinds = f"srun {slurm.version}; --mpi: {', '.join(slurm.mpi_kinds) or 'none'}"
    if slurm.job is None:
        return f"{kinds}; outside of an allocation"
    size = counted(slurm.nodes, "node")
    tasks = f", {counted(slurm.tasks, 'task')}" if slurm.tasks else ""
    return f"{kinds}; inside job {slurm.job}: {size}{tasks}"


def _cores(facts: Facts) -> str:
    cores = facts.cores
    physical = f", {cores.physical} physical" if cores.physical else ""
    quota = f"; quota {cores.quota:g} cores" if cores.quota is not None else ""
    asked = facts.variables.get("OMP_NUM_THREADS")
    each = f"OMP_NUM_THREADS={asked}" if asked else counted(cores.threads, "thread")
    return (
        f"{cores.usable} usable of {cores.logical}{physical}{quota}; "
        f"{counted(cores.ranks, 'rank')}: {each} each"
    )


def _memory(facts: Facts) -> str:
    memory = facts.memory
    free, total = memory.available_bytes / _GIB, memory.total_bytes / _GIB
    shared = (
        f"; /dev/shm {memory.shared_free_bytes / _GIB:.1f} GiB free" if memory.shared_bytes else ""
    )
    return f"{free:.1f} of {total:.1f} GiB free{shared}"
