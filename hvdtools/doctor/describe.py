"""Facts as short texts: the rows of the screen, for one host and for several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hvdtools.build.environment import Framework
from hvdtools.build.smoke_test import CONTROLLER_NAMES
from hvdtools.core.installed import InstalledHorovod
from hvdtools.core.text import count_noun
from hvdtools.doctor.compare import NONE, listed, row
from hvdtools.doctor.facts import ClusterFacts, Gpus, Horovod, HostFacts, Interface, Network
from hvdtools.doctor.rules.network import common_interfaces, gloo_interface, outward_interfaces
from hvdtools.doctor.rules.versions import FRAMEWORKS, compared

_GIB = 2**30
_SHOWN = 4  # interfaces and ports; a host of a cluster can have dozens
# Shown even if no host has them.
_ALWAYS = ("hvdtools", "Python", *FRAMEWORKS, "Horovod", "MPI", "GPUs")


def host_rows(facts: HostFacts) -> Iterator[tuple[str, str]]:
    """(subject, text) in the order of the screen; the text is "" if only findings describe it."""
    yield "Horovod", describe_horovod(facts.horovod)
    for framework in facts.frameworks:
        yield framework.name, _framework(framework, facts)
    if facts.horovod is not None:
        controllers = facts.horovod.installed.controllers
        yield "controllers", ", ".join(CONTROLLER_NAMES[each] for each in controllers)
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
    """The version of Horovod, and what it was built for and with."""
    if horovod is None:
        return "not installed"
    built_for = horovod.installed.built_for.items()
    named = " and ".join(f"{name} {version}" for name, version in sorted(built_for, reverse=True))
    mpi = f", with {horovod.mpi}" if horovod.mpi else ""
    return f"{horovod.installed.version}, built for {named or 'no framework'}{mpi}"


def describe_controllers(installed: InstalledHorovod) -> str:
    """What coordinates the ranks and moves GPU tensors, "MPI, Gloo, NCCL"."""
    names = [CONTROLLER_NAMES[each] for each in installed.controllers]
    return ", ".join([*names, *(["NCCL"] if installed.nccl else [])]) or "no controller"


def _framework(framework: Framework, facts: HostFacts) -> str:
    build = f"CUDA {framework.cuda} build" if framework.cuda else "CPU build"
    load = facts.load(framework.name)
    served = facts.horovod is not None and framework.name in facts.horovod.installed.built_for
    loads = f"; horovod.{framework.name} loads" if served and load and not load.complaint else ""
    return f"{framework.version}, {build}{loads}"


def _nccl(facts: HostFacts) -> str:
    here = f"NCCL {facts.nccl.version} is here" if facts.nccl else "no NCCL library was found"
    if facts.has_nccl:
        return f"built into Horovod; {here}"
    # Without GPUs the finding says so.
    return f"not built into Horovod; {here}" if facts.gpu_count else ""


def _gpus(gpus: Gpus) -> str:
    if not gpus.cards:
        return ""
    linked = f"; {describe_links(gpus.links)}" if len(gpus.cards) > 1 and gpus.links else ""
    return f"{describe_cards(gpus)}; driver {describe_driver(gpus)}{linked}"


def describe_cards(gpus: Gpus) -> str:
    """The GPUs by model, "8 x NVIDIA H200, 141 GiB"; "" if there are none."""
    kinds = Counter((card.name, card.memory_bytes) for card in gpus.cards)
    return ", ".join(
        f"{count} x {name}" + (f", {memory / _GIB:.0f} GiB" if memory else "")
        for (name, memory), count in kinds.items()
    )


def describe_driver(gpus: Gpus) -> str:
    """The NVIDIA driver, "580.65.06 (CUDA 13.0)"; "" if there is none."""
    return f"{gpus.driver or ''}{f' (CUDA {gpus.cuda})' if gpus.cuda else ''}"


def describe_links(links: tuple[tuple[str, ...], ...]) -> str:
    """How the GPUs reach one another: "NV18 between all", "NV4 (2 pairs), SYS (4 pairs)"."""
    pairs = Counter(row[other] for one, row in enumerate(links) for other in range(one))
    if len(pairs) == 1:
        return f"{next(iter(pairs))} between all"
    return ", ".join(f"{kind} ({count_noun(count, 'pair')})" for kind, count in pairs.most_common())


def _network(facts: HostFacts) -> str:
    network = facts.network
    outward = outward_interfaces(network)
    up = [_interface(each) for each in outward]
    ports = describe_ports(network)
    down = [each.name for each in network.interfaces if not each.up]
    parts = [*_some(up), *_some(ports)]
    if down:
        parts.append(f"{', '.join(_some(down))} down")
    if chosen := facts.variables.get("HOROVOD_GLOO_IFACE") or gloo_interface(network):
        parts.append(f"Gloo uses {chosen} between hosts")
    return "; ".join(parts)


def describe_ports(network: Network) -> list[str]:
    """The InfiniBand ports by kind, "8 x InfiniBand ACTIVE 400 Gb/sec (4X NDR)"."""
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


def _slurm(facts: HostFacts) -> str:
    slurm = facts.slurm
    if slurm is None:
        return ""
    kinds = f"srun {slurm.version}; --mpi: {', '.join(slurm.mpi_kinds) or 'none'}"
    if slurm.job is None:
        return f"{kinds}; outside of an allocation"
    size = count_noun(slurm.nodes, "node")
    tasks = f", {count_noun(slurm.tasks, 'task')}" if slurm.tasks else ""
    return f"{kinds}; inside job {slurm.job}: {size}{tasks}"


def _cores(facts: HostFacts) -> str:
    cores = facts.cores
    physical = f", {cores.physical} physical" if cores.physical else ""
    quota = f"; quota {cores.quota:g} cores" if cores.quota is not None else ""
    threads = facts.variables.get("OMP_NUM_THREADS")
    each = f"OMP_NUM_THREADS={threads}" if threads else count_noun(cores.threads, "thread")
    return (
        f"{cores.usable} usable of {cores.logical}{physical}{quota}; "
        f"{count_noun(cores.ranks, 'rank')}: {each} each"
    )


def _memory(facts: HostFacts) -> str:
    memory = facts.memory
    free, total = memory.available_bytes / _GIB, memory.total_bytes / _GIB
    shared = (
        f"; /dev/shm {memory.shared_free_bytes / _GIB:.1f} GiB free" if memory.shared_bytes else ""
    )
    return f"{free:.1f} of {total:.1f} GiB free{shared}"


def cluster_rows(cluster: ClusterFacts) -> Iterator[tuple[str, str]]:
    """(subject, text) in the order of the screen."""
    yield "hosts", _hosts(cluster)
    if not cluster.facts:
        return
    for subject, found in compared(cluster).items():
        if subject in _ALWAYS or not found.agree or found.usual != NONE:
            yield subject, row(found)
    if len(cluster.facts) > 1:
        yield "names", ""
        yield "network", _networks(cluster)
    yield "clocks", ""
    yield "memory", _memories(cluster)


def cluster_title(cluster: ClusterFacts) -> str:
    """The first line: which hosts were examined, and how."""
    named = listed([str(each.host) for each in cluster.answers])
    way = {"ssh": "over ssh", "srun": "through srun"}[cluster.way]
    count = count_noun(len(cluster.answers), "host")
    return f"{count} with {cluster.slots} slots ({named}), examined from {cluster.here} {way}"


def _hosts(cluster: ClusterFacts) -> str:
    count, answered = len(cluster.answers), len(cluster.facts)
    if answered == count:
        return f"{'all ' * (count > 1)}{count} answered"
    missing = [each.host.name for each in cluster.answers if each.facts is None]
    return f"{answered} of {count} answered; not {listed(missing)}"


def _networks(cluster: ClusterFacts) -> str:
    parts = []
    for name in common_interfaces(cluster.facts):
        subnets = {
            subnet
            for facts in cluster.facts.values()
            for each in facts.network.interfaces
            if each.name == name
            for subnet in each.subnets
        }
        where = next(iter(subnets)) if len(subnets) == 1 else f"{len(subnets)} subnets"
        parts.append(f"{name} in {where}")
    return f"on all: {', '.join(parts)}" if parts else "no interface is up on all"


def _memories(cluster: ClusterFacts) -> str:
    memories = [facts.memory for facts in cluster.facts.values()]
    free = _range([each.available_bytes for each in memories])
    total = _range([each.total_bytes for each in memories])
    shared = _range([each.shared_free_bytes for each in memories])
    return f"{free} of {total} GiB free; /dev/shm {shared} GiB free"


def _range(values: list[int]) -> str:
    low, high = f"{min(values) / _GIB:.1f}", f"{max(values) / _GIB:.1f}"
    return low if low == high else f"{low} to {high}"
