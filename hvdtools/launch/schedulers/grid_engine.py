"""Grid Engine (Sun, Son of, Open, Univa, Altair): a job's options, script, state and nodes.

Source: the manual pages qsub(1), qstat(1), qacct(1), sge_pe(5), queue_conf(5) and accounting(5) of
Son of Grid Engine 8.1.9.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hvdtools.core.errors import TIMED_OUT, HvdtoolsError
from hvdtools.launch.hosts import Host
from hvdtools.launch.outcome import Outcome
from hvdtools.launch.plan import Submission
from hvdtools.launch.scheduler import Allocation, own_option
from hvdtools.launch.schedulers import batch
from hvdtools.launch.schedulers.follow import follow

if TYPE_CHECKING:
    from hvdtools.launch.machine import Machine
    from hvdtools.launch.spec import JobSpec

# qsub(1), -N: "may not start with a digit or contain any of \\n\\t\\r/:@\\*?".
_NAME = re.compile(r"[^\W\d][\w.+-]*", re.ASCII)
_INSTEAD = {
    "-N": "use --name",
    "-q": "use --queue",
    "-P": "use --project",
    "-A": "use --account",
    "-t": "use --array",
    "-pe": "use --pe, --nodes and --ranks-per-node",
    "-l h_rt": "use --time",
    "-l s_rt": "use --time and --signal",
    "-v": "use --env",
    "-V": "use --env",
    "-S": "the script is for bash",
    "-o": "the job writes sge-JOB.out in the folder that it was submitted from",
    "-e": "the job writes sge-JOB.out in the folder that it was submitted from",
    "-j": "the job writes sge-JOB.out in the folder that it was submitted from",
    "-wd": "ranks start in the folder that the job was submitted from",
    "-sync": "use --wait",
    "-r": "the job may always be started again",
}
# qsub(1), "EXIT STATUS" of a job: 99 puts a job that may be rerun back into the queue.
_RUN_AGAIN = 99
# Exit code of a program that has saved and asks to be run again; as under Slurm.
_SAVED = 75
# accounting(5), "failed": the time limit was enforced.
_KILLED_FOR_TIME = 37
# accounting(5), "failed": the job was migrated, or goes back into the queue.
_RESCHEDULED = (24, 25)
# How many slots of the parallel environment a rank has.
_SLOTS_PER_RANK = "HVDTOOLS_SLOTS_PER_RANK"
# The master writes accounting records every 15 s unless told otherwise (sge_conf(5), flush_time).
_ACCOUNTING_S = 60.0


@dataclass(frozen=True)
class GridEngine(batch.QsubScheduler):
    """A job for qsub, or the ranks of the Grid Engine job that this process is in.

    A slot is a CPU core: a rank takes --cpus-per-rank slots of the parallel environment, which
    a site defines. Its allocation rule decides how many are on each node.

    A job that was told to save, or that exits with 75 ("saved, run me again"), goes back into
    the queue.

    Raises:
        HvdtoolsError: A value cannot be right under any Grid Engine.
    """

    pe: str | None = own_option("The parallel environment, as `qconf -spl` lists them.", "NAME")
    project: str | None = own_option("The project.", "NAME")

    name = "grid-engine"
    title = "Grid Engine"
    instead = _INSTEAD
    argv = ("qsub", "-terse")
    unsupported: ClassVar[Mapping[str, str]] = {
        "mpirun": "the one next to this Python starts the ranks",
        "oversubscribe": "Grid Engine gives each rank its slots",
        "gpus_per_node": "each site names its GPU resource: request it with --qsub '-l NAME=N', "
        "for each slot",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("pe", "project"):
            batch.one_word(f"--{option}", getattr(self, option))

    @classmethod
    def detect(cls, environ: Mapping[str, str]) -> Allocation | None:
        job_id, file = environ.get("JOB_ID"), environ.get("PE_HOSTFILE")
        if job_id is None or file is None or "SGE_ROOT" not in environ:
            return None
        slots_per_rank = environ.get(_SLOTS_PER_RANK, "1")
        try:
            return Allocation(job_id, read_pe_hostfile(Path(file).read_text(), int(slots_per_rank)))
        except (OSError, ValueError, ZeroDivisionError, HvdtoolsError):
            return None  # variables of a job that is over, or of another program

    def submission(self, spec: JobSpec, machine: Machine) -> Submission:
        if self.pe is None:
            raise HvdtoolsError(
                "Grid Engine allocates nodes through a parallel environment: name one that "
                "`qconf -spl` lists with --pe."
            )
        return super().submission(spec, machine)

    def directives(self, spec: JobSpec, size: batch.Size, time_s: int | None) -> Iterator[str]:
        name = spec.name or "hvdtools"
        if not _NAME.fullmatch(name):
            raise HvdtoolsError(
                f"--name {name!r} is not a name for a Grid Engine job: begin with a letter, and "
                "use letters, digits, and _ . + - only."
            )
        yield f"#$ -N {name}"
        yield "#$ -S /bin/bash"
        yield "#$ -cwd"
        yield f"#$ -pe {self.pe} {size.ranks * (spec.cpus_per_rank or 1)}"
        if time_s is not None:
            # Not s_rt too: the queue decides how long after it a job is killed, and over
            # several nodes some versions kill it at once.
            yield f"#$ -l h_rt={batch.clock(time_s)}"
        for flag, value in (("-q", self.queue), ("-P", self.project), ("-A", self.account)):
            if value is not None:
                yield f"#$ {flag} {value}"
        if size.counts:
            yield f"#$ -t 1-{len(size.counts)}"
        yield "#$ -r y"
        # SIGUSR2 some seconds before SIGKILL: time to end the ranks on other nodes.
        yield "#$ -notify"
        yield "#$ -j y"
        yield f"#$ -o sge-$JOB_ID{'.$TASK_ID' if size.counts else ''}.out"
        yield from (f"#$ {word}" for word in self.qsub)

    def lines(self, spec: JobSpec, size: batch.Size) -> Iterator[str]:
        if spec.cpus_per_rank is not None:
            yield f"export {_SLOTS_PER_RANK}={spec.cpus_per_rank}"
        if size.counts:
            yield f"hvdtools_counts=({' '.join(map(str, size.counts))})"
            yield "hvdtools_nodes=${hvdtools_counts[$((SGE_TASK_ID - 1))]}"

    def submit(self, submission: Submission) -> str:
        # "12", or "12.1-3:1" for an array.
        return super().submit(submission).partition(".")[0]

    def follow(
        self, job_id: str, on_line: Callable[[str], None], on_state: Callable[[str], None]
    ) -> int:
        return follow(self, job_id, _Query(Path.cwd()), on_line, on_state)

    def cancel(self, job_id: str) -> None:
        done = ["qdel", job_id]
        subprocess.run(done, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)

    def exit_code(self, outcome: Outcome) -> int:
        if outcome.told_to_save or outcome.exit_code == _SAVED:
            return _RUN_AGAIN
        return outcome.exit_code


def read_pe_hostfile(text: str, slots_per_rank: int = 1) -> tuple[Host, ...]:
    """The hosts of a PE_HOSTFILE and the ranks that their slots hold (sge_pe(5)).

    A line is "host slots queue processor-range"; a host may have slots in several queues.
    """
    slots: dict[str, int] = {}
    for line in text.splitlines():
        name, count = line.split()[:2]
        slots[name] = slots.get(name, 0) + int(count)
    return tuple(
        Host(name, count // slots_per_rank)
        for name, count in slots.items()
        if count >= slots_per_rank
    )


@dataclass(frozen=True)
class GridEngineJob:
    """A job, or an element of an array, as Grid Engine sees it now.

    Attributes:
        name: Its number, "12" or "12.3".
        state: Grid Engine's letters for it (qstat(1)); "" once it is over.
        queue: Where it runs, "all.q@host1".
        exit_status: Its exit code, 128 + number for a signal; None before the end.
        failed: Grid Engine's own code for a failure (accounting(5)); 0 for none.
        log: The file of its output.
    """

    name: str
    state: str
    queue: str = ""
    exit_status: int | None = None
    failed: int = 0
    log: Path | None = None

    @property
    def has_started(self) -> bool:
        """True if it runs or ran."""
        return self.exit_status is not None or "r" in self.state or "t" in self.state

    @property
    def is_over(self) -> bool:
        """True if it will not run again by itself; a job in an error state waits for its user."""
        return self.exit_status is not None or "E" in self.state

    @property
    def code(self) -> int:
        """The exit code to report for a job that is over."""
        if self.failed == _KILLED_FOR_TIME:
            return TIMED_OUT
        return self.exit_status or (1 if self.failed or self.exit_status is None else 0)

    def text(self) -> str:
        """The state in one line for the user."""
        if "E" in self.state:
            return f"job {self.name} cannot start: `qstat -j {self.name}` says why"
        if self.exit_status is not None:
            if self.failed == _KILLED_FOR_TIME:
                return f"job {self.name}: ended by its time limit"
            end = "done" if self.code == 0 else f"failed with exit code {self.code}"
            return f"job {self.name}: {end}"
        if self.has_started:
            return f"job {self.name} runs on {self.queue}"
        return f"job {self.name} waits ({self.state})"


class _Query:
    """Asks for the state of a job: qstat while it is there, then qacct.

    Between the two a job is in neither for some seconds, and keeps its last state.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: tuple[GridEngineJob, ...] = ()
        self._gone_s: float | None = None

    def __call__(self, job_id: str) -> tuple[GridEngineJob, ...] | None:
        shown = _run("qstat", "-xml", "-u", "*")
        if shown is None:
            return None
        try:
            waiting = read_qstat(shown, job_id, self._folder)
        except ElementTree.ParseError:
            return None
        ended = read_qacct(_run("qacct", "-j", job_id) or "", job_id, self._folder)
        names = {job.name for job in waiting}
        found = (*waiting, *(job for job in ended if job.name not in names))
        known = {job.name for job in found}
        missing = [job for job in self._last if job.name not in known]
        if not missing:
            self._last, self._gone_s = found, None
            return found
        now_s = time.monotonic()
        self._gone_s = self._gone_s or now_s
        return (*found, *missing) if now_s - self._gone_s < _ACCOUNTING_S else found


