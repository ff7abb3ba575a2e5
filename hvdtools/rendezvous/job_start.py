"""Join the job that a launcher started, whichever framework's Horovod does it.

Horovod has one library for each framework, and each of them a state of its own:
the functions here are handed the module (`horovod.torch`, `horovod.tensorflow`)
that they ask.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtools import rendezvous
from hvdtools.core.cpus import usable_cpus
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import LaunchEnvironment, Topology

_OWN_CHOICE = ("OMPI_MCA_coll_tuned_", "OMPI_MCA_coll_han_")
_RING_OVER_HOSTS = {
    "OMPI_MCA_coll_tuned_use_dynamic_rules": "1",
    "OMPI_MCA_coll_tuned_dynamic_rules_filename": str(
        Path(__file__).with_name("open_mpi_rules.conf")
    ),
}


@dataclass(frozen=True)
class RankInfo:
    """What each rank tells the others about where it runs.

    Attributes:
        host: Its machine's name.
        local_rank: As in `Topology`.
        cpus: The CPUs that it may use.
        gpu: What tells its GPU from the others of this host; None without one.
    """

    host: str
    local_rank: int
    cpus: frozenset[int]
    gpu: str | None


def this_rank_info(hvd: Any, gpu: str | None) -> RankInfo:
    """What this rank tells the others."""
    host = os.environ.get("HOROVOD_HOSTNAME") or socket.gethostname()
    return RankInfo(host, hvd.local_rank(), usable_cpus(), gpu)


def require_seconds(call: str, value: float) -> None:
    """Raise if `value` is no span of time; `call` is what the message begins with."""
    if not (value >= 0 and math.isfinite(value)):
        raise HvdtoolsError(f"{call}={value!r}) must be finite, 0 or more seconds.")


def start(hvd: Any, launch_env: LaunchEnvironment, *, on_gpu: bool) -> None:
    """Start Horovod if nobody has, and see that the job is the one promised.

    Raises:
        HvdtoolsError: It is another job, or this Horovod cannot meet the other ranks.
    """
    _require_launched(launch_env)
    started_before = hvd.is_initialized()
    if not started_before:
        rendezvous.apply_named_interface(os.environ)
        controller = rendezvous.choose_controller(hvd, launch_env, os.environ)
        if not on_gpu:
            _tune_for_cpus(launch_env, controller)
        if controller == "gloo":
            rendezvous.prepare_gloo(launch_env, os.environ)
        hvd.init()
    _require_size(hvd, launch_env, started_before)


def _require_launched(launch_env: LaunchEnvironment) -> None:
    """Raise before ranks wait for others that the launcher did not make."""
    expected = launch_env.expect_size
    if expected is not None and launch_env.size != expected:
        found = f"{launch_env.launcher} started {launch_env.size}"
        raise HvdtoolsError(
            f"HVDTOOLS_SIZE promises {expected} ranks, and "
            f"{'this process was started alone' if launch_env.launcher == 'nobody' else found}: "
            "start one process for each rank, as `hvdtools launch` does, or unset HVDTOOLS_SIZE."
        )


def _tune_for_cpus(launch_env: LaunchEnvironment, controller: str) -> None:
    """Settings that pay on the CPU; what the user set stays. Figures: docs/pages/figures.md."""
    # Horovod's thread meets the other ranks' in every cycle, also when there is nothing to
    # send. Waiting for them it must not hold a core that a rank computes on.
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    # All ranks must decide alike: on what the launcher told all of them, and on variables that
    # would part them by themselves if one host alone had them.
    one_rank_a_host = launch_env.expect_nodes == launch_env.size
    chosen = any(name.startswith(_OWN_CHOICE) or name == "OMPI_MCA_coll" for name in os.environ)
    if one_rank_a_host and not chosen:
        os.environ.update(_RING_OVER_HOSTS)
    if controller == "gloo" and 2 * launch_env.local_size > len(usable_cpus()):
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "2")  # milliseconds


def _require_size(hvd: Any, launch_env: LaunchEnvironment, started_before: bool) -> None:
    if (hvd.rank(), hvd.size()) == (launch_env.rank, launch_env.size):
        return
    found = f"rank {hvd.rank()} of {hvd.size()}"
    if started_before:
        remedy = "leave out hvd.init(), which hvdtools' own init() calls"
    elif not hvd.mpi_enabled():
        remedy = "start the job with `hvdtools launch`"
    elif launch_env.launcher == "srun":
        remedy = "use `srun --mpi=pmix`, or unset HOROVOD_CONTROLLER, so that Gloo coordinates"
    else:
        remedy = (
            "use the mpirun of the MPI that Horovod was built with (`hvdtools build` takes the one "
            "that it finds), or set HOROVOD_CONTROLLER=gloo"
        )
    hvd.shutdown()
    raise HvdtoolsError(
        f"{launch_env.launcher} promised rank {launch_env.rank} of {launch_env.size} but Horovod "
        f"sees {found}, and going on would train separate models: {remedy}."
    )


def require_own_gpu(all_ranks: Sequence[RankInfo]) -> None:
    """NCCL refuses two ranks on one GPU with an obscure error; say it clearly, on every rank."""
    owners: dict[tuple[str, str], list[int]] = {}
    for rank, info in enumerate(all_ranks):
        if info.gpu is not None:
            owners.setdefault((info.host, info.gpu), []).append(rank)
    for (host, _), ranks in owners.items():
        if len(ranks) > 1:
            raise HvdtoolsError(
                f"Ranks {', '.join(map(str, ranks))} share one GPU on {host}: start at most one "
                "rank for each GPU, or hide the GPUs with CUDA_VISIBLE_DEVICES= to train on "
                "the CPU."
            )


def topology_of(hvd: Any, all_ranks: Sequence[RankInfo]) -> Topology:
    """This process' place; `all_ranks` in rank order."""
    # A node begins wherever a local rank 0 does; two hosts may share one name.
    leaders = [rank for rank, other in enumerate(all_ranks) if other.local_rank == 0]
    hosts = list(dict.fromkeys(all_ranks[leader].host for leader in leaders))
    mine = all_ranks[hvd.rank()]
    return Topology(
        rank=hvd.rank(),
        size=hvd.size(),
        local_rank=hvd.local_rank(),
        local_size=hvd.local_size(),
        node=hosts.index(mine.host),
        nodes=len(hosts),
    )


