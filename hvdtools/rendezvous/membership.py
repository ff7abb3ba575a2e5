"""The address book of a job: who is where, and which place Horovod gives to each rank."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvdtools.core.topology import LaunchEnvironment


@dataclass(frozen=True)
class Member:
    """What each rank writes into the book.

    Attributes:
        rank, size, local_rank: As its launcher says.
        host: Its node's name.
        node: What tells this node from others of its name: the launcher's number of it,
            where it has one (two torchruns may share a host), or else `machine`.
        machine: Equal for processes that reach each other by 127.0.0.1.
        nonce: Drawn by the process, so that two of one rank are seen.
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
class Place:
    """A rank's place in Horovod's words (`HOROVOD_LOCAL_RANK` and so on).

    Attributes:
        hostname: One for each node: two hosts of one name are told apart here.
        cross_rank, cross_size: This node among those that have a rank of the same local rank.
    """

    hostname: str
    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int


def this_member(
    launch_env: LaunchEnvironment, environ: Mapping[str, str], nonce: str, via: str
) -> Member:
    """What this process writes into the book."""
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
    """True if 127.0.0.1 leads from every rank to every other."""
    return len({member.machine for member in members}) == 1


def address_of_rank_0(members: Sequence[Member]) -> str | None:
    """The address at which most ranks of other hosts reached rank 0; None if there are none."""
    mine = members[0].machine
    seen = Counter(member.via for member in members if member.machine != mine)
    return seen.most_common(1)[0][0] if seen else None


def what_is_wrong(members: Sequence[Member], size: int) -> str | None:
    """The sentence on members that contradict each other, or None. It may be too early to know."""
    for member in members:
        if member.size != size:
            return (
                f"Rank {member.rank} on {member.host} says that the job has {member.size} ranks "
                f"and rank 0 says {size}: two jobs are mixed up, so start each with variables of "
                "its own (see HVDTOOLS_RENDEZVOUS)."
            )
    twice = [rank for rank, count in Counter(m.rank for m in members).items() if count > 1]
    if twice:
        hosts = sorted({member.host for member in members if member.rank == twice[0]})
        return (
            f"Two processes say that they are rank {twice[0]} ({', '.join(hosts)}): two jobs are "
            "mixed up, or the script was started twice in one rank."
        )
    return None


def places_of(members: Sequence[Member]) -> list[Place]:
    """Every rank's place.

    Args:
        members: All ranks', in rank order, of which `what_is_wrong` says None.

    Raises:
        ValueError: Local ranks on a node are not 0 to n - 1; the text says where.
    """
    nodes: dict[tuple[str, str], list[Member]] = {}  # in the order of their lowest rank
    across: dict[int, list[int]] = {}  # local rank -> the ranks that have it
    for member in members:
        nodes.setdefault((member.host, member.node), []).append(member)
    for inhabitants in nodes.values():
        _require_counted(inhabitants)
        for member in inhabitants:
            across.setdefault(member.local_rank, []).append(member.rank)
    places = [
        Place(
            hostname=name,
            rank=member.rank,
            size=len(members),
            local_rank=member.local_rank,
            local_size=len(inhabitants),
            cross_rank=across[member.local_rank].index(member.rank),
            cross_size=len(across[member.local_rank]),
        )
        for name, inhabitants in zip(_names(list(nodes)), nodes.values(), strict=True)
        for member in inhabitants
    ]
    return sorted(places, key=lambda place: place.rank)


def _require_counted(inhabitants: Sequence[Member]) -> None:
    found = sorted(member.local_rank for member in inhabitants)
    if found != list(range(len(found))):
        raise ValueError(
            f"The ranks on {inhabitants[0].host} say that their local ranks are "
            f"{', '.join(map(str, found))}, and not 0 to {len(found) - 1}: give each host a name "
            "of its own, and let one launcher count the ranks of each host."
        )


def _names(nodes: Sequence[tuple[str, str]]) -> list[str]:
    """A name for each node: its host's, with a number behind it where hosts share one."""
    hosts = [host for host, _ in nodes]
    return [
        host if hosts.count(host) == 1 else f"{host}-{hosts[: index + 1].count(host)}"
        for index, host in enumerate(hosts)
    ]


def who_is_missing(members: Sequence[Member], size: int, timeout_s: float) -> str:
    """The sentence on ranks that did not come."""
    missing = sorted(set(range(size)) - {member.rank for member in members})
    shown = ", ".join(map(str, missing[:8]))
    more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
    return (
        f"{'Rank' if len(missing) == 1 else 'Ranks'} {shown}{more} of {size} did not come to "
        f"init() within {timeout_s:g} s of rank 0: see whether they run and what they print, or "
        "give them more time with HVDTOOLS_RENDEZVOUS_TIMEOUT_S."
    )
