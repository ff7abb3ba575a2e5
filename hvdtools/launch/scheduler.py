"""What every scheduler offers. A scheduler allocates the nodes of a job; launchers start its ranks.

To add one, write a module with a frozen dataclass that derives from `Scheduler`, and add a line
to the registry in `schedulers/__init__.py`. A site can add its own without touching hvdtools: an
entry point of the group `hvdtools.schedulers` with the scheduler's name and "module:Class".
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.hosts import Host
from hvdtools.launch.plan import Submission

if TYPE_CHECKING:
    from typing_extensions import Self

    from hvdtools.launch.machine import Machine
    from hvdtools.launch.outcome import Outcome
    from hvdtools.launch.spec import JobSpec


@dataclass(frozen=True)
class Option:
    """An option, declared once: flags, help and job files are made from it.

    Attributes:
        name: "ranks-per-node": the flag is --ranks-per-node, the key of a job file the same
            without dashes before it, the field of a `JobSpec` or a scheduler ranks_per_node.
        kind: int, float, str or bool; tuple for a flag that may be repeated.
        help: One line for `--help`.
        panel: Its heading in `--help`.
        metavar: What stands for its value; "" for the kind's name.
        flags: Further spellings ("-n").
    """

    name: str
    kind: type
    help: str
    panel: str
    metavar: str = ""
    flags: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """The name as Python spells it."""
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class Allocation:
    """A job of a scheduler that this process runs in.

    Attributes:
        job_id: The job's number, as the scheduler writes it.
        hosts: Its nodes and their slots; None where the launcher finds them itself.
    """

    job_id: str
    hosts: tuple[Host, ...] | None = None


def own_option(text: str, metavar: str = "", kind: type = str, default: Any = None) -> Any:
    """A field of a scheduler that is an option of `hvdtools launch`, named after the field.

    Args:
        text: One line for `--help`.
        metavar: What stands for the value there.
        kind: int, float, str or bool; tuple for a flag that may be repeated.
        default: The field's value where the option is not given.
    """
    return dataclasses.field(default=default, metadata={"option": (text, metavar, kind)})


@dataclass(frozen=True)
class Scheduler:
    """One job's request to a scheduler: a frozen dataclass with the scheduler's own options.

    The methods are called in this order. When options are parsed: `options`, `from_values`,
    `default_ranks`, `check`. Then `submits` decides. A job that is submitted: `submission`,
    `submit`, and with `waits` also `follow`, which calls `cancel` on Ctrl-C. A job whose ranks
    start from here: `require_room`, `choose_launcher`, `hosts`, `node_count`, `describe`, and at
    the end `exit_code`.

    Attributes:
        name: As `--on` takes it.
        title: Its name in messages, and its heading in `--help`.
        unsupported: The general options that it cannot follow: the option as Python spells it
            ("log_dir") -> what to do instead, as the end of an error message.
        gives_job_id: True if `submit` returns a job's number and nothing else.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unsupported: ClassVar[Mapping[str, str]] = {}
    gives_job_id: ClassVar[bool] = True

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """Its own options: the fields that `own_option` made."""
        return tuple(
            Option(field.name.replace("_", "-"), kind, text, cls.title, metavar)
            for field in dataclasses.fields(cls)
            for text, metavar, kind in [field.metadata.get("option", (None, None, None))]
            if text is not None
        )

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The request that these options make: option name -> value, of options that were given.

        Raises:
            HvdtoolsError: A value cannot be right.
        """
        own = {option.name: option.field for option in cls.options()}
        return cls(**{own[name]: value for name, value in values.items() if name in own})

    @classmethod
    def detect(cls, environ: Mapping[str, str]) -> Allocation | None:
        """The job of this scheduler that a process with these variables runs in; None in none."""
        del environ
        return None

    def default_ranks(self) -> int | None:
        """How many ranks a job has that names no number; None if it must name one."""
        return None

    def check(self, spec: JobSpec) -> None:
        """Raise HvdtoolsError if the job cannot be right on any machine."""

    # A job that is submitted.

    def submits(self, machine: Machine) -> bool:
        """True if the job is submitted and runs later; False if its ranks start from here."""
        return self.name not in machine.allocations

    def submission(self, spec: JobSpec, machine: Machine) -> Submission:
        """The batch script, manifest or request, and the program that takes it. Pure.

        Raises:
            HvdtoolsError: The job asks for what this scheduler does not offer.
        """
        raise NotImplementedError

    def submit(self, submission: Submission) -> str:
        """Submit a job and return its number, or what the scheduler answers.

        Raises:
            HvdtoolsError: Its program is not on this machine, or refuses the job.
        """
        if shutil.which(submission.argv[0]) is None:
            raise HvdtoolsError(
                f"There is no {submission.argv[0]} on this machine, and {submission.program} takes "
                "the job: run this where it is, or keep the text with --dry-run or --save FILE."
            )
        # A file and not a pipe: the AWS command line opens what it reads twice.
        with tempfile.TemporaryFile("w+") as document:
            document.write(submission.document)
            document.seek(0)
            done = subprocess.run(
                submission.argv, stdin=document, capture_output=True, text=True, errors="replace"
            )
        if done.returncode != 0:
            lines = (re.sub(r"^\w+: error: ", "", line) for line in done.stderr.splitlines())
            said = "; ".join(filter(None, map(str.strip, lines)))
            raise HvdtoolsError(
                f"{self.title} refuses the job: {said or f'exit code {done.returncode}'}"
            )
        return done.stdout.rstrip()

    def waits(self) -> bool:
        """True if the user asked to follow the job to its end."""
        return False

    def follow(
        self, job_id: str, on_line: Callable[[str], None], on_state: Callable[[str], None]
    ) -> int:
        """Wait for the end of a submitted job and return its exit code.

        SIGINT, SIGTERM and SIGHUP cancel the job while this runs in the main thread.

        Args:
            job_id: As `submit` returned it.
            on_line: Called with each line of the job's log.
            on_state: Called with a sentence whenever the job's state changes.
        """
        raise NotImplementedError

    def cancel(self, job_id: str) -> None:
        """Ask the scheduler to end a job."""
        raise NotImplementedError

    # A job whose ranks start from here.

    def require_room(self, spec: JobSpec, machine: Machine) -> None:
        """Raise HvdtoolsError if the ranks do not fit."""
        hosts = self.hosts(machine)
        if hosts is None:  # the launcher checks
            return
        require_slots(spec, hosts)
        per_node, nodes = spec.ranks_per_node, nodes_filled(spec, hosts)
        if (per_node is not None and not _are_filled_alike(spec, hosts, per_node)) or (
            spec.nodes not in (None, nodes)
        ):
            raise HvdtoolsError(
                f"{self.title} allocated {','.join(map(str, hosts))}, where {spec.ranks} ranks are "
                f"not on {spec.nodes or nodes} nodes with {per_node or 'as many'} each: change "
                "what is asked for, or leave out --nodes and --ranks-per-node."
            )

    def choose_launcher(self, spec: JobSpec, machine: Machine) -> str | None:
        """The launcher to use here; None leaves the choice to the planner.

        Raises:
            HvdtoolsError: An option is for a new job, or the launcher that the job names cannot
                start ranks here.
        """
        self.refuse_own_options(machine)
        return None

    def refuse_own_options(self, machine: Machine) -> None:
        """Raise HvdtoolsError if one of the scheduler's own options is set, inside its job."""
        for field in dataclasses.fields(self):
            if field.name != "wait" and getattr(self, field.name) != field.default:
                raise HvdtoolsError(
                    f"This is {self.title} job {machine.allocations[self.name].job_id}, and its "
                    f"ranks start here, while --{field.name.replace('_', '-')} is for a new job: "
                    "leave it out."
                )

    def hosts(self, machine: Machine) -> tuple[Host, ...] | None:
        """The hosts to reach by ssh; empty for this machine, None if the launcher knows them."""
        return machine.allocations[self.name].hosts

    def node_count(self, spec: JobSpec, machine: Machine) -> int | None:
        """How many nodes the ranks fill; None where only the scheduler knows."""
        return nodes_filled(spec, hosts) if (hosts := self.hosts(machine)) else spec.nodes

    def exit_code(self, outcome: Outcome) -> int:
        """The exit code that tells the scheduler how the ranks ended."""
        return outcome.exit_code

    def describe(self, machine: Machine) -> str:
        """Where the ranks run, for the line that tells the user ("on this machine")."""
        return f"in {self.title} job {machine.allocations[self.name].job_id}"


