"""From a job and the facts of a machine to a plan. Pure: it starts nothing and reads nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.mpi import HYDRA
from hvdtools.core.words import counted
from hvdtools.launch.interface import interface_variables
from hvdtools.launch.launchers import horovodrun, launcher, over_mpi
from hvdtools.launch.machine import PYTHONS, Machine
from hvdtools.launch.plan import Plan, Submission
from hvdtools.launch.spec import Hosts, JobSpec, Kubernetes, Local, SageMaker, Slurm
from hvdtools.rank_wrapper import words


def is_submitted(spec: JobSpec, machine: Machine) -> bool:
    """True if the job is handed to someone who runs it later; False if it starts from here.

    Inside a Slurm allocation `--on slurm` starts a step of it.
    """
    if isinstance(spec.on, Slurm):
        return machine.allocation is None
    return isinstance(spec.on, Kubernetes | SageMaker)


def make_submission(spec: JobSpec, machine: Machine) -> Submission:
    """The document for a job that is handed to someone else.

    Raises:
        HvdtoolsError: The job asks for what its target does not know.
    """
    # Imported where they are wanted: a job on this machine needs no reader of YAML.
    if isinstance(spec.on, Slurm):
        from hvdtools.launch.schedulers.slurm.script import submission as slurm_script

        return slurm_script(replace(spec, command=_command(spec, machine)), machine.python)
    if isinstance(spec.on, Kubernetes):
        from hvdtools.launch.schedulers.kubernetes.manifest import submission as manifest

        return manifest(spec)
    assert isinstance(spec.on, SageMaker), spec.on
    from hvdtools.launch.schedulers.sagemaker.request import submission as request

    return request(spec)


def make_plan(spec: JobSpec, machine: Machine) -> Plan:
    """Plan `spec` for a start from `machine`.

    The variables of `spec.env` win over those that hvdtools sets itself. A leading
    `python` is the one that hvdtools is installed in, so that ranks find the same Horovod.

    Raises:
        HvdtoolsError: The ranks do not fit, or the launcher cannot start here.
    """
    _require_room(spec, machine)
    name, why = _choose(spec, machine)
    module = launcher(name)
    env = {
        **dict(module.environment(spec, machine)),
        **_promise(spec),
        **interface_variables(spec.interface),
        **_threads(spec),
        **dict(spec.env),
    }
    handed_on = tuple(each for each in env if not each.startswith("OMPI_ALLOW_RUN_AS_ROOT"))
    return Plan(
        argv=module.tokens(replace(spec, command=_command(spec, machine)), machine, handed_on),
        env=tuple(env.items()),
        ranks=spec.ranks,
        launcher=name,
        note=f"{counted(spec.ranks, 'rank')} {_where(spec)} with {_described(name, machine)}{why}",
        hosts=tuple(host.name for host in spec.on.hosts) if isinstance(spec.on, Hosts) else (),
    )


def nodes_of(spec: JobSpec) -> int | None:
    """How many nodes the job will have; None where only who allocates them knows."""
    if isinstance(spec.on, Local):
        return 1
    if not isinstance(spec.on, Hosts):
        return spec.nodes
    if spec.distribution == "cyclic":
        return min(spec.ranks, len(spec.on.hosts))
    left = spec.ranks
    for number, host in enumerate(spec.on.hosts, start=1):
        left -= host.slots
        if left <= 0:
            return number
    return len(spec.on.hosts)


def _require_room(spec: JobSpec, machine: Machine) -> None:
    if isinstance(spec.on, Hosts):
        slots = sum(host.slots for host in spec.on.hosts)
        if spec.ranks > slots:
            raise HvdtoolsError(
                f"{spec.ranks} ranks are more than the {slots} slots of "
                f"{','.join(map(str, spec.on.hosts))}: use -n {slots} or fewer, or give the hosts "
                "more slots."
            )
    cores = spec.ranks * (spec.cpus_per_rank or 1)
    if isinstance(spec.on, Local) and cores > machine.slots and not spec.oversubscribe:
        each = f" with {spec.cpus_per_rank} cores each" if spec.cpus_per_rank else ""
        fitting = machine.slots // (spec.cpus_per_rank or 1)
        raise HvdtoolsError(
            f"{spec.ranks} ranks{each} are more than the {machine.slots} slots (CPU cores) of this "
            f"machine: use -n {fitting} or fewer, or add --oversubscribe."
        )


def _choose(spec: JobSpec, machine: Machine) -> tuple[str, str]:
    """The launcher and, if it was not named, why it."""
    if isinstance(spec.on, Slurm):
        return _choose_in_allocation(spec, machine), ""
    if spec.launcher == "srun":
        raise HvdtoolsError(
            "srun starts ranks on nodes that Slurm allocates: add --on slurm, or use "
            "--launcher mpirun."
        )
    if spec.launcher != "auto":
        name = _resolved(spec.launcher, machine)
        launcher(name).usable(spec, machine)
        return name, ""
    return _choose_freely(spec, machine)


def _choose_in_allocation(spec: JobSpec, machine: Machine) -> str:
    name = "srun" if spec.launcher == "auto" else _resolved(spec.launcher, machine)
    if name not in ("srun", "mpirun"):
        raise HvdtoolsError(
            "Inside a Slurm job srun or Open MPI's mpirun starts the ranks: use --launcher srun."
        )
    assert isinstance(spec.on, Slurm), spec.on
    for field in dataclasses.fields(spec.on):
        if field.name != "wait" and getattr(spec.on, field.name) != field.default:
            raise HvdtoolsError(
                f"This is Slurm job {machine.allocation}, and the ranks start as a step of it, "
                f"while --{field.name.replace('_', '-')} is for a new job: leave it out."
            )
    launcher(name).usable(spec, machine)
    return name


def _choose_freely(spec: JobSpec, machine: Machine) -> tuple[str, str]:
    if machine.horovod is None:
        raise HvdtoolsError("Horovod is not installed here: run `hvdtools build`.")
    if over_mpi.reaches_mpi(machine):
        launcher("mpirun").usable(spec, machine)
        return "mpirun", ", because MPI goes through shared memory where Gloo goes through TCP"
    reason = _why_not_mpi(machine)
    if "gloo" not in machine.controllers:
        raise HvdtoolsError(
            f"Neither launcher can work: {reason}, and Gloo is not built into Horovod either: run "
            "`hvdtools build`."
        )
    horovodrun.usable(spec, machine)
    return "horovodrun", f"; not with mpirun: {reason}"


def _why_not_mpi(machine: Machine) -> str:
    if machine.mpirun is None:
        return "there is no mpirun beside this Python or on PATH"
    if "mpi" not in machine.controllers:
        return f"the installed Horovod {machine.horovod} was built without MPI"
    return f"it is {machine.mpirun.name}'s, and Horovod was built with {machine.built_with}"


def _resolved(launcher: str, machine: Machine) -> str:
    is_hydra = machine.mpirun is not None and machine.mpirun.flavour in HYDRA
    return "hydra" if launcher == "mpirun" and is_hydra else launcher


def _promise(spec: JobSpec) -> dict[str, str]:
    """What each rank's init() checks: a job of another size would train another model."""
    nodes = nodes_of(spec)
    known = {} if nodes is None else {"HVDTOOLS_NODES": str(nodes)}
    return {"HVDTOOLS_SIZE": str(spec.ranks), **known}