def require_expected(
    topology: Topology, launch_env: LaunchEnvironment, expect_size: int | None
) -> None:
    """Raise if the script or the launcher counts on another job than there is.

    Args:
        expect_size: What the script asked for, or None.
    """
    if expect_size is not None and topology.size != expect_size:
        raise HvdtoolsError(
            f"init(expect_size={expect_size}) but the job has {topology.size} ranks: start it with "
            f"`hvdtools launch -n {expect_size} -- python ...`."
        )
    nodes = launch_env.expect_nodes
    if nodes is not None and topology.nodes != nodes:
        raise HvdtoolsError(
            f"HVDTOOLS_NODES promises {nodes} hosts and the {topology.size} ranks run on "
            f"{topology.nodes}: see the number of hosts and of ranks on each that "
            f"{launch_env.launcher} was asked for, and that no two hosts have one name."
        )


def in_words(hvd: Any, launch_env: LaunchEnvironment, all_ranks: Sequence[RankInfo]) -> str:
    """One line on the job: "4 ranks on 2 hosts (a: 0-1, b: 2-3), started by srun, over Gloo"."""
    hosts: dict[str, list[int]] = {}
    for rank, info in enumerate(all_ranks):
        hosts.setdefault(info.host, []).append(rank)
    shown = [f"{host}: {_runs(ranks)}" for host, ranks in list(hosts.items())[:4]]
    if len(hosts) > len(shown):
        shown.append(f"and {len(hosts) - len(shown)} more")
    where = f"{len(hosts)} host{'s' * (len(hosts) > 1)} ({', '.join(shown)})"
    carrier = "MPI" if hvd.mpi_enabled() else "Gloo"
    if all(info.gpu is not None for info in all_ranks) and hvd.nccl_built():
        carrier = f"NCCL, coordinated by {carrier}"
    return f"{len(all_ranks)} ranks on {where}, started by {launch_env.launcher}, over {carrier}"


def _runs(ranks: Sequence[int]) -> str:
    """[0, 1, 2, 5] -> "0-2 5"; many of them shortened."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    words = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return " ".join([*words[:4], "..."] if len(words) > 4 else words)
