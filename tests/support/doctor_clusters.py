"""Clusters for the doctor's tests, made by hand: sound hosts of which one is then changed."""

from __future__ import annotations

from dataclasses import replace

from doctor_machines import GIB, GPU_HOST

from hvdtools.doctor.facts import (
    Card,
    ClusterFacts,
    FrameworkImport,
    HostAnswer,
    HostFacts,
    Interface,
    Network,
)
from hvdtools.launch.hosts import Host
from hvdtools.launch.ssh_check import Problem

LOOPBACK = Interface("lo", True, ("127.0.0.1",), 0, 65536, ("127.0.0.0/8",))
VERSIONS = {
    "hvdtools": "0.1.0",
    "Python": "3.11.7",
    "torch": "2.13.0",
    "Horovod": "0.28.1, built for torch 2.13.0, with Open MPI 5.0.11 (MPI, Gloo)",
    "MPI": "Open MPI 5.0.11",
    "GPUs": "8 x NVIDIA H200, 141 GiB",
    "driver": "580.65.06 (CUDA 13.0)",
    "kernel": "Linux 6.1 x86_64",
}


def nic(name: str, number: int, **changes: object) -> Interface:
    """An interface of host `number`: eth0 in 10.0.0.0/24, eth1 in 10.0.1.0/24, and so on."""
    lan = f"10.0.{name[-1]}"
    found = Interface(name, True, (f"{lan}.{number}",), 25_000, 1500, (f"{lan}.0/24",))
    return replace(found, **changes)  # type: ignore[arg-type]


def sound_host(number: int, count: int) -> HostFacts:
    return replace(
        GPU_HOST,
        versions=dict(VERSIONS),
        loads=(FrameworkImport("torch", gpus=8),),
        gpus=replace(GPU_HOST.gpus, cards=(Card("NVIDIA H200", 141 * GIB),) * 8),
        network=Network(
            f"host{number}",
            (f"10.0.0.{number}",),
            (nic("eth0", number), nic("eth1", number), LOOPBACK),
            (),
        ),
        resolved={f"host{other}": (f"10.0.0.{other}",) for other in range(1, count + 1)},
    )


def sound_cluster(count: int = 4) -> ClusterFacts:
    """`host1` to `hostN`, alike in all, with two slots each."""
    answers = tuple(
        HostAnswer(Host(f"host{number}", 2), sound_host(number, count))
        for number in range(1, count + 1)
    )
    here = {name: VERSIONS[name] for name in ("hvdtools", "Python", "MPI")}
    return ClusterFacts("ssh", "login", here, answers)


def changed(cluster: ClusterFacts, name: str, **changes: object) -> ClusterFacts:
    """The cluster with other facts on one host."""
    return _with(cluster, name, lambda facts: replace(facts, **changes))  # type: ignore[arg-type]


def with_version(cluster: ClusterFacts, name: str, subject: str, text: str | None) -> ClusterFacts:
    """The cluster with another version on one host; without it, if the text is None."""
    versions = {**cluster.facts[name].versions, subject: text}
    return changed(cluster, name, versions={k: v for k, v in versions.items() if v is not None})


def with_network(cluster: ClusterFacts, name: str, **changes: object) -> ClusterFacts:
    """The cluster with another network on one host."""
    network = replace(cluster.facts[name].network, **changes)  # type: ignore[arg-type]
    return changed(cluster, name, network=network)


def with_nic(cluster: ClusterFacts, name: str, *nics: Interface) -> ClusterFacts:
    """The cluster with these interfaces (and loopback) on one host."""
    return with_network(cluster, name, interfaces=(*nics, LOOPBACK))


def unreached(cluster: ClusterFacts, *names: str) -> ClusterFacts:
    """The cluster without an answer from these hosts."""
    answers = tuple(
        replace(
            each,
            facts=None,
            problem=Problem(
                f"ssh does not reach {each.host.name} (timed out)", f"let `ssh {each.host.name}`"
            ),
        )
        if each.host.name in names
        else each
        for each in cluster.answers
    )
    return replace(cluster, answers=answers)


def _with(cluster: ClusterFacts, name: str, change) -> ClusterFacts:  # type: ignore[no-untyped-def]
    answers = tuple(
        replace(each, facts=change(each.facts)) if each.host.name == name else each
        for each in cluster.answers
    )
    return replace(cluster, answers=answers)