def _threads(spec: JobSpec) -> dict[str, str]:
    return {} if spec.cpus_per_rank is None else {"OMP_NUM_THREADS": str(spec.cpus_per_rank)}


def _command(spec: JobSpec, machine: Machine) -> tuple[str, ...]:
    command = spec.command
    if command[0] in PYTHONS:
        command = (machine.python, *command[1:])
    cpus = spec.cpus_per_rank
    return words.bound(machine.python, command, spec.bind, cpus, show=spec.show_binding)


def _where(spec: JobSpec) -> str:
    if isinstance(spec.on, Hosts):
        names = ", ".join(map(str, spec.on.hosts[:4])) + ", …" * (len(spec.on.hosts) > 4)
        return f"on {counted(len(spec.on.hosts), 'host')} ({names})"
    return "in this Slurm job" if isinstance(spec.on, Slurm) else "on this machine"


def _described(launcher: str, machine: Machine) -> str:
    if launcher == "srun":
        return "srun"
    if launcher == "horovodrun":
        return f"horovodrun (Horovod {machine.horovod}, Gloo)"
    over = dict(over_mpi.controller(machine))["HOROVOD_CONTROLLER"]
    mpi = "" if over == "mpi" else ", over Gloo, which the program's init() sets up"
    return f"mpirun ({over_mpi.usable(machine).name}){mpi}"
