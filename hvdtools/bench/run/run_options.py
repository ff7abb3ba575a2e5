"""What `hvdtools bench run` does with its flags: a suite, a place, a run new or resumed."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from hvdtools.bench.results.result_file import FILE_NAME, new_run_id, read
from hvdtools.bench.run.placement import Placement, inside_slurm
from hvdtools.bench.run.runner import now_utc
from hvdtools.bench.suite.suite_file import Suite, load
from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.launch.hosts import read_hosts
from hvdtools.launch.schedulers.local import LOCAL, Local
from hvdtools.launch.schedulers.slurm.request import Slurm
from hvdtools.launch.schedulers.ssh import Hosts

PLACES = ("local", "hosts", "slurm")


@dataclass(frozen=True)
class Flags:
    """The flags of `hvdtools bench run`, as they were given; None where they were not."""

    suite: str
    out: Path | None = None
    repeats: int | None = None
    ranks: str | None = None
    nodes: str | None = None
    ranks_per_node: int | None = None
    on: str | None = None
    hosts: str | None = None
    interface: str | None = None
    oversubscribe: bool = False
    sbatch: tuple[str, ...] = ()
    resume: bool = False
    run: str | None = None


def suite_of(flags: Flags) -> Suite:
    """The suite, with what the flags say instead.

    Raises:
        HvdtoolsError: There is no such suite, or a flag does not fit it.
    """
    suite = load(flags.suite)
    changes: dict[str, object] = {}
    if flags.repeats is not None:
        changes["repeats"] = flags.repeats
    if flags.ranks is not None:
        changes["ranks"] = counts("--ranks", flags.ranks)
        if flags.nodes is None:
            changes["nodes"] = ()  # a suite for a cluster, measured on one machine
    if flags.nodes is not None:
        changes["nodes"] = counts("--nodes", flags.nodes)
    if flags.ranks_per_node is not None:
        changes["ranks_per_node"] = flags.ranks_per_node
        if not changes.get("nodes", suite.nodes):
            raise HvdtoolsError(
                "--ranks-per-node fills whole nodes, and no number of them is given: add "
                "--nodes 1,2."
            )
    changed = dataclasses.replace(suite, **changes)  # type: ignore[arg-type]
    _check_data(changed)
    return changed


def counts(flag: str, text: str) -> tuple[int, ...]:
    """The numbers of "1,2,4", rising; none of "none".

    Raises:
        HvdtoolsError: It is something else.
    """
    if text == "none":
        return ()
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise HvdtoolsError(f"{flag} {text} is not a list of numbers: write it as in {flag} 1,2,4.")
    return tuple(sorted({int(word) for word in words}))


def placement_of(flags: Flags) -> Placement:
    """Where the cases start.

    Raises:
        HvdtoolsError: The flags contradict each other, or name no such place.
    """
    on = flags.on or ("hosts" if flags.hosts else "local")
    if on not in PLACES:
        raise unknown_name("place", on, PLACES)
    if (on == "hosts") != (flags.hosts is not None):
        raise HvdtoolsError("Name the hosts with --hosts a:4,b:4, and only with --on hosts.")
    if flags.oversubscribe and on != "local":
        raise HvdtoolsError(
            f"--oversubscribe is for --on local, and this suite runs on {on}: leave it out."
        )
    if flags.sbatch and on == "slurm" and inside_slurm():
        raise HvdtoolsError(
            "--sbatch is for a new Slurm job, and this is inside one: leave it out."
        )
    if flags.sbatch and on != "slurm":
        raise HvdtoolsError("--sbatch is for Slurm: add --on slurm.")
    if on == "hosts":
        where: Local | Hosts | Slurm = Hosts(read_hosts(flags.hosts or ""))
    else:
        where = Slurm() if on == "slurm" else LOCAL
    return Placement(where, flags.interface, flags.oversubscribe)


def run_id_of(flags: Flags, file: Path) -> str:
    """The run that is begun, or gone on with.

    Raises:
        HvdtoolsError: There is no such run to go on with.
    """
    if not flags.resume:
        return flags.run or new_run_id(now_utc())
    runs = list(dict.fromkeys(each.run_id for each in read(file).results))
    if flags.run is not None and flags.run not in runs:
        raise unknown_name("run", flags.run, runs)
    return flags.run or runs[-1]


def made(folder: Path) -> Path:
    """The folder of results, which is there on return and can be written to.

    Raises:
        HvdtoolsError: It cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HvdtoolsError(
            f"The folder {folder} cannot be made ({error.strerror}): choose another with --out."
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise HvdtoolsError(f"The folder {folder} cannot be written to: choose another with --out.")
    return folder


def newest(folder: Path) -> Path:
    """The folder in `folder` whose results are the newest.

    Raises:
        HvdtoolsError: There are none.
    """
    files = sorted(folder.glob(f"*/{FILE_NAME}"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise HvdtoolsError(
            f"There are no results in {folder}: run `hvdtools bench run demo`, or name a folder."
        )
    return files[-1].parent


def sbatch_words(flags: Flags) -> tuple[str, ...]:
    """What `--sbatch NAME[=VALUE]` asks of sbatch."""
    return tuple(f"--{word.lstrip('-')}" for word in flags.sbatch)


def words_again(flags: Flags) -> tuple[str, ...]:
    """The flags that a job of a Slurm run needs again."""
    return ("--interface", flags.interface) if flags.interface else ()


def _check_data(suite: Suite) -> None:
    """Say before the first case, not in each, that the images are missing."""
    missing = importlib.util.find_spec("sklearn") is None
    if missing and any(program.asked("data") == "digits" for program in suite.programs):
        raise HvdtoolsError(
            "The digits images come with scikit-learn, which is not installed: run "
            '`pip install scikit-learn`, or set data = "synthetic" in the suite.'
        )
