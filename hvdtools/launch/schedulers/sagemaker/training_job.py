"""From a job to a CreateTrainingJob request: launch/sagemaker*.json with this job's values."""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from importlib import resources
from typing import Any

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.plan import Submission
from hvdtools.launch.schedulers import submitted
from hvdtools.launch.schedulers.sagemaker import checks, container, limits, toolkit
from hvdtools.launch.schedulers.sagemaker.request import SageMaker
from hvdtools.launch.spec import JobSpec

TEMPLATES = {"container": "sagemaker.json", "toolkit": "sagemaker-toolkit.json"}
_FORMS = {"container": container, "toolkit": toolkit}


def submission(spec: JobSpec, now: datetime | None = None) -> Submission:
    """The request of `spec`, and the AWS command line that takes it.

    Args:
        now: The time that names a job without a name, since no two may have the same; the
            clock's if None.

    Raises:
        HvdtoolsError: The job asks for what SageMaker cannot do, or for more than its limits.
    """
    target = spec.on
    assert isinstance(target, SageMaker), target
    submitted.refuse_broken_text(spec)
    name = spec.name or f"hvdtools-{now or datetime.now(timezone.utc):%Y-%m-%d-%H-%M-%S}"
    checks.job_name(name)
    where = () if target.region is None else ("--region", target.region)
    tree = request(spec, target, name)
    return Submission(
        document=json.dumps(tree, indent=2) + "\n",
        argv=(
            *("aws", "sagemaker", "create-training-job"),
            *("--cli-input-json", "file:///dev/stdin"),
            *where,
        ),
        program="the AWS command line",
        on="sagemaker",
        ranks=spec.ranks,
        note=_note(spec, target, name),
    )


def template(form: str) -> dict[str, Any]:
    """The content of launch/sagemaker.json or launch/sagemaker-toolkit.json."""
    file = resources.files("hvdtools.launch") / "scripts" / TEMPLATES[form]
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def request(spec: JobSpec, target: SageMaker, name: str) -> dict[str, Any]:
    """The request as a tree."""
    nodes, per_node = _even_layout(spec)
    tree = template(target.form)
    tree["TrainingJobName"] = name
    tree["RoleArn"] = checks.role(target.role)
    tree["AlgorithmSpecification"]["TrainingImage"] = checks.image(target.image)
    tree["OutputDataConfig"]["S3OutputPath"] = checks.s3("--output", target.output)
    resource = tree["ResourceConfig"]
    resource["InstanceType"] = checks.instance_type(target.instance_type)
    resource["InstanceCount"] = nodes
    if target.volume_gb is not None:
        resource["VolumeSizeInGB"] = target.volume_gb
    _FORMS[target.form].fill(tree, spec, target, nodes, per_node)
    if spec.cpus_per_rank is not None or spec.env:
        tree["Environment"] = _environment(spec)
    return tree | _data(target) | _times(spec, target, tree["StoppingCondition"])


def _even_layout(spec: JobSpec) -> tuple[int, int]:
    if spec.nodes is None and spec.ranks_per_node is None:
        raise HvdtoolsError(
            "Say how many ranks an instance has, as a rule one for each of its GPUs: "
            "--ranks-per-node N."
        )
    nodes, per_node = submitted.layout(spec)
    if nodes * per_node != spec.ranks:
        raise HvdtoolsError(
            f"{spec.ranks} ranks are not {nodes} instances x {per_node}, and SageMaker starts as "
            f"many on each: use -n {nodes * per_node}."
        )
    return nodes, per_node


def _environment(spec: JobSpec) -> dict[str, str]:
    threads = {} if spec.cpus_per_rank is None else {"OMP_NUM_THREADS": str(spec.cpus_per_rank)}
    variables = {**threads, **dict(spec.env)}
    checks.at_most("--env", list(variables), limits.VARIABLES)
    for name, value in variables.items():
        if len(name) > limits.VARIABLE_LENGTH or len(value) > limits.VALUE_LENGTH:
            raise HvdtoolsError(
                f"--env {name[:40]} is too long for SageMaker, which takes values of "
                f"{limits.VALUE_LENGTH} characters: put it into a file of a --channel."
            )
    return variables


def _data(target: SageMaker) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if target.channel:
        found["InputDataConfig"] = [
            {
                "ChannelName": name,
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": uri,
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
            }
            for name, uri in map(checks.read_channel, target.channel)
        ]
    if target.checkpoints is not None:
        found["CheckpointConfig"] = {"S3Uri": target.checkpoints}
    if target.subnet:
        groups = list(target.security_group)
        found["VpcConfig"] = {"SecurityGroupIds": groups, "Subnets": list(target.subnet)}
    if target.tag:
        pairs = map(checks.read_tag, target.tag)
        found["Tags"] = [{"Key": key, "Value": value} for key, value in pairs]
    return found


def _times(spec: JobSpec, target: SageMaker, condition: dict[str, int]) -> dict[str, Any]:
    if spec.timeout_s is not None:
        condition["MaxRuntimeInSeconds"] = math.ceil(spec.timeout_s)
    found: dict[str, Any] = {"StoppingCondition": condition}
    if target.spot_wait is not None:
        longest = condition["MaxRuntimeInSeconds"] + math.ceil(target.spot_wait)
        condition["MaxWaitTimeInSeconds"] = longest
        found["EnableManagedSpotTraining"] = True
    if spec.restarts:
        most = limits.RETRIES[1]
        if spec.restarts > most:
            raise HvdtoolsError(
                f"--restarts {spec.restarts} is too often for SageMaker: give {most} at most."
            )
        found["RetryStrategy"] = {"MaximumRetryAttempts": spec.restarts}
    return found


def _note(spec: JobSpec, target: SageMaker, name: str) -> str:
    nodes, _ = submitted.layout(spec)
    text = (
        f"{spec.ranks} rank{'s' * (spec.ranks != 1)} on {nodes} x {target.instance_type}, as "
        f"training job {name}"
    )
    if spec.restarts:
        text += "; SageMaker starts it again after failures of its own, not of the program"
    return text
