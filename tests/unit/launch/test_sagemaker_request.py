"""Training jobs: against AWS's own model, golden files, and the training toolkit's reading."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import sagemaker_model
from paths import GOLDEN, SCRIPTS

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.machine import Machine
from hvdtools.launch.planner import make_submission
from hvdtools.launch.schedulers.sagemaker import limits, training_job
from hvdtools.launch.schedulers.sagemaker.request import SageMaker
from hvdtools.launch.schedulers.sagemaker.training_job import submission
from hvdtools.launch.spec import JobSpec

NEEDED = {
    "image": "111122223333.dkr.ecr.us-east-1.amazonaws.com/train:1",
    "role": "arn:aws:iam::111122223333:role/SageMaker",
    "instance_type": "ml.p4d.24xlarge",
    "output": "s3://bucket/output",
}
TOOLKIT = {"form": "toolkit", "source": "s3://bucket/code/sourcedir.tar.gz"}
TRAIN = ("python", "train.py", "--lr", "0.1")
HOSTILE = (
    *("./a b.sh", 'say "hi"', "it's", "; echo foo", "$HOME", "$(VAR)", "", "*", "-n", "--"),
    *("yes", "null", "1e3", "é", "🐎", "\\", "\t", "file:///etc/passwd", "@a", "{}", "s3://a/b"),
)

# What a submission needs to know of the machine is nothing.
MACHINE = Machine(1, False, "/env/bin/python", None, None, ())


def job(command: tuple[str, ...] = TRAIN, ranks: int = 16, **fields: Any) -> JobSpec:
    """A job of 16 ranks on 2 instances, unless `fields` say otherwise."""
    general = {name: fields.pop(name) for name in list(fields) if name in JobSpec.__annotations__}
    target = SageMaker(**{**NEEDED, **fields})
    return JobSpec(command, ranks, on=target, **{"ranks_per_node": 8, "name": "job-1", **general})


ALL = {
    "channel": ("train=s3://bucket/train", "code=s3://bucket/code"),
    "checkpoints": "s3://bucket/checkpoints",
    "volume_gb": 500,
    "spot_wait": 3600.0,
    "subnet": ("subnet-0abc", "subnet-0def"),
    "security_group": ("sg-0abc",),
    "tag": ("team=ml", "über=1 2"),
    "region": "eu-central-1",
    "timeout_s": 7200.5,
    "cpus_per_rank": 12,
    "env": (("NCCL_DEBUG", "WARN"),),
}
VARIED = {
    "container": job(**ALL, interface="eth0", restarts=3),
    "toolkit": job((*TRAIN, "-b=32", "--decay", "-1e-4", "--text=a b\n'c'"), **TOOLKIT, **ALL),
    "hostile": job(HOSTILE, env=tuple((f"V{n}", text) for n, text in enumerate(HOSTILE))),
}


def tree_of(spec: JobSpec) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(submission(spec).document)
    return tree


@pytest.mark.parametrize("name", VARIED)
def test_request_equals_the_golden_file(name: str) -> None:
    assert submission(VARIED[name]).document == (GOLDEN / f"sagemaker-{name}.json").read_text()


@pytest.mark.parametrize("name", VARIED)
def test_aws_accepts_the_request(name: str) -> None:
    assert sagemaker_model.problems(tree_of(VARIED[name])) == []


@pytest.mark.parametrize("name", ["sagemaker.json", "sagemaker-toolkit.json"])
def test_aws_accepts_the_hand_written_file(name: str) -> None:
    assert sagemaker_model.problems(json.loads((SCRIPTS / name).read_text())) == []


@pytest.mark.parametrize(
    "spoil",
    [
        {"TrainingJobName": "a" * 64},
        {"TrainingJobName": "-a"},
        {"RoleArn": "SageMaker"},
        {"Name": "x"},
        {"Environment": {"A": "x" * 513}},
        {"Environment": {"A-B": "x"}},
        {"RetryStrategy": {"MaximumRetryAttempts": 31}},
        {"ResourceConfig": {"InstanceType": "ml.abacus", "InstanceCount": 1}},
        {"Tags": [{"Key": "a#", "Value": "x"}]},
    ],
)
def test_the_model_can_say_no(spoil: dict[str, Any]) -> None:
    assert sagemaker_model.problems(tree_of(VARIED["container"]) | spoil)


def test_limits_are_those_of_the_model() -> None:
    at = sagemaker_model.at
    algorithm = ("AlgorithmSpecification",)
    words = at(*algorithm, "ContainerArguments")
    variables, hyper = at("Environment"), at("HyperParameters")
    vpc, channels, tags = at("VpcConfig"), at("InputDataConfig"), at("Tags")
    for ours, theirs, most in (
        (limits.NAME_LENGTH, at("TrainingJobName"), "max"),
        (limits.NAME, at("TrainingJobName"), "pattern"),
        (limits.ROLE_LENGTHS[0], at("RoleArn"), "min"),
        (limits.ROLE_LENGTHS[1], at("RoleArn"), "max"),
        (limits.ROLE, at("RoleArn"), "pattern"),
        (limits.IMAGE_LENGTH, at(*algorithm, "TrainingImage"), "max"),
        (limits.URI_LENGTH, at("OutputDataConfig", "S3OutputPath"), "max"),
        (limits.CHANNELS, channels, "max"),
        (limits.CHANNEL_LENGTH, channels.member.members["ChannelName"], "max"),
        (limits.CHANNEL, channels.member.members["ChannelName"], "pattern"),
        (limits.WORDS, words, "max"),
        (limits.WORD_LENGTH, words.member, "max"),
        (".*", words.member, "pattern"),
        (limits.VARIABLES, variables, "max"),
        (limits.VARIABLE_LENGTH, variables.key, "max"),
        (limits.VALUE_LENGTH, variables.value, "max"),
        (limits.HYPERPARAMETERS, hyper, "max"),
        (limits.HYPERPARAMETER_LENGTH, hyper.key, "max"),
        (limits.HYPERPARAMETER_VALUE_LENGTH, hyper.value, "max"),
        (limits.SUBNETS, vpc.members["Subnets"], "max"),
        (limits.SECURITY_GROUPS, vpc.members["SecurityGroupIds"], "max"),
        (limits.VPC_ID_LENGTH, vpc.members["Subnets"].member, "max"),
        (limits.VPC_ID, vpc.members["Subnets"].member, "pattern"),
        (limits.TAGS, tags, "max"),
        (limits.TAG_KEY_LENGTH, tags.member.members["Key"], "max"),
        (limits.TAG_VALUE_LENGTH, tags.member.members["Value"], "max"),
        (limits.RETRIES[0], at("RetryStrategy", "MaximumRetryAttempts"), "min"),
        (limits.RETRIES[1], at("RetryStrategy", "MaximumRetryAttempts"), "max"),
    ):
        assert ours == theirs.metadata[most], theirs.name


@pytest.mark.parametrize("form", ["container", "toolkit"])
def test_the_hand_written_file_is_what_the_command_fills_in(form: str) -> None:
    written = training_job.template(form)
    algorithm = written["AlgorithmSpecification"]
    fields: dict[str, Any] = {
        "image": algorithm["TrainingImage"],
        "role": written["RoleArn"],
        "instance_type": written["ResourceConfig"]["InstanceType"],
        "output": written["OutputDataConfig"]["S3OutputPath"],
        "name": written["TrainingJobName"],
        "form": form,
        "source": "s3://example-bucket/code/sourcedir.tar.gz" if form == "toolkit" else None,
    }
    assert tree_of(job(("python", "train.py"), **fields)) == written


def test_hostile_words_arrive_as_they_are() -> None:
    tree = tree_of(VARIED["hostile"])
    words = tree["AlgorithmSpecification"]["ContainerArguments"]
    assert words == ["--ranks-per-node", "8", "--", *HOSTILE]
    assert list(tree["Environment"].values()) == list(HOSTILE)


def read_by_the_toolkit(hyperparameters: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Its own parameters and the program's words (environment.py, mapping.py of the toolkit)."""
    read = {name: json.loads(value) for name, value in hyperparameters.items()}
    own = {name: value for name, value in read.items() if name.startswith("sagemaker_")}
    words: list[str] = []
    for name in sorted(set(read) - set(own)):
        words += [f"--{name}" if len(name) > 1 else f"-{name}", str(read[name])]
    return own, words


