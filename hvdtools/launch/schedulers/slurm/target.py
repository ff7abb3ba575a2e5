"""What is asked of Slurm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.launch.option import Option
from hvdtools.launch.schedulers.slurm.passed import check_passed

# https://slurm.schedmd.com/sbatch.html, --mail-type
MAIL_TYPES = (
    "NONE", "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT", "ARRAY_TASKS",
    "TIME_LIMIT", "TIME_LIMIT_90", "TIME_LIMIT_80", "TIME_LIMIT_50",
)  # fmt: skip
SIGNAL_S = 120

# https://slurm.schedmd.com/sbatch.html, --time: minutes, minutes:seconds, hours:minutes:seconds,
# days-hours, days-hours:minutes, days-hours:minutes:seconds.
_TIMES = (
    r"(?P<d>\d+)-(?P<h>\d+)(:(?P<m>\d+)(:(?P<s>\d+))?)?",
    r"(?P<d>)(?P<h>\d+):(?P<m>\d+):(?P<s>\d+)",
    r"(?P<d>)(?P<h>)(?P<m>\d+)(:(?P<s>\d+))?",
)
_NO_LIMIT = ("UNLIMITED", "INFINITE")
_ONE_LINE = ("account", "partition", "qos", "constraint", "mail_user", "container")


@dataclass(frozen=True)
class Slurm:
    """A job that Slurm allocates nodes for. Field by field as in `OPTIONS`; None leaves it out.

    Raises:
        HvdtoolsError: A value cannot be right under any Slurm.
    """

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    time: str | None = None
    constraint: str | None = None
    mail_type: str | None = None
    mail_user: str | None = None
    array: str | None = None
    container: str | None = None
    signal: int = SIGNAL_S
    sbatch: tuple[str, ...] = ()
    wait: bool = False

    def __post_init__(self) -> None:
        for problem in (*_of_texts(self), *_of_times(self), *_of_array(self)):
            raise problem
        for word in self.sbatch:
            check_passed(word)

    @property
    def node_counts(self) -> tuple[int, ...]:
        """The node counts of a sweep, as they were given; empty where none is asked for."""
        if self.array is None:
            return ()
        return tuple(int(count) for count in self.array.split(","))


def seconds_of(time: str) -> float:
    """A time limit in Slurm's writing, in seconds; infinite for UNLIMITED and for 0.

    Raises:
        HvdtoolsError: It is none.
    """
    if time.upper() in _NO_LIMIT:
        return float("inf")
    matches = (re.fullmatch(pattern, time, re.ASCII) for pattern in _TIMES)
    found = next(filter(None, matches), None)
    if found is None:
        raise HvdtoolsError(
            f"--time {time} is not how Slurm writes a time: use minutes (90), "
            "hours:minutes:seconds (1:30:00) or days-hours:minutes (2-12:00)."
        )
    days, hours, minutes, seconds = (int(found[part] or 0) for part in "dhms")
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return total or float("inf")


def _of_texts(target: Slurm) -> Iterator[HvdtoolsError]:
    for field in _ONE_LINE:
        value = getattr(target, field)
        if value is not None and (not value or re.search(r"[\0\r\n]", value)):
            flag = field.replace("_", "-")
            yield HvdtoolsError(f"--{flag} {value!r} is no single line of text: correct it.")
    for name in (target.mail_type or "NONE").upper().split(","):
        if name not in MAIL_TYPES:
            yield unknown_name("mail type", name, MAIL_TYPES)


def _of_times(target: Slurm) -> Iterator[HvdtoolsError]:
    if not 0 < target.signal <= 65535:  # Slurm's own limit
        yield HvdtoolsError(
            f"--signal {target.signal} is no time before the limit: give 1 to 65535 seconds."
        )
    if target.time is not None and seconds_of(target.time) <= target.signal:
        yield HvdtoolsError(
            f"--time {target.time} is over before training begins, as ranks are told to save "
            f"{target.signal} s before: give more time, or a smaller --signal."
        )


def _of_array(target: Slurm) -> Iterator[HvdtoolsError]:
    if target.array is None:
        return
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", target.array, re.ASCII):
        yield HvdtoolsError(
            f"--array {target.array} is not a list of node counts: write it as in --array 1,2,4."
        )
    elif len(set(target.node_counts)) < len(target.node_counts):
        yield HvdtoolsError(f"--array {target.array} names a node count twice: name each once.")


def _option(name: str, text: str, metavar: str = "", kind: type = str) -> Option:
    return Option(name, kind, text, "Slurm", metavar, ("slurm",))


OPTIONS = (
    _option("account", "Whom the job is charged to.", "NAME"),
    _option("partition", "The partition to run in; several by commas.", "NAME"),
    _option("qos", "The quality of service.", "NAME"),
    _option("time", "The time limit as Slurm writes it, 2-12:00:00 or minutes.", "TIME"),
    _option("constraint", "Features that the nodes must have.", "FEATURES"),
    _option("mail-type", "When to send mail: BEGIN, END, FAIL, ALL and others.", "TYPES"),
    _option("mail-user", "Whom to send it to.", "ADDRESS"),
    _option("array", "Run once on each of these numbers of nodes.", "1,2,4"),
    _option("container", "An Apptainer image to run in.", "IMAGE"),
    _option("signal", f"Tell ranks to save so long before the limit ({SIGNAL_S}).", "SECONDS", int),
    _option("sbatch", "Any other option of sbatch; may be repeated.", "NAME[=VALUE]", tuple),
    _option("wait", "Follow the job and return its exit code.", kind=bool),
)
