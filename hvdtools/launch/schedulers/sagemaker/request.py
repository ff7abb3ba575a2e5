"""SageMaker: the options of a job, and how it is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.launch.plan import Submission
from hvdtools.launch.scheduler import Scheduler, own_option
from hvdtools.launch.schedulers.sagemaker import checks, limits

if TYPE_CHECKING:
    from hvdtools.launch.machine import Machine
    from hvdtools.launch.spec import JobSpec

FORMS = ("container", "toolkit")


@dataclass(frozen=True)
class SageMaker(Scheduler):
    """A training job. None leaves a value to launch/sagemaker*.json.

    Raises:
        HvdtoolsError: A value is missing, or nothing that SageMaker would take.
    """

    image: str | None = own_option("The container image.", "IMAGE")
    role: str | None = own_option("The IAM role that the job assumes.", "ARN")
    instance_type: str | None = own_option("What to run on.", "ml.TYPE")
    output: str | None = own_option("Where /opt/ml/model goes at the end.", "s3://...")
    form: str = own_option(
        "container: ranks start with the image's own hvdtools. toolkit: with SageMaker's "
        "training toolkit and its Open MPI 4.",
        "FORM",
        str,
        "container",
    )
    source: str | None = own_option("The program's sourcedir.tar.gz (toolkit).", "s3://...")
    channel: tuple[str, ...] = own_option(
        "Files for /opt/ml/input/data/NAME.", "NAME=s3://...", tuple, ()
    )
    checkpoints: str | None = own_option("Where /opt/ml/checkpoints is kept.", "s3://...")
    volume_gb: int | None = own_option("Disk of each instance.", "GB", int)
    spot_wait: float | None = own_option(
        "Use spot instances, and wait so long for them beside the time of the job.",
        "SECONDS",
        float,
    )
    subnet: tuple[str, ...] = own_option("A subnet of your VPC.", "ID", tuple, ())
    security_group: tuple[str, ...] = own_option("A security group of your VPC.", "ID", tuple, ())
    tag: tuple[str, ...] = own_option("A tag of the job.", "KEY=VALUE", tuple, ())
    region: str | None = own_option("The AWS region.", "NAME")

    name = "sagemaker"
    title = "SageMaker"
    gives_job_id = False
    unsupported: ClassVar[Mapping[str, str]] = {
        "mpirun": "the image has its own",
        "launcher": "--form says who starts the ranks",
        "oversubscribe": "each instance has as many ranks as --ranks-per-node says",
        "gpus_per_node": "--instance-type says it",
        "distribution": "ranks fill an instance before the next",
        "bind": "leave it out",
        "show_binding": "no rank is bound",
        "log_dir": "CloudWatch has each rank's output, so leave it out",
        "pass": "print the request with --dry-run and edit it",
    }

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise unknown_name("form", self.form, FORMS)
        checks.image(self.image)
        checks.role(self.role)
        checks.instance_type(self.instance_type)
        checks.s3("--output", self.output)
        if self.form == "toolkit":
            checks.s3("--source", self.source)
        elif self.source is not None:
            raise HvdtoolsError(
                "--source is for --form toolkit: put the program into the image, or into a "
                "--channel, and run it from /opt/ml/input/data."
            )
        _check_lists(self)
        if self.checkpoints is not None:
            checks.s3("--checkpoints", self.checkpoints)
        if self.region is not None:
            checks.region(self.region)
        for option, number in (("--volume-gb", self.volume_gb), ("--spot-wait", self.spot_wait)):
            if number is not None and not number > 0:
                raise HvdtoolsError(f"{option} {number:g} is too little: give more than 0.")

    def submits(self, machine: Machine) -> bool:
        return True

    def submission(self, spec: JobSpec, machine: Machine) -> Submission:
        from hvdtools.launch.schedulers.sagemaker.training_job import submission

        return submission(spec)


def _check_lists(target: SageMaker) -> None:
    names = [checks.read_channel(text)[0] for text in target.channel]
    if len(set(names)) < len(names):
        raise HvdtoolsError("Two channels have one name: give each a name of its own.")
    checks.at_most("--channel", names, limits.CHANNELS)
    checks.at_most("--tag", [checks.read_tag(text) for text in target.tag], limits.TAGS)
    checks.vpc_ids("--subnet", target.subnet, limits.SUBNETS)
    checks.vpc_ids("--security-group", target.security_group, limits.SECURITY_GROUPS)
    if bool(target.subnet) != bool(target.security_group):
        raise HvdtoolsError("A VPC needs both: give --subnet and --security-group, or neither.")