def test_the_toolkit_reads_what_was_meant() -> None:
    own, words = read_by_the_toolkit(tree_of(VARIED["toolkit"])["HyperParameters"])
    assert words == ["-b", "32", "--decay", "-1e-4", "--lr", "0.1", "--text", "a b\n'c'"]
    assert own == {
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": TOOLKIT["source"],
        "sagemaker_container_log_level": 20,
        "sagemaker_mpi_enabled": True,
        "sagemaker_mpi_num_of_processes_per_host": 8,
        "sagemaker_mpi_custom_mpi_options": (
            "-x HVDTOOLS_SIZE=16 -x HVDTOOLS_NODES=2 -x HOROVOD_CONTROLLER=mpi "
            "-x HOROVOD_CPU_OPERATIONS=mpi -x PYTHONUNBUFFERED=1 --NCCL_DEBUG WARN "
            "-x OMP_NUM_THREADS"
        ),
    }


def test_a_job_without_a_name_is_named_by_the_clock() -> None:
    now = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    plan = submission(job(name=None), now)
    assert json.loads(plan.document)["TrainingJobName"] == "hvdtools-2030-01-02-03-04-05"
    later = json.loads(submission(job(name=None)).document)["TrainingJobName"]
    assert later > "hvdtools-2025"


def test_what_the_user_is_told() -> None:
    plan = submission(VARIED["container"])
    assert (plan.on, plan.ranks, plan.program) == ("sagemaker", 16, "the AWS command line")
    assert plan.argv[-4:] == (
        *("--cli-input-json", "file:///dev/stdin"),
        *("--region", "eu-central-1"),
    )
    assert plan.note == (
        "16 ranks on 2 x ml.p4d.24xlarge, as training job job-1; SageMaker starts it again after "
        "failures of its own, not of the program"
    )