def nodes_filled(spec: JobSpec, hosts: tuple[Host, ...]) -> int:
    """How many of the hosts get a rank."""
    if spec.distribution == "cyclic":
        return min(spec.ranks, len(hosts))
    left = spec.ranks
    for number, host in enumerate(hosts, start=1):
        left -= host.slots
        if left <= 0:
            return number
    return len(hosts)


def _are_filled_alike(spec: JobSpec, hosts: tuple[Host, ...], per_node: int) -> bool:
    """True if every node gets `per_node` ranks, and the last one at most as many."""
    if spec.distribution == "cyclic":
        return spec.ranks <= per_node * len(hosts)
    left, counts = spec.ranks, []
    for host in hosts:
        counts.append(min(left, host.slots))
        left -= counts[-1]
    filled = [count for count in counts if count]
    return all(count == per_node for count in filled[:-1]) and filled[-1] <= per_node


def require_slots(spec: JobSpec, hosts: tuple[Host, ...]) -> None:
    """Raise HvdtoolsError if the ranks are more than the hosts' slots."""
    slots = sum(host.slots for host in hosts)
    if not slots:
        raise HvdtoolsError(
            f"The nodes that were allocated have no slot for a rank of {spec.cpus_per_rank or 1} "
            "cores: request more slots on each node, or fewer --cpus-per-rank."
        )
    if spec.ranks > slots:
        raise HvdtoolsError(
            f"{spec.ranks} ranks are more than the {slots} slots of "
            f"{','.join(map(str, hosts))}: use -n {slots} or fewer, or give the hosts more slots."
        )
