"""Slurm's srun as the launcher of the ranks, inside an allocation: its options, its words."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.machine import Machine
from hvdtools.launch.outcome import Failure
from hvdtools.launch.spec import JobSpec

# Before each line of a rank under --label, as wide as the last rank's number: " 3: ".
_TAG = re.compile(r"^ *(?P<rank>\d+): ")

# "srun: error: host1: tasks 0-1,3: Exited with exit code 3", "...: task 2: Killed".
_ENDED = re.compile(r"^srun: error: [^\s:]+: tasks? ([\d,-]+): (.+)$", re.MULTILINE)
_EXITED = re.compile(r"Exited with exit code (\d+)")

# What Slurm says of a signal is the C library's text for it.
_CODES: dict[str | None, int] = {
    **{signal.strsignal(number): 128 + number for number in signal.valid_signals()},
    "Out Of Memory": 128 + signal.SIGKILL,
}


def usable(spec: JobSpec, machine: Machine) -> None:
    """Raise if this launcher cannot start the job here.

    Raises:
        HvdtoolsError: There is no srun, or the job is not on Slurm's nodes.
    """
    if spec.on.name != "slurm":
        raise HvdtoolsError(
            "srun starts ranks on nodes that Slurm allocates: add --on slurm, or use "
            "--launcher mpirun."
        )
    _program(machine)
    if spec.on.name not in machine.allocations:
        raise HvdtoolsError(
            "srun starts ranks inside a Slurm job, and this process is not in one: use salloc "
            "first, or submit the job with --on slurm."
        )


def _program(machine: Machine) -> str:
    if machine.srun is None:
        raise HvdtoolsError(
            "There is no srun on PATH: run this where Slurm is installed, or use --launcher mpirun."
        )
    return machine.srun


def environment(spec: JobSpec, machine: Machine) -> tuple[tuple[str, str], ...]:
    """The variables that every job under srun has, as (name, value)."""
    del spec, machine
    # Without it a rank's Python holds its lines back until 8 KiB have gathered.
    return (("PYTHONUNBUFFERED", "1"),)


def tokens(spec: JobSpec, machine: Machine, names: tuple[str, ...]) -> tuple[str, ...]:
    """The command line; srun hands its whole environment on, so `names` is not needed.

    Ranks find each other through Slurm's PMI2, which every Slurm has. They are bound to no
    core: a rank that has but one stalls Horovod's background thread, and `--bind` binds by
    itself. GPUs are asked for by node, since `--gpus-per-task` hides those of the other ranks
    from NCCL.

    Raises:
        HvdtoolsError: There is no srun.
    """
    del names
    return (
        _program(machine),
        *("--kill-on-bad-exit=1", "--label", "--mpi=pmi2", "--cpu-bind=none"),
        *size(spec),
        *spec.pass_on,
        *spec.command,
    )


def size(spec: JobSpec) -> tuple[str, ...]:
    """The options that srun and sbatch share: how many ranks, where, and with what."""
    wanted = {
        "nodes": spec.nodes,
        # Said in any case: a step of fewer ranks than its job would inherit the job's number.
        "ntasks": spec.ranks,
        "ntasks-per-node": spec.ranks_per_node,
        "cpus-per-task": spec.cpus_per_rank,
        "gpus-per-node": spec.gpus_per_node,
        "distribution": None if spec.distribution == "block" else spec.distribution,
    }
    # From Slurm 22.05 on srun does not ask for --cpus-per-task because sbatch or salloc did.
    return tuple(f"--{name}={value}" for name, value in wanted.items() if value is not None)


def tag(argv: tuple[str, ...]) -> re.Pattern[str]:
    """What stands before a rank's text in the output of this command line."""
    del argv
    return _TAG


def failures(words: str, exit_code: int) -> tuple[Failure, ...]:
    """The ranks that failed, in the order in which srun heard of them.

    Args:
        words: All that srun said itself.
        exit_code: srun's, which is the highest of its ranks', so of no use.
    """
    del exit_code
    return tuple(
        Failure(rank, code)
        for ranks, how in _ENDED.findall(words)
        if (code := _code(how)) is not None
        for rank in _ranks(ranks)
    )


def _code(how: str) -> int | None:
    if exited := _EXITED.fullmatch(how):
        return int(exited[1])
    return _CODES.get(how.removesuffix(" (core dumped)"))


def _ranks(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