def _run(*argv: str) -> str | None:
    environment = {**os.environ, "SGE_LONG_QNAMES": "80"}
    done = subprocess.run(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


def read_qstat(text: str, job_id: str, folder: Path) -> tuple[GridEngineJob, ...]:
    """The job, or the elements of an array that wait or run, in what `qstat -xml` printed."""
    found = []
    for element in ElementTree.fromstring(text).iter("job_list"):
        if element.findtext("JB_job_number") != job_id:
            continue
        tasks = element.findtext("tasks")
        names = [job_id] if tasks is None else [f"{job_id}.{task}" for task in _elements(tasks)]
        state, queue = (element.findtext(tag) or "" for tag in ("state", "queue_name"))
        found += [GridEngineJob(name, state, queue, log=_log(folder, name)) for name in names]
    return tuple(found)


def _elements(tasks: str) -> Iterator[int]:
    """The elements of an array in one record: "3", or those that wait, "2-4:1,6"."""
    for part in tasks.split(","):
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        yield from range(int(first), int(last or first) + 1, int(step or 1))


def _log(folder: Path, name: str) -> Path:
    return folder / f"sge-{name}.out"


def read_qacct(text: str, job_id: str, folder: Path) -> tuple[GridEngineJob, ...]:
    """The ends that `qacct -j` printed; of a job that ran again, the last one."""
    ended: dict[str, GridEngineJob] = {}
    for record in text.split("=" * 62):
        fields = dict(re.findall(r"^(\w+) +(.*?) *$", record, re.MULTILINE))
        failed = int(fields.get("failed", "0").split()[0])
        if "exit_status" not in fields or failed in _RESCHEDULED:
            continue
        task = fields.get("taskid", "undefined")
        name = job_id if task == "undefined" else f"{job_id}.{task}"
        ended[name] = GridEngineJob(
            name=name,
            state="",
            queue=f"{fields.get('qname')}@{fields.get('hostname')}",
            exit_status=int(fields["exit_status"].split()[0]),
            failed=failed,
            log=_log(folder, name),
        )
    return tuple(ended.values())
