"""Who coordinates the ranks that an mpirun starts: MPI where Horovod has that MPI, or Gloo."""

from __future__ import annotations

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.mpi import HYDRA, Mpirun
from hvdtools.launch.machine import Machine


def usable(machine: Machine) -> Mpirun:
    """The mpirun to start with.

    Raises:
        HvdtoolsError: There is none, or its options are not known here.
    """
    found = machine.mpirun
    if found is None:
        raise HvdtoolsError(
            "There is no mpirun beside this Python or on PATH: run `pip install 'hvdtools[mpi]'` "
            "and then `hvdtools build`, or use --launcher horovodrun."
        )
    if found.flavour not in ("Open MPI", *HYDRA) or found.version < (4,):
        raise HvdtoolsError(
            f"{found.path} is not Open MPI 4 or newer, MPICH or Intel MPI (it says "
            f"{found.name!r}) and its options are not known here: run `pip install "
            "'hvdtools[mpi]'`, or use --launcher horovodrun."
        )
    return found


def reaches_mpi(machine: Machine) -> bool:
    """True if Horovod's own MPI is the one that this mpirun serves.

    Ranks of another one would each find themselves alone. Only Open MPI's start-up
    is trusted: its major version must be the one that Horovod was built with,
    where that is known.
    """
    mpirun = machine.mpirun
    if mpirun is None or mpirun.flavour != "Open MPI" or "mpi" not in machine.controllers:
        return False
    built_with = machine.built_with
    return built_with is None or built_with.startswith(f"Open MPI {mpirun.version[0]}.")


def controller(machine: Machine) -> tuple[tuple[str, str], ...]:
    """The variables that name the controller to Horovod, as (name, value).

    Raises:
        HvdtoolsError: Horovod has neither this MPI nor Gloo.
    """
    if machine.horovod is None or reaches_mpi(machine):
        name = "mpi"
    elif "gloo" in machine.controllers:
        name = "gloo"
    else:
        built = machine.built_with or "another MPI"
        raise HvdtoolsError(
            f"The installed Horovod {machine.horovod} was built with {built} and without Gloo, and "
            f"{usable(machine).name} cannot bring its ranks together: run `hvdtools build`."
        )
    return (("HOROVOD_CONTROLLER", name), ("HOROVOD_CPU_OPERATIONS", name))
