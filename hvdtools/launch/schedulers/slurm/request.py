"""Slurm: a job's options, and how it is submitted, followed and started."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.core.mpi import HYDRA
from hvdtools.launch.plan import Submission
from hvdtools.launch.scheduler import Allocation, Scheduler, own_option
from hvdtools.launch.schedulers.slurm.passed import check_passed

if TYPE_CHECKING:
    from hvdtools.launch.machine import Machine
    from hvdtools.launch.spec import JobSpec

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
class Slurm(Scheduler):
    """A job for sbatch, or a step of the job that this process is in.

    Raises:
        HvdtoolsError: A value cannot be right under any Slurm.
    """

    account: str | None = own_option("The account to charge.", "NAME")
    partition: str | None = own_option("The partition to run in; several by commas.", "NAME")
    qos: str | None = own_option("The quality of service.", "NAME")
    time: str | None = own_option(
        "The time limit, as in 2:00:00; under Slurm also 2-12 or minutes.", "TIME"
    )
    constraint: str | None = own_option("Features that the nodes must have.", "FEATURES")
    mail_type: str | None = own_option(
        "When to send mail: BEGIN, END, FAIL, ALL and others.", "TYPES"
    )
    mail_user: str | None = own_option("Where to send it.", "ADDRESS")
    array: str | None = own_option("Run once on each of these numbers of nodes.", "1,2,4")
    container: str | None = own_option("An Apptainer image to run in.", "IMAGE")
    signal: int = own_option(
        f"Tell ranks to save so long before the limit ({SIGNAL_S}).", "SECONDS", int, SIGNAL_S
    )
    sbatch: tuple[str, ...] = own_option(
        "Any other option of sbatch; may be repeated.", "NAME[=VALUE]", tuple, ()
    )
    wait: bool = own_option("Follow the job and return its exit code.", "", bool, False)

    name = "slurm"
    title = "Slurm"
    unsupported: ClassVar[Mapping[str, str]] = {
        "mpirun": "the one next to this Python starts the ranks",
        "oversubscribe": "Slurm gives each rank its cores",
    }

    def __post_init__(self) -> None:
        for problem in (*_of_texts(self), *_of_times(self), *_of_array(self)):
            raise problem
        for word in self.sbatch:
            check_passed(word)

    @classmethod
    def detect(cls, environ: Mapping[str, str]) -> Allocation | None:
        job_id = environ.get("SLURM_JOB_ID")
        return None if job_id is None else Allocation(job_id)

    def submission(self, spec: JobSpec, machine: Machine) -> Submission:
        from hvdtools.launch.planner import rank_command
        from hvdtools.launch.schedulers.slurm.script import submission

        command = rank_command(spec, machine)
        return submission(dataclasses.replace(spec, command=command), machine.python)

    def submit(self, submission: Submission) -> str:
        return super().submit(submission).partition(";")[0]

    def waits(self) -> bool:
        return self.wait

    def follow(
        self, job_id: str, on_line: Callable[[str], None], on_state: Callable[[str], None]
    ) -> int:
        from hvdtools.launch.schedulers.follow import follow
        from hvdtools.launch.schedulers.slurm.job import query

        return follow(self, job_id, query, on_line, on_state)

    def cancel(self, job_id: str) -> None:
        subprocess.run(["scancel", job_id], stdin=subprocess.DEVNULL, check=False)

    def choose_launcher(self, spec: JobSpec, machine: Machine) -> str:
        is_hydra = machine.mpirun is not None and machine.mpirun.flavour in HYDRA
        if spec.launcher not in ("auto", "srun", "mpirun") or (
            spec.launcher == "mpirun" and is_hydra
        ):
            raise HvdtoolsError(
                "Inside a Slurm job srun or Open MPI's mpirun starts the ranks: use --launcher "
                "srun."
            )
        self.refuse_own_options(machine)
        return "srun" if spec.launcher == "auto" else spec.launcher

    def describe(self, machine: Machine) -> str:
        return "in this Slurm job"

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
