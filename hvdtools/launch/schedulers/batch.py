"""What PBS and Grid Engine share: `qsub`, and a script that calls `hvdtools launch` on the nodes.

The script becomes `hvdtools launch --on SCHEDULER`, which finds the nodes that were allocated and
starts the ranks there by ssh. Its exit code is the job's.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.text import count_noun
from hvdtools.launch.plan import Submission
from hvdtools.launch.run import SAVE_AT
from hvdtools.launch.scheduler import Scheduler, own_option
from hvdtools.launch.schedulers.submitted import layout, refuse_broken_text
from hvdtools.launch.spec import JobSpec

if TYPE_CHECKING:
    from hvdtools.launch.machine import Machine

SIGNAL_S = 120

_TIME = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", re.ASCII)


@dataclass(frozen=True)
class QsubScheduler(Scheduler):
    """A scheduler whose jobs `qsub` takes. A subclass has `directives`, `lines` and how jobs end.

    Attributes:
        instead: Beginning of an option of qsub that has its own flag -> what to use.
        argv: The command that takes the script on its standard input.

    Raises:
        HvdtoolsError: A value cannot be right.
    """

    account: str | None = own_option("The account to charge.", "NAME")
    queue: str | None = own_option("The queue.", "NAME")
    time: str | None = own_option("The time limit, HH:MM:SS.", "TIME")
    array: str | None = own_option("Run once on each of these numbers of nodes.", "1,2,4")
    signal: int = own_option(
        f"Tell ranks to save so long before the limit ({SIGNAL_S}).",
        *("SECONDS", int, SIGNAL_S),
    )
    qsub: tuple[str, ...] = own_option(
        "Any other option of qsub, as in '-W group_list=ml'; may be repeated.",
        *("OPTION", tuple, ()),
    )
    wait: bool = own_option("Follow the job and return its exit code.", "", bool, False)

    instead: ClassVar[Mapping[str, str]] = {}
    argv: ClassVar[tuple[str, ...]] = ("qsub",)

    def __post_init__(self) -> None:
        for option in ("account", "queue"):
            one_word(f"--{option}", getattr(self, option))
        if self.time is not None:
            seconds_of(self.time)
        node_counts(self.array)
        if self.signal < 1:
            raise HvdtoolsError(f"--signal must be 1 second or more (got {self.signal}).")
        check_passed(self.qsub, self.instead)

    def submission(self, spec: JobSpec, machine: Machine) -> Submission:
        from hvdtools.launch.planner import rank_command

        refuse_broken_text(spec)
        if spec.launcher not in ("auto", "mpirun", "horovodrun"):
            raise HvdtoolsError(
                f"--launcher {spec.launcher} cannot start ranks under {self.title}: use mpirun or "
                "horovodrun."
            )
        counts = node_counts(self.array)
        if counts:
            if spec.ranks_per_node is None:
                raise HvdtoolsError("--array needs --ranks-per-node: each element has other ranks.")
            if spec.nodes not in (None, 1, max(counts)):
                raise HvdtoolsError(
                    f"--array {self.array} asks for {max(counts)} nodes at most, and --nodes for "
                    f"{spec.nodes}: leave out --nodes."
                )
            size = Size(max(counts), spec.ranks_per_node, max(counts) * spec.ranks_per_node, counts)
            note = f"{size.per_node} ranks per node on {self.array} nodes"
        else:
            nodes, per_node = layout(spec)
            size = Size(nodes, per_node, spec.ranks)
            note = f"{count_noun(spec.ranks, 'rank')} on {count_noun(nodes, 'node')}"
        time_s = limit_s(self.time, spec, self.signal)
        return Submission(
            document=script(
                dataclasses.replace(
                    spec,
                    command=rank_command(spec, machine),
                    nodes=None if counts else spec.nodes,
                ),
                self.name,
                machine.python,
                self.directives(spec, size, time_s),
                (*alarm(time_s, self.signal), *self.lines(spec, size)),
                f"$((hvdtools_nodes * {size.per_node}))" if counts else str(spec.ranks),
            ),
            argv=self.argv,
            program=f"{self.title}'s qsub",
            on=self.name,
            ranks=spec.ranks,
            note=f"{note} under {self.title}",
        )

    def directives(self, spec: JobSpec, size: Size, time_s: int | None) -> Iterator[str]:
        """The script's directives, whole lines.

        Args:
            spec: The job.
            size: What to allocate.
            time_s: The time limit; None for that of the queue.
        """
        raise NotImplementedError

    def lines(self, spec: JobSpec, size: Size) -> Iterator[str]:
        """What the script's shell does before the ranks start; sets `hvdtools_nodes` in a sweep."""
        raise NotImplementedError

    def waits(self) -> bool:
        return self.wait


@dataclass(frozen=True)
class Size:
    """What a job allocates.

    Attributes:
        nodes: How many nodes.
        per_node: Ranks on each of them; the last may have fewer.
        ranks: All of them.
        counts: The node counts of a sweep; empty where there is none.
    """

    nodes: int
    per_node: int
    ranks: int
    counts: tuple[int, ...] = ()


def seconds_of(time: str) -> int:
    """A time limit, "HH:MM:SS" or "D-HH:MM:SS", in seconds.

    A plain number is refused: Slurm takes it for minutes, and PBS and Grid Engine for seconds.

    Raises:
        HvdtoolsError: It is written in another way, or is 0.
    """
    found = _TIME.fullmatch(time)
    if found is None:
        raise HvdtoolsError(f"--time {time} is not understood: write hours:minutes:seconds.")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total_s == 0:
        raise HvdtoolsError(f"--time {time} leaves no time to run: give more than 0.")
    return total_s


