"""The launcher of an MPIJob: mpirun's words and the variables that it hands to ranks."""

from __future__ import annotations

import re
import shlex
from typing import Any

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.plan import interface_variables
from hvdtools.launch.schedulers.kubernetes.request import Kubernetes
from hvdtools.launch.spec import JobSpec
from hvdtools.rank_wrapper import watch_command

# pkg/controller/mpi_job_controller.go puts its own value behind ours in the launcher, and the
# last one counts.
_OF_THE_OPERATOR = re.compile(
    r"K_MPI_JOB_ROLE|NVIDIA_VISIBLE_DEVICES|NVIDIA_DRIVER_CAPABILITIES|I_MPI_PERHOST|"
    r"OMPI_MCA_(orte_(keep_fqdn_hostnames|default_hostfile|set_default_slots)|plm_rsh_args)|"
    r"HYDRA_(HOST_FILE|LAUNCH_EXTRA_ARGS)"
)
_FOR_MPIRUN_ALONE = ("PRTE_MCA_", "OMPI_ALLOW_RUN_AS_ROOT")


def fill(container: dict[str, Any], spec: JobSpec, target: Kubernetes, workers: int) -> None:
    """Give the launcher's container its words and variables.

    Raises:
        HvdtoolsError: A variable is one that the operator sets after us.
    """
    for name, _ in spec.env:
        if _OF_THE_OPERATOR.fullmatch(name):
            raise HvdtoolsError(
                f"--env {name} would be lost, because the MPI operator sets it in the launcher: "
                "set it in the image, or in the program."
            )
    template = {each["name"]: each["value"] for each in container["env"]}
    variables = {
        **(template if target.mpi == "OpenMPI" else _without_open_mpi(template)),
        "HVDTOOLS_SIZE": str(spec.ranks),
        "HVDTOOLS_NODES": str(workers),
        **interface_variables(spec.interface),
        **({} if spec.cpus_per_rank is None else {"OMP_NUM_THREADS": str(spec.cpus_per_rank)}),
        **dict(spec.env),
    }
    container["env"] = [{"name": n, "value": literal(v)} for n, v in variables.items()]
    if target.mpi == "OpenMPI":
        container["args"] = _open_mpi_words(container["args"], spec, tuple(variables))
    else:
        # The workers answer to this address: the launcher's name may not be in DNS yet.
        address = {"fieldRef": {"fieldPath": "status.podIP"}}
        container["env"].append({"name": "POD_IP", "valueFrom": address})
        container["args"] = _mpich_words(spec)


def _open_mpi_words(template: list[str], spec: JobSpec, names: tuple[str, ...]) -> list[str]:
    # In the template: -n and a number, options for every job, the first -x, ...
    options = template[2 : template.index("-x")]
    handed_on = [name for name in names if not name.startswith(_FOR_MPIRUN_ALONE)]
    interface = [] if spec.interface is None else [
        *("--mca", "btl_tcp_if_include", spec.interface),
        *("--prtemca", "prte_if_include", spec.interface),
    ]  # fmt: skip
    command = list(spec.command)
    if ":" in command:
        # A word that is a colon ends one program and begins the next on mpirun's line.
        command = ["sh", "-c", f"exec {shlex.join(command)}"]
    return [
        *("-n", str(spec.ranks)),
        *options,
        *interface,
        *(word for name in handed_on for word in ("-x", name)),
        *map(literal, command),
    ]


def _mpich_words(spec: JobSpec) -> list[str]:
    # Hydra hands every variable on, and puts no number before a rank's lines by itself.
    interface = [] if spec.interface is None else ["-iface", spec.interface]
    watched = watch_command("python", spec.command, tag=True)
    return ["-localhost", "$(POD_IP)", *interface, "-n", str(spec.ranks), *map(literal, watched)]


def _without_open_mpi(template: dict[str, str]) -> dict[str, str]:
    # MPICH starts the ranks, and hvdtools' init() brings them together over Gloo.
    over_gloo = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}
    kept = {n: v for n, v in template.items() if not n.startswith(_FOR_MPIRUN_ALONE)}
    return kept | over_gloo


def literal(text: str) -> str:
    """`text` for a command, args or env: Kubernetes puts a value for $(NAME), and $ for $$.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
    """
    return re.sub(r"\$(?=[$(])", "$$", text)
