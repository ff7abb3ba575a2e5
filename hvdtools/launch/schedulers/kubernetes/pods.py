"""The pods of an MPIJob: what they may use, where they run, what is mounted in them."""

from __future__ import annotations

from typing import Any

from hvdtools.launch.schedulers.kubernetes import checks
from hvdtools.launch.schedulers.kubernetes.request import Kubernetes
from hvdtools.launch.spec import JobSpec

Pod = dict[str, Any]


def fill_worker(pod: Pod, spec: JobSpec, target: Kubernetes, slots: int) -> None:
    """Give a worker's pod its resources and volumes."""
    container = pod["containers"][0]
    limits = {}
    if spec.cpus_per_rank is not None:
        limits["cpu"] = str(spec.cpus_per_rank * slots)
    if target.memory is not None:
        limits["memory"] = target.memory
    if spec.gpus_per_node:
        limits[target.gpu_resource] = str(spec.gpus_per_node)
    # Kubernetes asks for what is limited, so the scheduler keeps it free as well.
    container["resources"] = {"limits": limits} if limits else {}
    if target.shared_memory is not None:
        pod["volumes"][0]["emptyDir"]["sizeLimit"] = target.shared_memory
    _mount(pod, container, target)


def _mount(pod: Pod, container: dict[str, Any], target: Kubernetes) -> None:
    names: dict[str, str] = {}
    for volume in checks.read_volumes(target.volume):
        if volume.claim not in names:  # a claim is one volume, wherever it is mounted
            names[volume.claim] = f"volume-{len(names)}"
            source = {"persistentVolumeClaim": {"claimName": volume.claim}}
            pod["volumes"].append({"name": names[volume.claim], **source})
        mount = {"name": names[volume.claim], "mountPath": volume.path}
        container["volumeMounts"].append(mount | ({"readOnly": True} if volume.read_only else {}))


def fill_both(pod: Pod, target: Kubernetes) -> None:
    """Give a pod its image and its place in the cluster."""
    pod["containers"][0]["image"] = target.image
    if target.service_account is not None:
        pod["serviceAccountName"] = target.service_account
    if target.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": name} for name in target.image_pull_secret]
    if target.node_selector:
        pod["nodeSelector"] = dict(map(checks.read_label, target.node_selector))
    if target.toleration:
        pod["tolerations"] = [checks.read_toleration(text) for text in target.toleration]


def make_root(body: dict[str, Any], launching: Pod, working: Pod) -> None:
    """Let both pods run as root, for an image that has no other user."""
    home, root = body["sshAuthMountPath"], "/root/.ssh"
    body["sshAuthMountPath"] = root
    launching["containers"][0]["env"] += [
        {"name": f"OMPI_ALLOW_RUN_AS_ROOT{end}", "value": "1"} for end in ("", "_CONFIRM")
    ]
    worker = working["containers"][0]
    # sshd that runs as root locks its helpers into this folder.
    script = worker["command"][-1].replace(home, root)
    worker["command"][-1] = f"mkdir -p /run/sshd && {script}"
    for pod in (launching, working):
        # No group for files: ssh refuses a key of its own that a group may read.
        pod["securityContext"] = {"runAsUser": 0}
        del pod["containers"][0]["securityContext"]
