"""Who coordinates the ranks, MPI or Gloo, and what Gloo needs before it starts."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.core.topology import LaunchEnvironment
from hvdtools.rendezvous.meeting import meet
from hvdtools.rendezvous.network import loopback

_CONTROLLER = "HOROVOD_CONTROLLER"


def choose_controller(hvd: Any, launch_env: LaunchEnvironment, environ: Mapping[str, str]) -> str:
    """ "mpi" or "gloo": what the user named, or what the launcher serves.

    Raises:
        HvdtoolsError: This Horovod was built without it.
    """
    built = {"mpi": hvd.mpi_built(), "gloo": hvd.gloo_built()}
    named = environ.get(_CONTROLLER, "").lower()
    if named and named not in built:
        raise unknown_name("controller in HOROVOD_CONTROLLER", named, list(built))
    if named:
        controller = named
    elif launch_env.serves_mpi or launch_env.size == 1:
        # Alone, Horovod's own choice would start MPI for a single process: a second of waiting.
        first, second = ("mpi", "gloo") if launch_env.serves_mpi else ("gloo", "mpi")
        controller = first if built[first] else second
    else:
        controller = "gloo"
    if not built[controller]:
        other = "mpirun" if controller == "gloo" else "horovodrun"
        raise HvdtoolsError(
            f"{launch_env.launcher} started {launch_env.size} ranks for {controller}, but this "
            f"Horovod was built without it: use `hvdtools launch --launcher {other}`, or run "
            "`hvdtools build`."
        )
    return controller


def prepare_gloo(launch_env: LaunchEnvironment, environ: MutableMapping[str, str]) -> None:
    """Everything that Gloo reads from `environ`; ranks meet where the launcher left that to them.

    Raises:
        HvdtoolsError: They do not come together.
    """
    environ.setdefault(_CONTROLLER, "gloo")
    if environ.get("HOROVOD_CPU_OPERATIONS", "mpi").lower() == "mpi":
        # Horovod would call an MPI that nobody has started, and abort.
        environ["HOROVOD_CPU_OPERATIONS"] = "gloo"
    if launch_env.size > 1 and not launch_env.brings_meeting_point:
        meet(launch_env, environ)
    own = loopback() if launch_env.size == 1 else None
    if own is not None:
        # Else Gloo asks for the address of this host's own name, which not every host knows.
        environ.setdefault("HOROVOD_GLOO_IFACE", own)
