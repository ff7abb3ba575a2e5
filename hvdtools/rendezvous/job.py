"""Start Horovod in the job that a launcher started, for any framework.

Horovod has one library for each framework, with separate state: the functions here
take the framework's module (`horovod.torch`, `horovod.tensorflow`) as `hvd`.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtools import rendezvous
from hvdtools.core.cpus import usable_cpus
from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.core.text import count_noun, format_ranges
from hvdtools.core.topology import SINGLE_PROCESS, LaunchEnvironment, Topology

_USER_TUNING = ("OMPI_MCA_coll_tuned_", "OMPI_MCA_coll_han_")
_RING_ALLREDUCE = {
    "OMPI_MCA_coll_tuned_use_dynamic_rules": "1",
    "OMPI_MCA_coll_tuned_dynamic_rules_filename": str(
        Path(__file__).with_name("open_mpi_rules.conf")
    ),
}


@dataclass(frozen=True)
class RankInfo:
    """Where a rank runs; exchanged between all ranks.

    Attributes:
        host: Its machine's name.
        local_rank: As in `Topology`.
        cpus: The CPUs that it may use.
        gpu: Identifies its GPU among those of the host; None without one.
    """

    host: str
    local_rank: int
    cpus: frozenset[int]
    gpu: str | None


def own_rank_info(hvd: Any, gpu: str | None) -> RankInfo:
    """This rank's info."""
    host = os.environ.get("HOROVOD_HOSTNAME") or socket.gethostname()
    return RankInfo(host, hvd.local_rank(), usable_cpus(), gpu)


def require_seconds(call: str, value: float) -> None:
    """Raise unless `value` is finite and not negative; the message begins with `call`."""
    if not (value >= 0 and math.isfinite(value)):
        raise HvdtoolsError(f"{call}={value!r}) must be a finite number of seconds, 0 or more.")


def start(hvd: Any, launch_env: LaunchEnvironment, *, on_gpu: bool) -> None:
    """Start Horovod unless the script has, and check that the job is the launcher's.

    Raises:
        HvdtoolsError: It is not, or this Horovod cannot connect to the other ranks.
    """
    _require_launched(launch_env)
    started_before = hvd.is_initialized()
    if not started_before:
        rendezvous.apply_named_interface(os.environ)
        controller = choose_controller(hvd, launch_env, os.environ)
        if not on_gpu:
            _tune_for_cpus(launch_env, controller)
        if controller == "gloo":
            rendezvous.prepare_gloo(launch_env, os.environ)
        hvd.init()
    _require_size(hvd, launch_env, started_before)


def _require_launched(launch_env: LaunchEnvironment) -> None:
    """Raise before ranks wait for others that the launcher did not start."""
    expected = launch_env.expect_size
    if expected is not None and launch_env.size != expected:
        has_launcher = launch_env.launcher != SINGLE_PROCESS.launcher
        ranks = count_noun(launch_env.size, "rank") if has_launcher else "this process"
        raise HvdtoolsError(
            f"HVDTOOLS_SIZE is {expected}, but {launch_env.launcher} started {ranks}: start one "
            "process for each rank, as `hvdtools launch` does, or unset HVDTOOLS_SIZE."
        )


def choose_controller(hvd: Any, launch_env: LaunchEnvironment, environ: Mapping[str, str]) -> str:
    """ "mpi" or "gloo": HOROVOD_CONTROLLER, or what the launcher supports.

    Raises:
        HvdtoolsError: This Horovod was built without it.
    """
    built = {"mpi": hvd.mpi_built(), "gloo": hvd.gloo_built()}
    named = environ.get("HOROVOD_CONTROLLER", "").lower()
    if named and named not in built:
        raise unknown_name("controller in HOROVOD_CONTROLLER", named, list(built))
    if named:
        controller = named
    elif launch_env.serves_mpi or launch_env.size == 1:
        # For a single process Horovod itself would start MPI, which takes a second.
        first, second = ("mpi", "gloo") if launch_env.serves_mpi else ("gloo", "mpi")
        controller = first if built[first] else second
    else:
        controller = "gloo"
    if not built[controller]:
        other = "mpirun" if controller == "gloo" else "horovodrun"
        ranks = count_noun(launch_env.size, "rank")
        raise HvdtoolsError(
            f"{launch_env.launcher} started {ranks} for {controller}, but this Horovod was built "
            f"without it: use `hvdtools launch --launcher {other}`, or run `hvdtools build`."
        )
    return controller


def _tune_for_cpus(launch_env: LaunchEnvironment, controller: str) -> None:
    """Settings that are faster on CPUs; the user's own stay. Figures: docs/pages/figures.md."""
    # Horovod's thread synchronizes with the other ranks in every cycle, even with nothing to
    # send. While it waits it must not hold a core that a rank computes on.
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    # All ranks must decide alike: the decision uses only variables that the launcher sets on all of
    # them, and variables that would break the job by themselves if only some hosts had them.
    one_rank_per_host = launch_env.expect_nodes == launch_env.size
    is_tuned = any(name.startswith(_USER_TUNING) or name == "OMPI_MCA_coll" for name in os.environ)
    if one_rank_per_host and not is_tuned:
        os.environ.update(_RING_ALLREDUCE)
    if controller == "gloo" and 2 * launch_env.local_size > len(usable_cpus()):
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "2")  # milliseconds


