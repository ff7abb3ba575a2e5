"""From a job to a batch script that `sbatch` takes as it is. Pure.

launch/slurm.sbatch and launch/sweep.sbatch are the truth; this adds the job's own values.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.launchers.srun import size
from hvdtools.launch.plan import Submission
from hvdtools.launch.schedulers.slurm.request import SIGNAL_S, Slurm, seconds_of
from hvdtools.launch.schedulers.submitted import refuse_broken_text
from hvdtools.launch.spec import JobSpec

_SCRIPTS = Path(__file__).parents[2] / "scripts"
_SETTINGS = "# >>> `hvdtools launch` puts the job's own settings here <<<\n"
_REST = "# >>> the rest of the job <<<\n"
_DIRECTIVE = "#SBATCH "


def submission(spec: JobSpec, python: str) -> Submission:
    """The batch script for a job and the command that takes it in.

    Args:
        spec: With `spec.on` a `Slurm`.
        python: The interpreter that a leading `python` stands for; not in a container, which
            has its own.

    Raises:
        HvdtoolsError: The job asks for what Slurm or its launcher does not know.
    """
    assert isinstance(spec.on, Slurm), spec.on
    refuse_broken_text(spec)
    launcher = "srun" if spec.launcher == "auto" else spec.launcher
    if launcher == "horovodrun" and spec.distribution != "block":
        raise HvdtoolsError(
            f"horovodrun fills node after node and knows no --distribution {spec.distribution}: "
            "use --launcher srun."
        )
    directives = "".join(_directive(*each) for each in _directives(spec, spec.on))
    settings = "".join(f"{line}\n" for line in _settings(spec, spec.on, launcher, python))
    return Submission(
        document=_document(directives, settings, is_sweep=bool(spec.on.node_counts)),
        argv=("sbatch", "--parsable"),
        program="Slurm's sbatch",
        on="slurm",
        ranks=spec.ranks,
        note=_note(spec, spec.on, launcher),
    )


def _document(directives: str, settings: str, *, is_sweep: bool) -> str:
    job = (_SCRIPTS / "slurm.sbatch").read_text()
    if not is_sweep:
        return _filled(job, directives, settings)
    head = (_SCRIPTS / "sweep.sbatch").read_text().partition(_REST)[0]
    body = job[job.index("\n\n", job.rindex(_DIRECTIVE)) :].replace(_SETTINGS, "")
    return _filled(head, directives, settings) + body.lstrip("\n")


def _filled(script: str, directives: str, settings: str) -> str:
    # Of two lines that say the same sbatch takes the last.
    behind = script.index("\n", script.rindex(_DIRECTIVE)) + 1
    with_directives = script[:behind] + directives + script[behind:]
    assert with_directives.count(_SETTINGS) == 1
    return with_directives.replace(_SETTINGS, settings)


def _directives(spec: JobSpec, target: Slurm) -> Iterator[tuple[str, str]]:
    yield "--job-name", _job_name(spec)
    for option in _size(spec, target):
        name, _, value = option.partition("=")
        yield name, value
    for field in ("account", "partition", "qos", "constraint", "mail_type", "mail_user", "array"):
        value = getattr(target, field)
        if value is not None:
            yield f"--{field.replace('_', '-')}", value
    time = _time(spec, target)
    if time is not None:
        yield "--time", time
    if target.signal != SIGNAL_S:
        yield "--signal", f"B:USR1@{target.signal}"
    for word in target.sbatch:
        name, equals, value = word.partition("=")
        yield f"--{name}{equals}", value


def _directive(name: str, value: str) -> str:
    return f"{_DIRECTIVE}{name.removesuffix('=')}{_value(name, value)}\n"


def _value(name: str, value: str) -> str:
    if not value and not name.endswith("="):
        return ""
    if re.fullmatch(r"[\w@%+=:,./-]+", value, re.ASCII):
        return f"={value}"
    # sbatch's own parser knows double quotes, a backslash before any character, and nothing else.
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'="{escaped}"'


def _job_name(spec: JobSpec) -> str:
    name = spec.name or "hvdtools"
    if re.search(r"[\0\r\n]", name):
        raise HvdtoolsError(f"--name {name!r} is no single line of text: correct it.")
    return name


def _size(spec: JobSpec, target: Slurm) -> tuple[str, ...]:
    words = size(spec)
    if not target.node_counts:
        # Nodes and ranks a node say it already, and whoever changes --nodes means what follows.
        exactly = spec.nodes is not None and spec.ranks_per_node is not None
        return _without(("--ntasks=",), words) if exactly else words
    most = max(target.node_counts)
    if spec.ranks_per_node is None:
        raise HvdtoolsError(
            "A sweep over numbers of nodes needs to know how many ranks each of them has: add "
            "--ranks-per-node, and leave out -n."
        )
    if spec.nodes not in (None, 1, most):
        raise HvdtoolsError(
            f"--array {target.array} asks for {most} nodes at most, and --nodes for {spec.nodes}: "
            "leave out --nodes."
        )
    others = _without(("--nodes=", "--ntasks"), words)
    return (f"--nodes={most}", f"--ntasks-per-node={spec.ranks_per_node}", *others)


def _without(beginnings: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in words if not word.startswith(beginnings))


def _time(spec: JobSpec, target: Slurm) -> str | None:
    if spec.timeout_s is None:
        return target.time
    if target.time is not None:
        raise HvdtoolsError("--time and --timeout both say when to end the job: use one of them.")
    minutes = math.ceil(spec.timeout_s / 60)
    if seconds_of(str(minutes)) <= target.signal:
        raise HvdtoolsError(
            f"--timeout {spec.timeout_s:g} is over before training begins, as ranks are told to "
            f"save {target.signal} s before: give more time, or a smaller --signal."
        )
    return str(minutes)


def _settings(spec: JobSpec, target: Slurm, launcher: str, python: str) -> Iterator[str]:
    own = {
        "HVDTOOLS_LAUNCHER": launcher,
        "HVDTOOLS_CONTAINER": target.container,
        "HVDTOOLS_LOG_DIR": None if spec.log_dir is None else str(spec.log_dir),
        "HVDTOOLS_RESTARTS": str(spec.restarts) if spec.restarts else None,
        "HVDTOOLS_INTERFACE": spec.interface,
    }
    command = list(spec.command)
    if target.container is None:
        # The mpirun or horovodrun beside it is the one that belongs to its Horovod.
        yield f'export PATH={_quoted(str(Path(python).parent))}:"$PATH"'
        if command[0] in ("python", "python3"):
            command[0] = python
    for name, value in {**own, **dict(spec.env)}.items():
        if value is not None:
            yield f"export {name}={_quoted(value)}"
    # Slurm's own binding would leave nothing for --bind to choose from.
    bound = ("--cpu-bind=none",) if launcher == "srun" and spec.bind != "none" else ()
    if bound or spec.pass_on:
        yield f"launcher_options=({' '.join(map(_quoted, (*bound, *spec.pass_on)))})"
    yield f"set -- {' '.join(map(_quoted, command))}"


def _quoted(word: str) -> str:
    if "\r" not in word:
        return shlex.quote(word)
    # sbatch refuses a script with a DOS line break anywhere in it.
    escapes = {"\\": "\\\\", "'": "\\'", "\r": "\\r", "\n": "\\n"}
    return f"$'{''.join(escapes.get(character, character) for character in word)}'"


def _note(spec: JobSpec, target: Slurm, launcher: str) -> str:
    if target.node_counts:
        counts = ", ".join(map(str, target.node_counts))
        return f"{spec.ranks_per_node} ranks a node on {counts} nodes under Slurm, with {launcher}"
    nodes = f" on {spec.nodes} node{'s' * (spec.nodes != 1)}" if spec.nodes else ""
    return f"{spec.ranks} rank{'s' * (spec.ranks != 1)}{nodes} under Slurm, with {launcher}"
