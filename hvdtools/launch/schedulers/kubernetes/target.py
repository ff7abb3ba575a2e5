"""What is asked of Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass

from hvdtools.launch.option import Option
from hvdtools.launch.schedulers.kubernetes import checks

_ON = ("kubernetes",)
_PANEL = "Kubernetes"
CLEAN_PODS = ("None", "Running", "All")
MPIS = ("OpenMPI", "MPICH")


@dataclass(frozen=True)
class Kubernetes:
    """An MPIJob. Field by field as in `OPTIONS`; None leaves it to launch/mpijob.yaml.

    Raises:
        HvdtoolsError: A value is nothing that the cluster would take, or there is no image.
    """

    image: str | None = None
    namespace: str | None = None
    memory: str | None = None
    shared_memory: str | None = None
    gpu_resource: str = "nvidia.com/gpu"
    volume: tuple[str, ...] = ()
    queue: str | None = None
    node_selector: tuple[str, ...] = ()
    toleration: tuple[str, ...] = ()
    service_account: str | None = None
    image_pull_secret: tuple[str, ...] = ()
    clean_pods: str | None = None
    ttl: int | None = None
    run_as_root: bool = False
    mpi: str = "OpenMPI"

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


OPTIONS = (
    Option("image", str, "The container image.", _PANEL, "IMAGE", _ON),
    Option("namespace", str, "The namespace of the job.", _PANEL, "NAME", _ON),
    Option("memory", str, "Memory of each worker, as in 64Gi.", _PANEL, "AMOUNT", _ON),
    Option("shared-memory", str, "The part of it that /dev/shm may take.", _PANEL, "AMOUNT", _ON),
    Option("gpu-resource", str, "What GPUs are called: nvidia.com/gpu.", _PANEL, "NAME", _ON),
    Option("volume", tuple, "A claim to mount in each worker.", _PANEL, "CLAIM:/PATH[:ro]", _ON),
    Option("queue", str, "Kueue's local queue.", _PANEL, "NAME", _ON),
    Option("node-selector", tuple, "A label that nodes must have.", _PANEL, "LABEL=VALUE", _ON),
    Option("toleration", tuple, "A taint not to mind.", _PANEL, "KEY[=VALUE][:EFFECT]", _ON),
    Option("service-account", str, "The pods' service account.", _PANEL, "NAME", _ON),
    Option("image-pull-secret", tuple, "A secret to pull the image with.", _PANEL, "NAME", _ON),
    Option("clean-pods", str, "Pods to remove at the end: None, Running or All.", _PANEL, "WHICH",
           _ON),
    Option("ttl", int, "Remove the ended job after so long.", _PANEL, "SECONDS", _ON),
    Option("run-as-root", bool, "For an image without a user 1000, mpiuser.", _PANEL, "", _ON),
    Option("mpi", str, "The image's MPI: OpenMPI or MPICH.", _PANEL, "NAME", _ON),
)  # fmt: skip
