"""From values, of flags and of a job file, to a `JobSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.options import schedulers_with
from hvdtools.launch.scheduler import Scheduler
from hvdtools.launch.schedulers import scheduler
from hvdtools.launch.spec import JobSpec, refuse_unsupported

Values: TypeAlias = Mapping[str, Any]

_COPIED = (
    "nodes", "ranks_per_node", "gpus_per_node", "cpus_per_rank", "distribution", "bind",
    "show_binding", "interface", "name", "restarts", "oversubscribe",
)  # fmt: skip


def parse_options(values: Values, command: tuple[str, ...], environ: Mapping[str, str]) -> JobSpec:
    """The job that the options describe.

    Args:
        values: Option name -> its value, of the option's kind; only those that were given.
        command: What every rank runs.
        environ: Where the values of `--env NAME` come from.

    Raises:
        HvdtoolsError: An option does not apply to the scheduler, or a value cannot be right.
    """
    is_named = "hosts" in values or "hostfile" in values
    kind = scheduler(str(values.get("on", "hosts" if is_named else "local")))
    _refuse_foreign(values, kind)
    on = kind.from_values(values)
    fields = {option.replace("-", "_"): value for option, value in values.items()}
    return JobSpec(
        command=command,
        ranks=_ranks(values, on),
        launcher=values.get("launcher", "auto"),
        env=read_env(values.get("env", ()), environ),
        on=on,
        timeout_s=values.get("timeout"),
        log_dir=Path(values["log-dir"]) if "log-dir" in values else None,
        pass_on=tuple(values.get("pass", ())),
        **{name: fields[name] for name in _COPIED if name in fields},
    )


def _refuse_foreign(values: Values, kind: type[Scheduler]) -> None:
    for name in values:
        known = schedulers_with(name)
        if kind.name not in known:
            raise HvdtoolsError(
                f"--{name} is for --on {' and --on '.join(known)}, and this job is on "
                f"{kind.name}: leave it out, or change --on."
            )
        refuse_unsupported(kind, name.replace("-", "_"))


def _ranks(values: Values, on: Scheduler) -> int:
    if "ranks" in values:
        return int(values["ranks"])
    default = on.default_ranks()
    if default is not None:
        return default
    per_node = values.get("ranks-per-node")
    if per_node is not None:
        return int(values.get("nodes", 1)) * int(per_node)
    raise HvdtoolsError(
        "Say how many ranks to start, as in `hvdtools launch -n 2 -- python train.py`, or with "
        "--nodes and --ranks-per-node."
    )


def read_env(words: tuple[str, ...], environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The values of --env NAME=VALUE and --env NAME, which passes the caller's own value on.

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
