"""Every option of `hvdtools launch`: flags, help and job files are made from this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from hvdtools.launch import launchers
from hvdtools.launch.scheduler import Option
from hvdtools.launch.schedulers import REGISTRY, all_schedulers
from hvdtools.launch.spec import BINDINGS, DISTRIBUTIONS

_WHAT = "What"
_WHERE = "Where"
_HOW = "How"

# Names of options in 0.1.
RENAMED = {"with": "launcher"}


@cache
def general_options() -> tuple[Option, ...]:
    """The options that do not belong to a scheduler."""
    where, who = ", ".join(REGISTRY.names()), ", ".join(launchers.choices())
    return (
        Option("ranks", int, "How many ranks to start in all.", _WHAT, "N", ("-n",)),
        Option("nodes", int, "How many nodes to ask for.", _WHAT, "N"),
        Option("ranks-per-node", int, "Ranks on each node.", _WHAT, "N"),
        Option("gpus-per-node", int, "GPUs on each node, one for each local rank.", _WHAT, "N"),
        Option("cpus-per-rank", int, "CPU cores, and OpenMP threads, for each rank.", _WHAT, "N"),
        Option("env", tuple, "A variable for every rank; may be repeated.", _WHAT, "NAME[=VALUE]"),
        Option("name", str, "The job's name where it is submitted.", _WHAT, "NAME"),
        Option("timeout", float, "End the job after this time, exit code 124.", _WHAT, "SECONDS"),
        Option("restarts", int, "Start it again so often when it fails.", _WHAT, "N"),
        Option("log-dir", str, "A folder for one output file per rank.", _WHAT, "DIR"),
        Option("on", str, f"Where: {where}.", _WHERE, "SCHEDULER"),
        Option("interface", str, "The network interface to talk over.", _WHERE, "NAME"),
        Option("launcher", str, f"Who starts ranks: {who}.", _HOW, "LAUNCHER"),
        Option("mpirun", str, "The mpirun to start with.", _HOW, "PATH"),
        Option("distribution", str, f"Ranks over nodes: {', '.join(DISTRIBUTIONS)}.", _HOW, "KIND"),
        Option("bind", str, f"Bind ranks to: {', '.join(BINDINGS)}.", _HOW, "KIND"),
        Option("show-binding", bool, "Show each rank's cores and GPU.", _HOW),
        Option("oversubscribe", bool, "Allow more ranks than CPU cores.", _HOW),
        Option("pass", tuple, "An option for the launcher; may be repeated.", _HOW, "WORD"),
    )


@cache
def all_options() -> Mapping[str, Option]:
    """Name -> option. One that several schedulers have is one flag, in a panel of its own."""
    own: dict[str, Option] = {}
    shared: dict[str, Option] = {}
    for each in all_schedulers():
        for option in each.options():
            known = own.setdefault(option.name, option)
            assert known.kind is option.kind, option.name
            if known.panel != option.panel:
                shared[option.name] = replace(known, panel="Several schedulers")
    return {**{each.name: each for each in general_options()}, **shared, **own, **shared}


@cache
def schedulers_with(name: str) -> tuple[str, ...]:
    """The schedulers that have this option as their own; all of them for a general one."""
    if any(option.name == name for option in general_options()):
        return REGISTRY.names()
    return tuple(
        each.name for each in all_schedulers() if name in {option.name for option in each.options()}
    )