def _require_size(hvd: Any, launch_env: LaunchEnvironment, started_before: bool) -> None:
    if (hvd.rank(), hvd.size()) == (launch_env.rank, launch_env.size):
        return
    found = f"rank {hvd.rank()} of {hvd.size()}"
    if started_before:
        remedy = "remove hvd.init() from the script: hvdtools' init() calls it"
    elif not hvd.mpi_enabled():
        remedy = "start the job with `hvdtools launch`"
    elif launch_env.launcher == "srun":
        remedy = "use `srun --mpi=pmix`, or unset HOROVOD_CONTROLLER to coordinate through Gloo"
    else:
        remedy = (
            "use the mpirun of the MPI that Horovod was built with (`hvdtools build` uses the one "
            "that it finds), or set HOROVOD_CONTROLLER=gloo"
        )
    hvd.shutdown()
    raise HvdtoolsError(
        f"{launch_env.launcher} started rank {launch_env.rank} of {launch_env.size}, but Horovod "
        f"sees {found} and would train separate models: {remedy}."
    )


def require_one_rank_per_gpu(all_ranks: Sequence[RankInfo]) -> None:
    """Raise on every rank if two share a GPU, where NCCL would fail with an obscure error."""
    owners: dict[tuple[str, str], list[int]] = {}
    for rank, info in enumerate(all_ranks):
        if info.gpu is not None:
            owners.setdefault((info.host, info.gpu), []).append(rank)
    for (host, _), ranks in owners.items():
        if len(ranks) > 1:
            raise HvdtoolsError(
                f"Ranks {', '.join(map(str, ranks))} share one GPU on {host}: start at most one "
                "rank for each GPU, or set CUDA_VISIBLE_DEVICES= to train on the CPU."
            )


def read_topology(hvd: Any, all_ranks: Sequence[RankInfo]) -> Topology:
    """This process in the job; `all_ranks` in rank order."""
    # Each local rank 0 starts a node; two hosts may share one name.
    firsts = [rank for rank, other in enumerate(all_ranks) if other.local_rank == 0]
    hosts = list(dict.fromkeys(all_ranks[first].host for first in firsts))
    host = all_ranks[hvd.rank()].host
    return Topology(
        rank=hvd.rank(),
        size=hvd.size(),
        local_rank=hvd.local_rank(),
        local_size=hvd.local_size(),
        node=hosts.index(host),
        nodes=len(hosts),
    )


def require_expected(
    topology: Topology, launch_env: LaunchEnvironment, expect_size: int | None
) -> None:
    """Raise if the script or the launcher expects a job of another size.

    Args:
        expect_size: The size that the script requires, or None.
    """
    if expect_size is not None and topology.size != expect_size:
        size = count_noun(topology.size, "rank")
        raise HvdtoolsError(
            f"init(expect_size={expect_size}), but the job has {size}: start it with "
            f"`hvdtools launch -n {expect_size} -- python ...`."
        )
    nodes = launch_env.expect_nodes
    if nodes is not None and topology.nodes != nodes:
        raise HvdtoolsError(
            f"HVDTOOLS_NODES is {nodes}, but the {topology.size} ranks run on "
            f"{count_noun(topology.nodes, 'host')}: check the hosts and the ranks per host in the "
            f"command of {launch_env.launcher}, and that no two hosts have the same name."
        )


def describe_job(hvd: Any, launch_env: LaunchEnvironment, all_ranks: Sequence[RankInfo]) -> str:
    """The log line, "4 ranks on 2 hosts (a: 0-1, b: 2-3), started by srun, over Gloo"."""
    hosts: dict[str, list[int]] = {}
    for rank, info in enumerate(all_ranks):
        hosts.setdefault(info.host, []).append(rank)
    shown = [f"{host}: {_shortened(ranks)}" for host, ranks in list(hosts.items())[:4]]
    if len(hosts) > len(shown):
        shown.append(f"and {len(hosts) - len(shown)} more")
    where = f"{count_noun(len(hosts), 'host')} ({', '.join(shown)})"
    transport = "MPI" if hvd.mpi_enabled() else "Gloo"
    if all(info.gpu is not None for info in all_ranks) and hvd.nccl_built():
        transport = f"NCCL, coordinated by {transport}"
    return f"{len(all_ranks)} ranks on {where}, started by {launch_env.launcher}, over {transport}"


def _shortened(ranks: Sequence[int]) -> str:
    """[0, 1, 2, 5] -> "0-2 5"; after four ranges "..."."""
    ranges = format_ranges(ranks).split(",")
    return " ".join([*ranges[:4], "..."] if len(ranges) > 4 else ranges)
