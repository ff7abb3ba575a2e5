"""From values, of flags and of a job file, to a `JobSpec`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.launch.hosts import Host, read_hostfile, read_hosts
from hvdtools.launch.option import TARGETS, Option
from hvdtools.launch.options import merged
from hvdtools.launch.spec import Hosts, JobSpec, Kubernetes, Local, SageMaker, Slurm, Target

Values: TypeAlias = Mapping[str, Any]

_BY_NAME = {option.name: option for option in merged()}
_TARGETS: dict[str, type[Slurm] | type[Kubernetes] | type[SageMaker]] = {
    "slurm": Slurm,
    "kubernetes": Kubernetes,
    "sagemaker": SageMaker,
}
_AS_THEY_ARE = (
    "nodes", "ranks_per_node", "gpus_per_node", "cpus_per_rank", "distribution", "bind",
    "show_binding", "interface", "name", "restarts", "oversubscribe",
)  # fmt: skip


def compose(values: Values, command: tuple[str, ...], environ: Mapping[str, str]) -> JobSpec:
    """The job that the values say.

    Args:
        values: Option name -> its value, of the option's kind; only those that were given.
        command: What every rank runs.
        environ: Where the values of `--env NAME` come from.

    Raises:
        HvdtoolsError: An option does not concern the target, or a value cannot be right.
    """
    on = _target_name(values)
    _refuse_strangers(values, on)
    target = _target(values, on)
    fields = {option.replace("-", "_"): value for option, value in values.items()}
    return JobSpec(
        command=command,
        ranks=_ranks(values, target),
        launcher=values.get("launcher", "auto"),
        env=read_env(values.get("env", ()), environ),
        on=target,
        timeout_s=values.get("timeout"),
        log_dir=Path(values["log-dir"]) if "log-dir" in values else None,
        pass_on=tuple(values.get("pass", ())),
        **{name: fields[name] for name in _AS_THEY_ARE if name in fields},
    )


def _target_name(values: Values) -> str:
    named = any(name in values for name in ("hosts", "hostfile"))
    on = str(values.get("on", "hosts" if named else "local"))
    if on not in TARGETS:
        raise unknown_name("target", on, TARGETS)
    return on


def _refuse_strangers(values: Values, on: str) -> None:
    for name in values:
        option = _BY_NAME[name]
        if on not in option.on:
            raise HvdtoolsError(
                f"{spelled(option)} is for --on {' and --on '.join(option.on)}, and this job is on "
                f"{on}: leave it out, or change --on."
            )


def spelled(option: Option) -> str:
    """The flag as a user writes it."""
    return f"--{option.name}"


def _target(values: Values, on: str) -> Target:
    if on == "local":
        return Local()
    if on == "hosts":
        return Hosts(_hosts(values))
    kind = _TARGETS[on]
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{_field(n): value for n, value in values.items() if _field(n) in names})


def _field(option: str) -> str:
    return option.replace("-", "_")


def _hosts(values: Values) -> tuple[Host, ...]:
    if "hosts" in values and "hostfile" in values:
        raise HvdtoolsError("--hosts and --hostfile both name the hosts: use one of them.")
    slots = values.get("ranks-per-node")
    if "hostfile" in values:
        return read_hostfile(Path(values["hostfile"]), slots)
    return read_hosts(values["hosts"], slots) if "hosts" in values else ()


def _ranks(values: Values, target: Target) -> int:
    if "ranks" in values:
        return int(values["ranks"])
    if isinstance(target, Hosts):
        return sum(host.slots for host in target.hosts)
    per_node = values.get("ranks-per-node")
    if per_node is not None:
        return int(values.get("nodes", 1)) * int(per_node)
    raise HvdtoolsError(
        "Say how many ranks to start, as in `hvdtools launch -n 2 -- python train.py`, or with "
        "--nodes and --ranks-per-node."
    )


def read_env(words: tuple[str, ...], environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The values of --env NAME=VALUE and --env NAME, which hands on the caller's own.

    Raises:
        HvdtoolsError: A variable that is named alone is not set.
    """
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name not in environ:
            raise HvdtoolsError(
                f"--env {name} hands on a variable that is not set here: set it, or write "
                f"--env {name}=VALUE."
            )
        pairs.append((name, value if equals else environ[name]))
    return tuple(pairs)
