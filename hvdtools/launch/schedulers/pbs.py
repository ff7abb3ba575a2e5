"""OpenPBS and PBS Professional: a job's options, script, state and nodes.

Source: the manual pages qsub(1B), qstat(1B), qdel(1B) and pbs_resources(7B) of OpenPBS, and the
PBS Professional User's Guide, "Submitting a PBS Job" and "Multiprocessor Jobs".
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hvdtools.core.errors import TIMED_OUT, HvdtoolsError
from hvdtools.launch.hosts import Host
from hvdtools.launch.scheduler import Allocation
from hvdtools.launch.schedulers import batch
from hvdtools.launch.schedulers.follow import follow

if TYPE_CHECKING:
    from hvdtools.launch.spec import JobSpec

# qsub(1B), -N: 230 characters at most; OpenPBS checks them in ck_job_name.c.
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,229}")
_INSTEAD = {
    "-N": "use --name",
    "-q": "use --queue",
    "-A": "use --account",
    "-J": "use --array",
    "-l select": "use --nodes, --ranks-per-node, --cpus-per-rank and --gpus-per-node",
    "-l nodes": "use --nodes and --ranks-per-node",
    "-l ncpus": "use --cpus-per-rank",
    "-l walltime": "use --time",
    "-v": "use --env",
    "-V": "use --env",
    "-o": "the job writes pbs-JOB.out in the folder that it was submitted from",
    "-e": "the job writes pbs-JOB.out in the folder that it was submitted from",
    "-I": "use qsub -I first, and hvdtools launch --on pbs inside the job",
}
# OpenPBS, src/include/job.h: what PBS itself reports, below 0.
_KILLED_FOR_TIME = -29
_KILLED_FOR_MEMORY = (-26, -27)
_STATES = {
    "Q": "waits", "H": "is held", "W": "waits for its start time", "T": "is being moved",
    "M": "was moved to another server", "B": "has begun", "S": "is suspended",
    "U": "is suspended", "E": "is ending",
}  # fmt: skip


@dataclass(frozen=True)
class Pbs(batch.QsubScheduler):
    """A job for qsub, or the ranks of the PBS job that this process is in.

    PBS tells a job nothing before its time limit, so the script sets an alarm for its ranks. It
    starts a job again when a node fails (`-r y`), but not because the job asks for it: a job
    that saved at its limit ends, and is submitted again by its user.

    Raises:
        HvdtoolsError: A value cannot be right under any PBS.
    """

    name = "pbs"
    title = "PBS"
    instead = _INSTEAD
    unsupported: ClassVar[Mapping[str, str]] = {
        "mpirun": "the one next to this Python starts the ranks",
        "oversubscribe": "PBS gives each rank its cores",
    }

    @classmethod
    def detect(cls, environ: Mapping[str, str]) -> Allocation | None:
        job_id, file = environ.get("PBS_JOBID"), environ.get("PBS_NODEFILE")
        if job_id is None or file is None:
            return None
        try:
            return Allocation(job_id, read_node_file(Path(file).read_text()))
        except (OSError, ValueError, HvdtoolsError):
            return None  # variables of a job that is over

    def directives(self, spec: JobSpec, size: batch.Size, time_s: int | None) -> Iterator[str]:
        name = spec.name or "hvdtools"
        if not _NAME.fullmatch(name):
            raise HvdtoolsError(
                f"--name {name!r} is not a name for a PBS job: use up to 230 characters, no "
                "other characters than letters, digits, and _ . + -."
            )
        cpus = spec.cpus_per_rank or 1
        gpus = f":ngpus={spec.gpus_per_node}" if spec.gpus_per_node else ""
        yield f"#PBS -N {name}"
        # Left alone, PBS sets OMP_NUM_THREADS to all of a chunk's cores for every rank.
        ranks = size.per_node
        chunk = f"ncpus={ranks * cpus}:mpiprocs={ranks}:ompthreads={cpus}{gpus}"
        yield f"#PBS -l select={size.nodes}:{chunk}"
        yield "#PBS -l place=scatter"
        if time_s is not None:
            yield f"#PBS -l walltime={batch.clock(time_s)}"
        if self.queue is not None:
            yield f"#PBS -q {self.queue}"
        if self.account is not None:
            yield f"#PBS -A {self.account}"
        if len(size.counts) > 1:
            yield f"#PBS -J 0-{len(size.counts) - 1}"
        yield "#PBS -r y"
        yield "#PBS -j oe"
        yield from (f"#PBS {word}" for word in self.qsub)

    def lines(self, spec: JobSpec, size: batch.Size) -> Iterator[str]:
        yield 'cd "$PBS_O_WORKDIR" || exit 2'
        # PBS keeps a job's output on its first node until the job ends; this can be followed.
        yield 'exec >>"pbs-${PBS_JOBID%%.*}.out" 2>&1'
        if size.counts:
            yield f"hvdtools_counts=({' '.join(map(str, size.counts))})"
            yield "hvdtools_nodes=${hvdtools_counts[${PBS_ARRAY_INDEX:-0}]}"

    def follow(
        self, job_id: str, on_line: Callable[[str], None], on_state: Callable[[str], None]
    ) -> int:
        return follow(self, job_id, query, on_line, on_state)

    def cancel(self, job_id: str) -> None:
        subprocess.run(["qdel", job_id], stdin=subprocess.DEVNULL, check=False)


def read_node_file(text: str) -> tuple[Host, ...]:
    """The hosts of a PBS_NODEFILE: a line for each rank (mpiprocs) of each chunk."""
    slots: dict[str, int] = {}
    for name in text.split():
        slots[name] = slots.get(name, 0) + 1
    return tuple(Host(name, count) for name, count in slots.items())


@dataclass(frozen=True)
class PbsJob:
    """A job, or an element of an array, as PBS sees it now.

    Attributes:
        name: Its number, "12" or "12[3]".
        state: PBS's letter for it.
        comment: Why it waits, in PBS's words.
        hosts: Where it runs, as PBS writes it.
        exit_status: PBS's; None before the end.
        log: The file that its script writes.
    """

    name: str
    state: str
    comment: str
    hosts: str
    exit_status: int | None
    log: Path | None

    @property
    def has_started(self) -> bool:
        """True if it runs or ran."""
        return self.state in ("R", "E", "F", "X")

    @property
    def is_over(self) -> bool:
        """True if it will not run again."""
        return self.state in ("F", "X")

    @property
    def code(self) -> int:
        """The exit code to report for a job that is over.

        PBS adds 256 to the number of the signal that ended a job (qstat(1B), Exit_status).
        """
        status = self.exit_status
        if status is None or status in _KILLED_FOR_MEMORY:
            return 128 + (signal.SIGINT if status is None else signal.SIGKILL)
        if status == _KILLED_FOR_TIME:
            return TIMED_OUT
        if status < 0:
            return 1
        return status if status < 256 else 128 + status - 256

    def text(self) -> str:
        """The state in one line for the user."""
        if self.state == "R":
            return f"job {self.name} runs on {self.hosts}"
        if not self.is_over:
            why = f" ({self.comment})" if self.comment else ""
            return f"job {self.name} {_STATES.get(self.state, f'is in state {self.state}')}{why}"
        if self.exit_status is None:
            return f"job {self.name}: canceled"
        if self.exit_status == _KILLED_FOR_TIME:
            return f"job {self.name}: ended by its time limit"
        return f"job {self.name}: done" if self.code == 0 else (
            f"job {self.name} failed with exit code {self.code}"
        )  # fmt: skip


def query(job_id: str) -> tuple[PbsJob, ...] | None:
    """The job, or all elements of the array; empty if PBS forgot it, None without an answer."""
    done = subprocess.run(
        ["qstat", "-x", "-t", "-f", "-F", "json", job_id],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if "Unknown Job Id" in done.stderr:
        return ()
    if "history" in done.stderr.lower():
        raise HvdtoolsError(
            f"PBS keeps no history of jobs here (`qmgr -c 'print server job_history_enable'`), so "
            f"--wait cannot tell how job {job_id} ends: it runs on; follow it with qstat."
        )
    try:
        return read_jobs(done.stdout)
    except (ValueError, KeyError):  # nothing, or not JSON: variables of a job can break it
        return None


def read_jobs(text: str) -> tuple[PbsJob, ...]:
    """Read what `qstat -f -F json` printed; an array's own record goes where its elements are."""
    jobs = tuple(_read_job(number, each) for number, each in json.loads(text)["Jobs"].items())
    return tuple(job for job in jobs if not job.name.endswith("[]")) or jobs


def _read_job(number: str, job: Mapping[str, Any]) -> PbsJob:
    name = number.partition(".")[0]
    folder = job.get("Variable_List", {}).get("PBS_O_WORKDIR")
    status = job.get("Exit_status")
    return PbsJob(
        name=name,
        state=job["job_state"],
        comment=job.get("comment", ""),
        hosts=job.get("exec_host", ""),
        exit_status=None if status is None else int(status),
        log=None if folder is None else Path(folder) / f"pbs-{name}.out",
    )
