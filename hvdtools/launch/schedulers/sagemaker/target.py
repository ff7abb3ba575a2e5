"""What is asked of SageMaker."""

from __future__ import annotations

from dataclasses import dataclass

from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.launch.option import Option
from hvdtools.launch.schedulers.sagemaker import checks, limits

_ON = ("sagemaker",)
_PANEL = "SageMaker"
FORMS = ("container", "toolkit")


@dataclass(frozen=True)
class SageMaker:
    """A training job. Field by field as in `OPTIONS`; None leaves it to launch/sagemaker*.json.

    Raises:
        HvdtoolsError: A value is missing, or nothing that SageMaker would take.
    """

    image: str | None = None
    role: str | None = None
    instance_type: str | None = None
    output: str | None = None
    form: str = "container"
    source: str | None = None
    channel: tuple[str, ...] = ()
    checkpoints: str | None = None
    volume_gb: int | None = None
    spot_wait: float | None = None
    subnet: tuple[str, ...] = ()
    security_group: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    region: str | None = None

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


OPTIONS = (
    Option("image", str, "The container image.", _PANEL, "IMAGE", _ON),
    Option("role", str, "The IAM role that the job assumes.", _PANEL, "ARN", _ON),
    Option("instance-type", str, "What to run on.", _PANEL, "ml.TYPE", _ON),
    Option("output", str, "Where /opt/ml/model goes at the end.", _PANEL, "s3://...", _ON),
    Option("form", str, "container: ranks start with the image's own hvdtools. toolkit: with "
           "SageMaker's training toolkit and its Open MPI 4.", _PANEL, "FORM", _ON),
    Option("source", str, "The program's sourcedir.tar.gz (toolkit).", _PANEL, "s3://...", _ON),
    Option("channel", tuple, "Files for /opt/ml/input/data/NAME.", _PANEL, "NAME=s3://...", _ON),
    Option("checkpoints", str, "Where /opt/ml/checkpoints is kept.", _PANEL, "s3://...", _ON),
    Option("volume-gb", int, "Disk of each instance.", _PANEL, "GB", _ON),
    Option("spot-wait", float, "Use spot instances, and wait so long for them beside the time of "
           "the job.", _PANEL, "SECONDS", _ON),
    Option("subnet", tuple, "A subnet of your VPC.", _PANEL, "ID", _ON),
    Option("security-group", tuple, "A security group of your VPC.", _PANEL, "ID", _ON),
    Option("tag", tuple, "A tag of the job.", _PANEL, "KEY=VALUE", _ON),
    Option("region", str, "The AWS region.", _PANEL, "NAME", _ON),
)  # fmt: skip
