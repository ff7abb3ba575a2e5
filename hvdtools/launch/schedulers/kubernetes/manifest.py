"""From a job to its MPIJob: launch/mpijob.yaml with this job's values in it. Pure."""

from __future__ import annotations

import math
from importlib import resources
from typing import Any

import yaml

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.words import counted
from hvdtools.launch.plan import Submission
from hvdtools.launch.schedulers import submitted
from hvdtools.launch.schedulers.kubernetes import checks, launcher, pods
from hvdtools.launch.schedulers.kubernetes.request import Kubernetes
from hvdtools.launch.schedulers.kubernetes.text import to_yaml
from hvdtools.launch.spec import JobSpec

TEMPLATE = "mpijob.yaml"


def submission(spec: JobSpec) -> Submission:
    """The MPIJob of `spec`, and the kubectl that takes it.

    Raises:
        HvdtoolsError: The job asks for what an MPIJob cannot do, or has a name that the
            operator could not give to its pods.
    """
    target = spec.on
    assert isinstance(target, Kubernetes), target
    submitted.refuse_broken_text(spec)
    if spec.launcher not in ("auto", "mpirun"):
        raise HvdtoolsError(
            f"--launcher {spec.launcher} is not for Kubernetes: its operator brings hosts and keys "
            "for mpirun."
        )
    workers, slots = submitted.layout(spec)
    where = () if target.namespace is None else ("--namespace", target.namespace)
    return Submission(
        document=to_yaml(manifest(spec, target, workers, slots)),
        argv=("kubectl", "create", "-f", "-", *where),
        program="kubectl",
        on="kubernetes",
        ranks=spec.ranks,
        note=_note(spec, target, workers, slots),
    )


def template() -> dict[str, Any]:
    """The content of launch/mpijob.yaml."""
    file = resources.files("hvdtools.launch") / "scripts" / TEMPLATE
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


def manifest(spec: JobSpec, target: Kubernetes, workers: int, slots: int) -> dict[str, Any]:
    """The MPIJob as a tree."""
    job = template()
    job["metadata"] = _metadata(spec, target, workers) or job["metadata"]
    body = job["spec"]
    body["slotsPerWorker"] = slots
    body["mpiImplementation"] = target.mpi
    body["runPolicy"] |= _run_policy(spec, target)
    replicas = body["mpiReplicaSpecs"]
    replicas["Worker"]["replicas"] = workers
    launching = replicas["Launcher"]["template"]["spec"]
    working = replicas["Worker"]["template"]["spec"]
    launcher.fill(launching["containers"][0], spec, target, workers)
    pods.fill_worker(working, spec, target, slots)
    for pod in (launching, working):
        pods.fill_both(pod, target)
    if target.run_as_root:
        pods.make_root(body, launching, working)
    return job


def _metadata(spec: JobSpec, target: Kubernetes, workers: int) -> dict[str, Any]:
    name = {"generateName": template()["metadata"]["generateName"]}
    if spec.name is not None:
        checks.job_name(spec.name, workers)
        name = {"name": spec.name}
    namespace = {} if target.namespace is None else {"namespace": target.namespace}
    label = {"kueue.x-k8s.io/queue-name": target.queue}
    return {**name, **namespace, **({"labels": label} if target.queue is not None else {})}


def _run_policy(spec: JobSpec, target: Kubernetes) -> dict[str, Any]:
    given: dict[str, Any] = {"backoffLimit": spec.restarts}
    if target.clean_pods is not None:
        given["cleanPodPolicy"] = target.clean_pods
    if target.ttl is not None:
        given["ttlSecondsAfterFinished"] = target.ttl
    if spec.timeout_s is not None:
        given["activeDeadlineSeconds"] = math.ceil(spec.timeout_s)
        checks.seconds("--timeout", given["activeDeadlineSeconds"])
    return given


def _note(spec: JobSpec, target: Kubernetes, workers: int, slots: int) -> str:
    place, option = "", ""
    if target.namespace is not None:
        place, option = f" in namespace {target.namespace}", f" -n {target.namespace}"
    labels = "training.kubeflow.org/job-role=launcher"
    if spec.name is not None:
        labels = f"training.kubeflow.org/job-name={spec.name},{labels}"
    return (
        f"{counted(spec.ranks, 'rank')} on {counted(workers, 'worker')} with "
        f"{counted(slots, 'slot')} each, as an MPIJob{place}; "
        f"its output: kubectl logs -f{option} -l {labels}"
    )
