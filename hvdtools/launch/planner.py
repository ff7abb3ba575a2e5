"""From a job and the facts of a machine to a plan. Pure: it starts nothing and reads nothing."""

from __future__ import annotations

from dataclasses import replace

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.mpi import HYDRA
from hvdtools.core.text import count_noun
from hvdtools.launch.launchers import horovodrun, launcher, over_mpi
from hvdtools.launch.machine import PYTHONS, Machine
from hvdtools.launch.plan import Plan, Submission, interface_variables
from hvdtools.launch.spec import JobSpec, options_of, refuse_unsupported
from hvdtools.rank_wrapper import bind_command


def plan(spec: JobSpec, machine: Machine) -> Plan | Submission:
    """Plan a job: a submission where its scheduler allocates nodes later, else a start from here.

    Raises:
        HvdtoolsError: As `make_submission` and `make_plan`.
    """
    if spec.on.submits(machine):
        return make_submission(spec, machine)
    return make_plan(spec, machine)


def make_submission(spec: JobSpec, machine: Machine) -> Submission:
    """The document for a job that is submitted.

    Raises:
        HvdtoolsError: The job asks for what its scheduler does not offer.
    """
    refuse_unsupported(type(spec.on), *options_of(spec))
    return spec.on.submission(spec, machine)


def make_plan(spec: JobSpec, machine: Machine) -> Plan:
    """Plan `spec` for a start from `machine`.

    The variables of `spec.env` win over those that hvdtools sets itself. A leading
    `python` is the one that hvdtools is installed in, so that ranks find the same Horovod.

    Raises:
        HvdtoolsError: The ranks do not fit, or the launcher cannot start here.
    """
    spec.on.require_room(spec, machine)
    name, why = _choose(spec, machine)
    module = launcher(name)
    env = {
        **dict(module.environment(spec, machine)),
        **_expected_size(spec, machine),
        **interface_variables(spec.interface),
        **_threads(spec),
        **dict(spec.env),
    }
    handed_on = tuple(each for each in env if not each.startswith("OMPI_ALLOW_RUN_AS_ROOT"))
    where, with_what = spec.on.describe(machine), _described(name, machine)
    hosts = spec.on.hosts(machine) or ()
    return Plan(
        argv=module.tokens(replace(spec, command=rank_command(spec, machine)), machine, handed_on),
        env=tuple(env.items()),
        ranks=spec.ranks,
        launcher=name,
        note=f"{count_noun(spec.ranks, 'rank')} {where} with {with_what}{why}",
        hosts=tuple(host.name for host in hosts),
    )


def _choose(spec: JobSpec, machine: Machine) -> tuple[str, str]:
    """The launcher and, if it was not named, why it."""
    chosen = spec.on.choose_launcher(spec, machine)
    if chosen is None and spec.launcher != "auto":
        chosen = spec.launcher
    if chosen is None:
        return _choose_freely(spec, machine)
    name = _resolved(chosen, machine)
    launcher(name).usable(spec, machine)
    return name, ""


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


def _expected_size(spec: JobSpec, machine: Machine) -> dict[str, str]:
    """What each rank's init() checks: a job of another size would train another model."""
    nodes = spec.on.node_count(spec, machine)
    known = {} if nodes is None else {"HVDTOOLS_NODES": str(nodes)}
    return {"HVDTOOLS_SIZE": str(spec.ranks), **known}


def _threads(spec: JobSpec) -> dict[str, str]:
    return {} if spec.cpus_per_rank is None else {"OMP_NUM_THREADS": str(spec.cpus_per_rank)}


def rank_command(spec: JobSpec, machine: Machine) -> tuple[str, ...]:
    """The command as a rank runs it: with our Python for a leading `python`, and bound."""
    command = spec.command
    if command[0] in PYTHONS:
        command = (machine.python, *command[1:])
    cpus = spec.cpus_per_rank
    return bind_command(machine.python, command, spec.bind, cpus, show=spec.show_binding)


def _described(launcher: str, machine: Machine) -> str:
    if launcher == "srun":
        return "srun"
    if launcher == "horovodrun":
        return f"horovodrun (Horovod {machine.horovod}, Gloo)"
    over = dict(over_mpi.controller(machine))["HOROVOD_CONTROLLER"]
    mpi = "" if over == "mpi" else ", over Gloo, which the program's init() sets up"
    return f"mpirun ({over_mpi.usable(machine).name}){mpi}"
