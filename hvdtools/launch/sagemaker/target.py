"""What is asked of SageMaker."""

from __future__ import annotations

from dataclasses import dataclass

from hvdtools.launch.option import Option

_ON = ("sagemaker",)


@dataclass(frozen=True)
class SageMaker:
    """A training job. Field by field as in `OPTIONS`; None leaves it out."""

    role: str | None = None


OPTIONS = (Option("role", str, "The IAM role that the job assumes.", "SageMaker", "ARN", _ON),)