def limit_s(time: str | None, spec: JobSpec, signal_s: int) -> int | None:
    """The job's time limit in seconds, from --time or --timeout; None without one.

    Raises:
        HvdtoolsError: Both are given, or the time to save begins before training does.
    """
    if time is not None and spec.timeout_s is not None:
        raise HvdtoolsError("--time and --timeout both limit the job's time: use one of them.")
    if spec.timeout_s is not None:
        found, option = int(-(-spec.timeout_s // 1)), f"--timeout {spec.timeout_s:g}"
    elif time is not None:
        found, option = seconds_of(time), f"--time {time}"
    else:
        return None
    if found <= signal_s:
        raise HvdtoolsError(
            f"{option} is over before training begins, as ranks are told to save {signal_s} s "
            "before: give more time, or a smaller --signal."
        )
    return found


def alarm(limit_s: int | None, signal_s: int) -> tuple[str, ...]:
    """The line that sets when ranks are told to save; none without a time limit."""
    if limit_s is None:
        return ()
    return (f"export {SAVE_AT}=$(($(date +%s) + {limit_s - signal_s}))",)


def clock(seconds: int) -> str:
    """Seconds as HH:MM:SS."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def one_word(option: str, value: str | None) -> None:
    """Raise HvdtoolsError if the option's value is not one word, which a directive needs."""
    if value is not None and not re.fullmatch(r"[^\s\0\"']+", value):
        raise HvdtoolsError(f"{option} {value!r} is not one word: correct it.")


def node_counts(array: str | None) -> tuple[int, ...]:
    """The node counts of a sweep, `--array 1,2,4`; empty for None.

    Raises:
        HvdtoolsError: It is not a list of different node counts.
    """
    if array is None:
        return ()
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", array, re.ASCII):
        raise HvdtoolsError(
            f"--array {array} is not a list of node counts: write it as in --array 1,2,4."
        )
    counts = tuple(int(count) for count in array.split(","))
    if len(set(counts)) < len(counts):
        raise HvdtoolsError(f"--array {array} names a node count twice: name each once.")
    return counts


def check_passed(words: Iterable[str], instead: Mapping[str, str]) -> None:
    """Check --qsub words, options of qsub as they stand behind the directive's prefix.

    Args:
        words: "-W group_list=ml".
        instead: Beginning of an option -> what to use instead.

    Raises:
        HvdtoolsError: One is not an option on one line, or has a flag of its own.
    """
    for word in words:
        if not re.fullmatch(r"-[^\0\r\n]+", word):
            raise HvdtoolsError(
                f"--qsub {word!r} is not understood: write an option of qsub on one line, as in "
                "--qsub '-W group_list=ml'."
            )
        for known, better in instead.items():
            if re.match(rf"{re.escape(known)}(?![\w-])", " ".join(word.split())):
                raise HvdtoolsError(f"--qsub {word!r} has its own option: {better}.")


def quoted(word: str) -> str:
    """A word for the shell, on one line: Grid Engine reads directives from every line."""
    if not re.search(r"[\r\n]", word):
        return shlex.quote(word)
    escapes = {"\\": "\\\\", "'": "\\'", "\r": "\\r", "\n": "\\n"}
    return f"$'{''.join(escapes.get(character, character) for character in word)}'"


def script(
    spec: JobSpec,
    scheduler: str,
    python: str,
    directives: Iterable[str],
    lines: Iterable[str],
    ranks: str,
) -> str:
    """The batch script.

    Args:
        spec: What runs; `spec.command` as a rank runs it.
        scheduler: Its name, for `--on`.
        python: The interpreter that has hvdtools, on every node.
        directives: Whole lines.
        lines: What the shell does before the ranks start.
        ranks: Their number, in the shell's words ("8", "$((nodes * 4))").
    """
    launch = (python, "-m", "hvdtools", "launch", "--on", scheduler)
    return "\n".join(
        (
            "#!/bin/bash",
            *directives,
            "",
            "set -uo pipefail",
            *lines,
            *(f"export {name}={quoted(value)}" for name, value in spec.env),
            # The mpirun or horovodrun next to it belongs to its Horovod.
            f'export PATH={quoted(python.rpartition("/")[0])}:"$PATH"',
            f"exec {' '.join(map(quoted, launch))} \\",
            f"    {' '.join((f'-n {ranks}', *map(quoted, _options(spec))))} \\",
            f"    -- {' '.join(map(quoted, spec.command))}",
            "",
        )
    )


def _options(spec: JobSpec) -> tuple[str, ...]:
    """The options of a launch inside the allocation: those that concern its ranks."""
    given: list[str] = []
    values: dict[str, object] = {
        "--nodes": spec.nodes,
        "--ranks-per-node": spec.ranks_per_node,
        "--launcher": None if spec.launcher == "auto" else spec.launcher,
        "--distribution": None if spec.distribution == "block" else spec.distribution,
        "--cpus-per-rank": spec.cpus_per_rank,
        "--interface": spec.interface,
        "--log-dir": spec.log_dir,
        "--restarts": spec.restarts or None,
    }
    for option, value in values.items():
        if value is not None:
            given += [option, str(value)]
    for name, _ in spec.env:
        given += ["--env", name]
    for word in spec.pass_on:
        given += [f"--pass={word}"]
    return tuple(given)
