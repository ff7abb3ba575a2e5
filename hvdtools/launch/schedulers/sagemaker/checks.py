"""What SageMaker takes for a name, a role, an S3 address, a channel or a tag."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.schedulers.sagemaker import limits

_S3 = re.compile(r"s3://[^/\s]+(/.*)?")
_INSTANCE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")
_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+")
# Python has no class of all letters and digits; \w is one, with the underscore.
_TAG = re.compile(r"[\w .:/=+\-@]*")


def required(option: str, value: str | None, example: str) -> str:
    """The value, or an error if there is none."""
    if not value:
        raise HvdtoolsError(f"SageMaker needs {option}, as in {option} {example}.")
    return value


def image(name: str | None) -> str:
    """The image's name, if it can be one."""
    found = required("--image", name, "111122223333.dkr.ecr.us-east-1.amazonaws.com/train:1")
    if not re.fullmatch(r"[!-~]+", found) or len(found) > limits.IMAGE_LENGTH:
        raise HvdtoolsError(
            f"{found!r} is not the name of an image: write registry/name:tag, with up to "
            f"{limits.IMAGE_LENGTH} characters."
        )
    return found


def role(arn: str | None) -> str:
    """The role's ARN, if it can be one."""
    example = "arn:aws:iam::111122223333:role/SageMaker"
    found = required("--role", arn, example)
    least, most = limits.ROLE_LENGTHS
    if not re.fullmatch(limits.ROLE, found, re.ASCII) or not least <= len(found) <= most:
        raise HvdtoolsError(f"--role {found} is not the ARN of a role: write it as in {example}.")
    return found


def instance_type(name: str | None) -> str:
    """The instance type, if it can be one; which there are, SageMaker knows."""
    found = required("--instance-type", name, "ml.p4d.24xlarge")
    if not _INSTANCE.fullmatch(found):
        raise HvdtoolsError(
            f"--instance-type {found} is no type of SageMaker's: write it as in ml.p4d.24xlarge."
        )
    return found


def region(name: str) -> None:
    """Raise unless `name` looks like a region."""
    if not _REGION.fullmatch(name):
        raise HvdtoolsError(f"--region {name} is no region: write it as in us-east-1.")


def s3(option: str, uri: str | None) -> str:
    """The S3 address, if it is one."""
    found = required(option, uri, "s3://bucket/folder")
    if not _S3.fullmatch(found) or len(found) > limits.URI_LENGTH:
        raise HvdtoolsError(
            f"{option} {found} is no S3 address: write s3://bucket/folder, with up to "
            f"{limits.URI_LENGTH} characters."
        )
    return found


def job_name(name: str) -> None:
    """Raise unless `name` can be a training job's."""
    if not re.fullmatch(limits.NAME, name):
        raise HvdtoolsError(
            f"--name {name} is no name for a training job: use up to {limits.NAME_LENGTH} letters, "
            "digits and dashes, and no dash first or last."
        )


def read_channel(text: str) -> tuple[str, str]:
    """The name and the S3 address of "name=s3://..."."""
    name, _, uri = text.partition("=")
    if not re.fullmatch(limits.CHANNEL, name) or len(name) > limits.CHANNEL_LENGTH:
        raise HvdtoolsError(
            f"--channel {text} is not understood: write NAME=s3://bucket/folder, and the program "
            "finds the files in /opt/ml/input/data/NAME."
        )
    return name, s3(f"--channel {name}=", uri)


def read_tag(text: str) -> tuple[str, str]:
    """The key and the value of "key=value"."""
    key, equals, value = text.partition("=")
    too_long = len(key) > limits.TAG_KEY_LENGTH or len(value) > limits.TAG_VALUE_LENGTH
    if not key or not equals or not _TAG.fullmatch(key + value) or too_long:
        raise HvdtoolsError(f"--tag {text} is not understood: write KEY=VALUE.")
    return key, value


def vpc_ids(option: str, ids: Sequence[str], most: int) -> None:
    """Raise unless each of `ids` can name a subnet or a security group, and they are few."""
    for each in ids:
        if not re.fullmatch(limits.VPC_ID, each) or len(each) > limits.VPC_ID_LENGTH:
            raise HvdtoolsError(f"{option} {each} is no id: write it as in subnet-0abc or sg-0abc.")
    at_most(option, ids, most)


def at_most(what: str, values: Sequence[object], most: int) -> None:
    """Raise if there are more of them than SageMaker takes."""
    if len(values) > most:
        raise HvdtoolsError(
            f"SageMaker takes {most} of {what} at most, and these are {len(values)}: use fewer."
        )