@pytest.mark.parametrize(
    ("fields", "instances", "per_instance"),
    [
        ({"ranks": 8}, 1, "8"),
        ({"ranks_per_node": None, "nodes": 4}, 4, "4"),
        ({"nodes": 2}, 2, "8"),
    ],
)
def test_instances(fields: dict[str, Any], instances: int, per_instance: str) -> None:
    tree = tree_of(job(**fields))
    assert tree["ResourceConfig"]["InstanceCount"] == instances
    assert tree["AlgorithmSpecification"]["ContainerArguments"][1] == per_instance


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"image": None}, "needs --image"),
        ({"image": "a" * 256}, "255"),
        ({"image": "a b"}, "not the name of an image"),
        ({"role": None}, "needs --role"),
        ({"role": "SageMaker"}, "not the ARN of a role"),
        ({"instance_type": None}, "needs --instance-type"),
        ({"instance_type": "p4d.24xlarge"}, "ml.p4d.24xlarge"),
        ({"output": None}, "needs --output"),
        ({"output": "/tmp"}, "no S3 address"),
        ({"output": "s3://b/" + "a" * 1020}, "1024"),
        ({"form": "pod"}, "container, toolkit"),
        ({"source": "s3://b/a.tar.gz"}, "--form toolkit"),
        ({"form": "toolkit"}, "needs --source"),
        ({"channel": ("s3://bucket",)}, "NAME=s3://"),
        ({"channel": ("a b=s3://bucket",)}, "NAME=s3://"),
        ({"channel": ("a=bucket",)}, "--channel a= bucket"),
        ({"channel": ("a=s3://b", "a=s3://c")}, "one name"),
        ({"channel": tuple(f"c{n}=s3://b" for n in range(21))}, "20 of --channel"),
        ({"checkpoints": "here"}, "--checkpoints here"),
        ({"volume_gb": 0}, "--volume-gb 0"),
        ({"spot_wait": 0.0}, "--spot-wait 0"),
        ({"subnet": ("subnet-1",)}, "needs both"),
        ({"subnet": ("a b",), "security_group": ("sg-1",)}, "--subnet a b"),
        ({"security_group": tuple(f"sg-{n}" for n in range(6)), "subnet": ("s",)}, "5 of"),
        ({"tag": ("team",)}, "KEY=VALUE"),
        ({"tag": ("a=#",)}, "KEY=VALUE"),
        ({"region": "Frankfurt"}, "us-east-1"),
        ({"name": "a_b"}, "letters, digits and dashes"),
        ({"name": "a" * 64}, "63 letters"),
        ({"restarts": 31}, "30 at most"),
        ({"ranks_per_node": None}, "--ranks-per-node N"),
        ({"ranks": 12}, "use -n 16"),
        ({"ranks_per_node": None, "nodes": 3}, "use -n 18"),
        ({"command": ("python", "a" * 257)}, "256 characters"),
        ({"command": ("python", "a\nb")}, "no line break"),
        ({"command": ("a",) * 101}, "100 of words"),
        ({"command": ("./a\udcff",)}, "not UTF-8"),
        ({"env": (("A", "x" * 513),)}, "512 characters"),
        ({"env": tuple((f"A{n}", "") for n in range(101))}, "100 of --env"),
        ({"launcher": "mpirun"}, "--launcher does not apply to --on sagemaker"),
        ({"gpus_per_node": 8}, "--instance-type says it"),
        ({"oversubscribe": True}, "--oversubscribe"),
        ({"distribution": "cyclic"}, "--distribution"),
        ({"bind": "numa"}, "--bind"),
        ({"show_binding": True}, "--show-binding"),
        ({"log_dir": Path("logs")}, "CloudWatch"),
        ({"pass_on": ("--verbose",)}, "--pass"),
        ({**TOOLKIT, "interface": "eth0"}, "--interface"),
        ({**TOOLKIT, "command": ("./run",)}, "--form container"),
        ({**TOOLKIT, "command": ("python", "-m", "train")}, "--form container"),
        ({**TOOLKIT, "command": ("python", "train.py", "word")}, "`--name value`"),
        ({**TOOLKIT, "command": ("python", "train.py", "--flag")}, "`--name value`"),
        ({**TOOLKIT, "command": ("python", "train.py", "--f", "--lr", "1")}, "not '--f'"),
        ({**TOOLKIT, "command": ("python", "train.py", "-lr", "1")}, "`--name value`"),
        ({**TOOLKIT, "command": ("python", "train.py", "--lr=--x")}, "`--name value`"),
        ({**TOOLKIT, "command": ("python", "train.py", "--aa", "1", "--aa", "2")}, "goes once"),
        ({**TOOLKIT, "command": ("python", "train.py", "--sagemaker_x", "1")}, "none begins"),
        ({**TOOLKIT, "command": ("python", "train.py", "--aa", "x" * 2500)}, "2500"),
        ({**TOOLKIT, "env": (("NCCL_SOCKET_IFNAME", "eth1"),)}, "would be lost"),
        ({**TOOLKIT, "env": (("NCCL_DEBUG", "a b"),)}, "would be lost"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(HvdtoolsError) as caught:
        make_submission(job(**fields), MACHINE)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_every_field_of_a_job_is_used_or_refused() -> None:
    used = {"command", "ranks", "env", "on", "nodes", "ranks_per_node", "cpus_per_rank",
            "interface", "name", "timeout_s", "restarts"}  # fmt: skip
    fields = {field.name for field in dataclasses.fields(JobSpec)}
    refused = {{"pass": "pass_on"}.get(option, option) for option in SageMaker.unsupported}
    assert fields == used | refused - {"mpirun"}  # which is no field of a job
