"""Kubernetes: the options of a job, and how it is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hvdtools.launch.plan import Submission
from hvdtools.launch.scheduler import Scheduler, own_option
from hvdtools.launch.schedulers.kubernetes import checks

if TYPE_CHECKING:
    from hvdtools.launch.machine import Machine
    from hvdtools.launch.spec import JobSpec

CLEAN_PODS = ("None", "Running", "All")
MPIS = ("OpenMPI", "MPICH")


@dataclass(frozen=True)
class Kubernetes(Scheduler):
    """An MPIJob. None leaves a value to launch/mpijob.yaml.

    Raises:
        HvdtoolsError: A value is nothing that the cluster would take, or there is no image.
    """

    image: str | None = own_option("The container image.", "IMAGE")
    namespace: str | None = own_option("The namespace of the job.", "NAME")
    memory: str | None = own_option("Memory of each worker, as in 64Gi.", "AMOUNT")
    shared_memory: str | None = own_option("The part of it that /dev/shm may take.", "AMOUNT")
    gpu_resource: str = own_option(
        "What GPUs are called: nvidia.com/gpu.", "NAME", str, "nvidia.com/gpu"
    )
    volume: tuple[str, ...] = own_option(
        "A claim to mount in each worker.", "CLAIM:/PATH[:ro]", tuple, ()
    )
    queue: str | None = own_option("The queue; on Kubernetes that of Kueue.", "NAME")
    node_selector: tuple[str, ...] = own_option(
        "A label that nodes must have.", "LABEL=VALUE", tuple, ()
    )
    toleration: tuple[str, ...] = own_option(
        "A taint not to mind.", "KEY[=VALUE][:EFFECT]", tuple, ()
    )
    service_account: str | None = own_option("The pods' service account.", "NAME")
    image_pull_secret: tuple[str, ...] = own_option(
        "A secret to pull the image with.", "NAME", tuple, ()
    )
    clean_pods: str | None = own_option("Pods to remove at the end: None, Running or All.", "WHICH")
    ttl: int | None = own_option("Remove the ended job after so long.", "SECONDS", int)
    run_as_root: bool = own_option("For an image without a user 1000, mpiuser.", "", bool, False)
    mpi: str = own_option("The image's MPI: OpenMPI or MPICH.", "NAME", str, "OpenMPI")

    name = "kubernetes"
    title = "Kubernetes"
    gives_job_id = False
    unsupported: ClassVar[Mapping[str, str]] = {
        "mpirun": "the image has its own",
        "oversubscribe": "the workers have the slots that --ranks-per-node says",
        "distribution": "ranks fill a worker before the next",
        "bind": "Kubernetes assigns cores itself",
        "show_binding": "no rank is bound",
        "log_dir": "use `kubectl logs`, or let the program write to a --volume",
        "pass": "print the manifest with --dry-run, edit it and `kubectl create -f` it",
    }

    def __post_init__(self) -> None:
        checks.image(self.image)
        checks.one_of("MPI", self.mpi, MPIS)
        if self.clean_pods is not None:
            checks.one_of("--clean-pods", self.clean_pods, CLEAN_PODS)
        if self.namespace is not None:
            checks.dns_label("--namespace", self.namespace)
        for option, amount in (("--memory", self.memory), ("--shared-memory", self.shared_memory)):
            if amount is not None:
                checks.quantity(option, amount)
        checks.resource(self.gpu_resource)
        if self.queue is not None:
            checks.dns_name("--queue", self.queue)
        if self.service_account is not None:
            checks.dns_name("--service-account", self.service_account)
        for secret in self.image_pull_secret:
            checks.dns_name("--image-pull-secret", secret)
        checks.read_volumes(self.volume)
        for text in self.node_selector:
            checks.read_label(text)
        for text in self.toleration:
            checks.read_toleration(text)
        checks.seconds("--ttl", self.ttl)

    def submits(self, machine: Machine) -> bool:
        return True

    def submission(self, spec: JobSpec, machine: Machine) -> Submission:
        from hvdtools.launch.schedulers.kubernetes.manifest import submission

        return submission(spec)
