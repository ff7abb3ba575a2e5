"""Every option of `hvdtools launch`: flags, help and job files are made from this table."""

from __future__ import annotations

from hvdtools.launch.option import LAUNCHER_NAMES, TARGETS, Option
from hvdtools.launch.schedulers.kubernetes import target as kubernetes
from hvdtools.launch.schedulers.sagemaker import target as sagemaker
from hvdtools.launch.schedulers.slurm import target as slurm
from hvdtools.launch.spec import BINDINGS, DISTRIBUTIONS

_HERE = ("local", "hosts")
_RANKS = ("local", "hosts", "slurm")
_ALLOCATED = ("slurm", "kubernetes", "sagemaker")
_WHAT = "What"
_WHERE = "Where"
_HOW = "How"

# Names of options in 0.1.
RENAMED = {"with": "launcher"}
GENERAL = (
    Option("ranks", int, "How many ranks to start in all.", _WHAT, "N", flags=("-n",)),
    Option("nodes", int, "How many nodes to ask for.", _WHAT, "N", ("local", *_ALLOCATED)),
    Option("ranks-per-node", int, "Ranks on each node.", _WHAT, "N"),
    Option(
        "gpus-per-node", int, "GPUs on each node, one for each local rank.", _WHAT, "N", _ALLOCATED
    ),
    Option("cpus-per-rank", int, "CPU cores, and OpenMP threads, for each rank.", _WHAT, "N"),
    Option("env", tuple, "A variable for every rank; may be repeated.", _WHAT, "NAME[=VALUE]"),
    Option("name", str, "The job's name where it is submitted.", _WHAT, "NAME", _ALLOCATED),
    Option("timeout", float, "End the job after so long, with exit code 124.", _WHAT, "SECONDS"),
    Option("restarts", int, "Start it again so often when it fails.", _WHAT, "N"),
    Option("log-dir", str, "A folder for a file of output a rank.", _WHAT, "DIR", _RANKS),
    Option("on", str, f"Where: {', '.join(TARGETS)}.", _WHERE, "TARGET"),
    Option("hosts", str, "Hosts and their slots, reached by ssh.", _WHERE, "A:4,B:4", ("hosts",)),
    Option("hostfile", str, "The same from a file, one on a line.", _WHERE, "FILE", ("hosts",)),
    Option("interface", str, "The network interface to talk over.", _WHERE, "NAME"),
    Option("launcher", str, f"Who starts ranks: {', '.join(LAUNCHER_NAMES)}.", _HOW, "LAUNCHER"),
    Option("mpirun", str, "The mpirun to start with.", _HOW, "PATH", _HERE),
    Option(
        "distribution",
        str,
        f"Ranks over nodes: {', '.join(DISTRIBUTIONS)}.",
        _HOW,
        "KIND",
        ("hosts", "slurm"),
    ),
    Option("bind", str, f"Bind ranks to: {', '.join(BINDINGS)}.", _HOW, "KIND", _RANKS),
    Option("show-binding", bool, "Show each rank's cores and GPU.", _HOW, on=_RANKS),
    Option("oversubscribe", bool, "Allow more ranks than CPU cores.", _HOW, on=("local",)),
    Option("pass", tuple, "An option for the launcher, as it is; may be repeated.", _HOW, "WORD",
           _RANKS),
)  # fmt: skip

OPTIONS = (*GENERAL, *slurm.OPTIONS, *kubernetes.OPTIONS, *sagemaker.OPTIONS)


def merged() -> tuple[Option, ...]:
    """The options by name: one that several targets have is one flag, and names them all."""
    found: dict[str, Option] = {}
    for option in OPTIONS:
        known = found.get(option.name)
        if known is None:
            found[option.name] = option
            continue
        assert known.kind is option.kind, option.name
        on = tuple(dict.fromkeys((*known.on, *option.on)))
        found[option.name] = Option(
            option.name, option.kind, known.help, known.panel, known.metavar, on, known.flags
        )
    return tuple(found.values())
