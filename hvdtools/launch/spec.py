"""A job, said once: what to run in how many ranks, where, and how."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.launch import launchers
from hvdtools.launch.scheduler import Scheduler
from hvdtools.launch.schedulers.local import LOCAL

BINDINGS = ("none", "cores", "numa", "gpu")
DISTRIBUTIONS = ("block", "cyclic")

# The tools that hand variables on read any other name as an option or as a word of shell.
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTERFACE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class JobSpec:
    """A job, checked when it is made.

    Attributes:
        command: What every rank runs, as words; no shell reads them.
        ranks: How many processes to start in all, 1 or more.
        launcher: Who starts them: one of `launchers.choices()`; "auto" chooses.
        env: Extra variables for every rank, as (name, value).
        oversubscribe: Allow more ranks than slots (CPU cores here, or those of the hosts).
        on: The scheduler that allocates its nodes.
        nodes: How many nodes to ask for; None leaves it to who allocates them.
        ranks_per_node: Ranks on each of them; None leaves it to who allocates them.
        gpus_per_node: GPUs to ask for on each node; None asks for none.
        cpus_per_rank: CPU cores for each rank; None leaves it to the launcher.
        distribution: "block" fills a node before the next; "cyclic" deals ranks out in turn.
        bind: What to bind each rank to: "none", "cores", "numa" (a NUMA node's part), or "gpu"
            (the cores next to its GPU).
        show_binding: Let each rank say which cores and which GPU it has.
        interface: The network interface that ranks talk over; None leaves it to them.
        name: The job's name where it is submitted.
        timeout_s: End the job after so long.
        restarts: How often to start it again when it fails.
        log_dir: A folder for one file of output a rank.
        pass_on: Options for the launcher, as they are.

    Raises:
        HvdtoolsError: A field cannot be right anywhere, or two contradict each other.
    """

    command: tuple[str, ...]
    ranks: int
    launcher: str = "auto"
    env: tuple[tuple[str, str], ...] = ()
    oversubscribe: bool = False
    on: Scheduler = LOCAL
    nodes: int | None = None
    ranks_per_node: int | None = None
    gpus_per_node: int | None = None
    cpus_per_rank: int | None = None
    distribution: str = "block"
    bind: str = "none"
    show_binding: bool = False
    interface: str | None = None
    name: str | None = None
    timeout_s: float | None = None
    restarts: int = 0
    log_dir: Path | None = None
    pass_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for problem in (*_of_numbers(self), *_of_names(self), *_of_command(self)):
            raise problem
        self.on.check(self)


def _of_numbers(spec: JobSpec) -> Iterator[HvdtoolsError]:
    if spec.ranks < 1:
        yield HvdtoolsError(
            f"{spec.ranks} ranks cannot train anything: ask for one or more, as in -n 2."
        )
    for name in ("nodes", "ranks_per_node", "cpus_per_rank", "gpus_per_node"):
        value = getattr(spec, name)
        if value is not None and value < (name != "gpus_per_node"):
            yield HvdtoolsError(
                f"--{name.replace('_', '-')} {value} is too few: give a whole number above it."
            )
    if spec.nodes is not None and spec.ranks_per_node is not None:
        if spec.nodes * spec.ranks_per_node != spec.ranks:
            yield HvdtoolsError(
                f"{spec.nodes} nodes x {spec.ranks_per_node} ranks are not {spec.ranks} ranks: "
                "leave out -n, --nodes or --ranks-per-node."
            )
    elif spec.nodes is not None and spec.nodes > spec.ranks:
        yield HvdtoolsError(
            f"{spec.ranks} ranks leave some of {spec.nodes} nodes without any: use fewer nodes."
        )
    if spec.timeout_s is not None and not 0 < spec.timeout_s < float("inf"):
        yield HvdtoolsError(
            f"--timeout must be a finite number of seconds above 0 (got {spec.timeout_s:g})."
        )
    if spec.restarts < 0:
        yield HvdtoolsError(f"--restarts must be 0 or more (got {spec.restarts}).")


def _of_names(spec: JobSpec) -> Iterator[HvdtoolsError]:
    for kind, name, known in (
        ("launcher", spec.launcher, launchers.choices()),
        ("binding", spec.bind, BINDINGS),
        ("distribution", spec.distribution, DISTRIBUTIONS),
    ):
        if name not in known:
            yield unknown_name(kind, name, known)
    for name, _ in spec.env:
        if not _VARIABLE_NAME.fullmatch(name):
            yield HvdtoolsError(
                f"{name!r} is not a name for an environment variable: write --env NAME=VALUE, "
                "or --env NAME to hand on a variable that is set."
            )
    if spec.interface is not None and not _INTERFACE_NAME.fullmatch(spec.interface):
        yield HvdtoolsError(
            f"{spec.interface!r} is not the name of a network interface: `ip link` lists them."
        )


def _of_command(spec: JobSpec) -> Iterator[HvdtoolsError]:
    if not spec.command or not spec.command[0]:
        yield HvdtoolsError(
            "There is no command to run: put it last, as in "
            "`hvdtools launch -n 2 -- python train.py`."
        )
    texts = (*spec.command, *(value for _, value in spec.env), *spec.pass_on)
    if any("\0" in text for text in texts):
        yield HvdtoolsError(
            "The command or a variable holds a NUL character, which no program can be given: "
            "remove it."
        )


# The options that do not have their field's name.
_OPTIONS = {"timeout_s": "timeout", "pass_on": "pass"}


def refuse_unsupported(kind: type[Scheduler], *options: str) -> None:
    """Raise HvdtoolsError if the scheduler cannot follow one of these options ("log_dir")."""
    for option in options:
        if reason := kind.unsupported.get(option):
            raise HvdtoolsError(
                f"--{option.replace('_', '-')} does not apply to --on {kind.name}: {reason}."
            )


def options_of(spec: JobSpec) -> tuple[str, ...]:
    """The options that the job sets, as Python spells them."""
    return tuple(
        _OPTIONS.get(field.name, field.name)
        for field in dataclasses.fields(spec)
        if getattr(spec, field.name) != field.default
    )
