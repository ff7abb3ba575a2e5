"""What the API server and the MPI operator say to an MPIJob: the CRD's schema, and more rules."""

from __future__ import annotations

import functools
import re
from typing import Any

import jsonschema
import yaml
from paths import PROJECT

CRD = PROJECT.parent / "shared" / "data" / "kubeflow.org_mpijobs.yaml"
WHY_NO_CRD = f"the operator's CRD is not there: {CRD}"
_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_RFC_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def has_crd() -> bool:
    return CRD.exists()


@functools.cache
def validator() -> Any:
    """Of the CRD's v2beta1, with unknown fields refused as `kubectl --validate=strict` does."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(CRD.read_text(), Loader=loader)
    (version,) = (each for each in crd["spec"]["versions"] if each["name"] == "v2beta1")
    schema = version["schema"]["openAPIV3Schema"]
    del schema["properties"]["metadata"]  # the schema leaves it to the API server
    return jsonschema.Draft202012Validator(_strict(schema))


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _strict(value) for key, value in schema.items()}
    has_fields = isinstance(found.get("properties"), dict) and found.get("type") == "object"
    if has_fields and not found.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    if found.get("format") in _RANGES and isinstance(found["format"], str):
        found["minimum"], found["maximum"] = _RANGES[found["format"]]
    return found


def problems(job: dict[str, Any]) -> list[str]:
    """What is wrong with an MPIJob; empty where it would be accepted."""
    job = dict(job)
    metadata = job.pop("metadata")
    found = [error.message for error in validator().iter_errors(job)]
    return [*found, *_of_metadata(metadata)] + ([] if found else _of_operator(job, metadata))


def _of_metadata(metadata: dict[str, Any]) -> list[str]:
    unknown = set(metadata) - {"name", "generateName", "namespace", "labels"}
    found = [f"metadata has {name}" for name in unknown]
    if ("name" in metadata) == ("generateName" in metadata):
        found.append("metadata needs name or generateName")
    label = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
    for key, value in metadata.get("labels", {}).items():
        if not label.fullmatch(key.rpartition("/")[2]) or not label.fullmatch(value):
            found.append(f"label {key}={value}")
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", metadata.get("namespace", "a")):
        found.append("namespace is no RFC 1123 label")
    return found


def _of_operator(job: dict[str, Any], metadata: dict[str, Any]) -> list[str]:
    """ValidateMPIJob of pkg/apis/kubeflow/validation/validation.go, after the defaults."""
    spec = job["spec"]
    replicas = spec["mpiReplicaSpecs"]
    workers = replicas.get("Worker", {}).get("replicas", 0)
    name = metadata.get("name", f"{metadata.get('generateName')}abcde")
    hostname = f"{name}-worker-{max(workers, 1) - 1}"
    policy = spec["runPolicy"]
    rules = {
        f"{hostname} is no DNS label": _RFC_1035.fullmatch(hostname) and len(hostname) <= 63,
        "slotsPerWorker is negative": spec.get("slotsPerWorker", 1) >= 0,
        "there must be one launcher": replicas.get("Launcher", {}).get("replicas", 1) == 1,
        "there must be a worker": workers >= 1,
        "unknown role": set(replicas) <= {"Launcher", "Worker"},
        "cleanPodPolicy": policy.get("cleanPodPolicy", "None") in ("None", "Running", "All"),
        "mpiImplementation": spec.get("mpiImplementation") in ("OpenMPI", "Intel", "MPICH"),
        "launcherCreationPolicy": spec.get("launcherCreationPolicy", "AtStartup")
        in ("AtStartup", "WaitForWorkersReady"),
        **{
            f"{field} is negative": policy.get(field, 0) >= 0
            for field in ("ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit")
        },
    }
    found = [problem for problem, is_right in rules.items() if not is_right]
    for role, replica in replicas.items():
        if replica.get("restartPolicy", "Never") not in ("Never", "OnFailure"):
            found.append(f"restartPolicy of {role}")
        if not replica["template"]["spec"]["containers"]:
            found.append(f"{role} has no container")
        found += _of_pod(role, replica["template"]["spec"])
    return found


def _of_pod(role: str, pod: dict[str, Any]) -> list[str]:
    """Rules of the API server that no schema holds."""
    found = []
    volumes = [volume["name"] for volume in pod.get("volumes", [])]
    if len(volumes) != len(set(volumes)):
        found.append(f"{role}: two volumes of one name")
    for container in pod["containers"]:
        names = [each["name"] for each in container.get("env", [])]
        if len(names) != len(set(names)):
            found.append(f"{role}: a variable is set twice")
        mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        if len(mounts) != len(set(mounts)):
            found.append(f"{role}: two volumes at one path")
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                found.append(f"{role}: no volume {mount['name']}")
    return found
