"""The form in which SageMaker's training toolkit starts the ranks, with its mpirun over ssh.

Source: https://github.com/aws/sagemaker-training-toolkit, src/sagemaker_training: params.py for
the names, environment.py for the JSON in each value, mapping.py and mpi.py for the command.
"""

from __future__ import annotations

import json
import re
from typing import Any

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.schedulers.sagemaker import checks, limits
from hvdtools.launch.schedulers.sagemaker.request import SageMaker
from hvdtools.launch.spec import JobSpec

_OPTION = re.compile(r"--?(?P<name>[^=\s]+)(=(?P<value>.*))?", re.DOTALL)
_NUMBER = re.compile(r"-\d*\.?\d+([eE][-+]?\d+)?")
_OWN_NAMES = "sagemaker_"
# mpi.py hands these on by itself, and sets these to values of its own.
_HANDED_ON = ("PATH", "LD_LIBRARY_PATH")
_DEBUG = "NCCL_DEBUG"
_SET = ("NCCL_SOCKET_IFNAME", "NCCL_MIN_NRINGS", "LD_PRELOAD")


def fill(tree: dict[str, Any], spec: JobSpec, target: SageMaker, nodes: int, per_node: int) -> None:
    """Give the request the hyperparameters that the toolkit makes its mpirun line of.

    Raises:
        HvdtoolsError: The command is none that the toolkit could be told.
    """
    if spec.interface is not None:
        raise HvdtoolsError(
            "SageMaker's toolkit takes the interface that SageMaker names: leave out --interface, "
            "or use --form container."
        )
    program, arguments = _program_of(spec.command)
    own = {
        "sagemaker_program": program,
        "sagemaker_submit_directory": target.source,
        "sagemaker_mpi_enabled": True,
        "sagemaker_mpi_num_of_processes_per_host": per_node,
        "sagemaker_mpi_custom_mpi_options": _mpi_options(spec, nodes),
    }
    # The toolkit reads each value as JSON, and one that it cannot read as it is: a number in
    # JSON would lose its spelling.
    written = {name: json.dumps(value) for name, value in {**own, **arguments}.items()}
    hyperparameters = {**tree["HyperParameters"], **written}
    checks.at_most("options of a program", list(hyperparameters), limits.HYPERPARAMETERS)
    most = limits.HYPERPARAMETER_LENGTH, limits.HYPERPARAMETER_VALUE_LENGTH
    for name, value in hyperparameters.items():
        if len(name) > most[0] or len(value) > most[1]:
            raise HvdtoolsError(
                f"{name[:40]} is too long for SageMaker, which takes {most[0]} characters of a "
                f"name and {most[1]} of a value, in JSON: put it into a file of a --channel."
            )
    tree["HyperParameters"] = hyperparameters


def _program_of(command: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """The script and its options: "python train.py --lr 0.1" is train.py and {"lr": "0.1"}."""
    python, *words = command
    if python not in ("python", "python3") or not words or not words[0].endswith(".py"):
        raise HvdtoolsError(
            "SageMaker's toolkit runs a Python script: write `python train.py --lr 0.1`, or use "
            "--form container for any other command."
        )
    program, *rest = words
    arguments: dict[str, str] = {}
    while rest:
        word = rest.pop(0)
        found = _OPTION.fullmatch(word)
        value = None if found is None else found["value"]
        if found is not None and value is None and rest and not _is_option(rest[0]):
            value = rest.pop(0)
        if found is None or value is None or not _can_say(word, found["name"], value):
            raise HvdtoolsError(
                f"SageMaker's toolkit says nothing but `--name value` and `-n value` to a program, "
                f"so not {word[:40]!r}: use --form container."
            )
        if found["name"] in arguments or found["name"].startswith(_OWN_NAMES):
            raise HvdtoolsError(
                f"SageMaker's toolkit cannot say --{found['name']}: each option goes once, and "
                f"none begins with {_OWN_NAMES}; use --form container."
            )
        arguments[found["name"]] = value
    return program, arguments


def _can_say(word: str, name: str, value: str) -> bool:
    # mapping.py writes one dash before one letter and two before more, and two words a pair.
    dashes = "-" if len(name) == 1 else "--"
    return word.startswith(f"{dashes}{name}") and not _is_option(value)


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and not _NUMBER.fullmatch(word)


def _mpi_options(spec: JobSpec, nodes: int) -> str:
    """The options behind the toolkit's own; it splits them at blanks, so no value may have any."""
    ours = {
        "HVDTOOLS_SIZE": str(spec.ranks),
        "HVDTOOLS_NODES": str(nodes),
        "HOROVOD_CONTROLLER": "mpi",
        "HOROVOD_CPU_OPERATIONS": "mpi",
        "PYTHONUNBUFFERED": "1",
    }
    theirs = dict(spec.env) | ({} if spec.cpus_per_rank is None else {"OMP_NUM_THREADS": ""})
    words = [f"-x {name}={value}" for name, value in ours.items() if name not in theirs]
    for name, value in theirs.items():
        if name in _SET or (name == _DEBUG and not re.fullmatch(r"\w+", value)):
            raise HvdtoolsError(
                f"--env {name}={value} would be lost, because SageMaker's toolkit sets it itself: "
                "use --form container."
            )
        if name == _DEBUG:
            words.append(f"--{name} {value}")  # the toolkit's own option for it
        elif name not in _HANDED_ON:
            words.append(f"-x {name}")
    return " ".join(words)
