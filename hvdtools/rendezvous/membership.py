"""The members of a job, and the rank variables that Horovod needs for each of them."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvdtools.core.topology import LaunchEnvironment


@dataclass(frozen=True)
class Member:
    """What each rank registers in the store.

    Attributes:
        rank, size, local_rank: From its launcher.
        host: Its node's name.
        node: Distinguishes nodes of the same name: the launcher's number of the node, if it
            has one (two torchruns may share a host), otherwise `machine`.
        machine: Equal for processes that reach each other by 127.0.0.1.
        nonce: Drawn by the process, so that two processes with one rank are noticed.
        via: The address at which it reached rank 0; "" for rank 0 itself.
    """

    rank: int
    size: int
    local_rank: int
    host: str
    node: str
    machine: str
    nonce: str
    via: str


@dataclass(frozen=True)
class Placement:
    """A rank's values of Horovod's variables (`HOROVOD_LOCAL_RANK` and so on).

    Attributes:
        hostname: One for each node, also where two nodes have the same name.
        cross_rank, cross_size: This node among those that have a rank of the same local rank.
    """

    hostname: str
    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int


def own_member(
    launch_env: LaunchEnvironment, environ: Mapping[str, str], nonce: str, via: str
) -> Member:
    """What this process registers."""
    host, node, machine = socket.gethostname(), None, _machine()
    if launch_env.launcher == "srun":
        host, node = environ.get("SLURMD_NODENAME", host), environ.get("SLURM_NODEID")
    elif launch_env.launcher == "torchrun":
        node = environ.get("GROUP_RANK")
    return Member(
        rank=launch_env.rank,
        size=launch_env.size,
        local_rank=launch_env.local_rank,
        host=host,
        node=node or machine,
        machine=machine,
        nonce=nonce,
        via=via,
    )


def _machine() -> str:
    """Linux' boot and network namespace: two containers may share a host name, but not both."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/net').stat().st_ino}"
    except OSError:
        return socket.gethostname()


def on_one_machine(members: Sequence[Member]) -> bool:
    """True if every rank reaches every other by 127.0.0.1."""
    return len({member.machine for member in members}) == 1


def address_of_rank_0(members: Sequence[Member]) -> str | None:
    """The address at which most ranks of other hosts reached rank 0; None if there are none."""
    own = members[0].machine
    seen = Counter(member.via for member in members if member.machine != own)
    return seen.most_common(1)[0][0] if seen else None


def find_conflict(members: Sequence[Member], size: int) -> str | None:
    """The error message for members that contradict each other, or None. Some may be missing."""
    for member in members:
        if member.size != size:
            return (
                f"Rank {member.rank} on {member.host} has a job of {member.size} ranks, and rank 0 "
                f"one of {size}: two jobs are mixed up, so give each its own variables (see "
                "HVDTOOLS_RENDEZVOUS)."
            )
    twice = [rank for rank, count in Counter(m.rank for m in members).items() if count > 1]
    if twice:
        hosts = sorted({member.host for member in members if member.rank == twice[0]})
        return (
            f"Two processes have rank {twice[0]} ({', '.join(hosts)}): two jobs are mixed up, or "
            "the script was started twice in one rank."
        )
    return None


def missing_ranks(members: Sequence[Member], size: int, timeout_s: float) -> str:
    """The error message for ranks that have not registered."""
    missing = sorted(set(range(size)) - {member.rank for member in members})
    shown = ", ".join(map(str, missing[:8]))
    more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
    return (
        f"{'Rank' if len(missing) == 1 else 'Ranks'} {shown}{more} of {size} did not reach init() "
        f"within {timeout_s:g} s of rank 0: check whether they run and what they print, or raise "
        "HVDTOOLS_RENDEZVOUS_TIMEOUT_S."
    )


def place_ranks(members: Sequence[Member]) -> list[Placement]:
    """Every rank's placement, in rank order.

    Args:
        members: All ranks', in rank order, without a conflict.

    Raises:
        ValueError: Local ranks on a node are not 0 to n - 1; the text says where.
    """
    nodes: dict[tuple[str, str], list[Member]] = {}  # in the order of their lowest rank
    across: dict[int, list[int]] = {}  # local rank -> the ranks that have it
    for member in members:
        nodes.setdefault((member.host, member.node), []).append(member)
    for on_node in nodes.values():
        _require_local_ranks(on_node)
        for member in on_node:
            across.setdefault(member.local_rank, []).append(member.rank)
    placements = [
        Placement(
            hostname=name,
            rank=member.rank,
            size=len(members),
            local_rank=member.local_rank,
            local_size=len(on_node),
            cross_rank=across[member.local_rank].index(member.rank),
            cross_size=len(across[member.local_rank]),
        )
        for name, on_node in zip(_unique_names(list(nodes)), nodes.values(), strict=True)
        for member in on_node
    ]
    return sorted(placements, key=lambda placement: placement.rank)


def _require_local_ranks(on_node: Sequence[Member]) -> None:
    found = sorted(member.local_rank for member in on_node)
    if found != list(range(len(found))):
        raise ValueError(
            f"The ranks on {on_node[0].host} have the local ranks {', '.join(map(str, found))} "
            f"instead of 0 to {len(found) - 1}: give each host a different name, and let one "
            "launcher number the ranks of each host."
        )


def _unique_names(nodes: Sequence[tuple[str, str]]) -> list[str]:
    """A name for each node: its host's, with a number appended where nodes share one."""
    hosts = [host for host, _ in nodes]
    return [
        host if hosts.count(host) == 1 else f"{host}-{hosts[: index + 1].count(host)}"
        for index, host in enumerate(hosts)
    ]
