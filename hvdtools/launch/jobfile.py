"""A job as a TOML file: its keys are the flags without their dashes.

on = "slurm"
nodes = 2
ranks-per-node = 4
partition = "gpu"
command = ["python", "train.py", "--lr", "0.1"]

[env]
NCCL_DEBUG = "WARN"
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.renamed import with_new_keys
from hvdtools.launch.options import RENAMED, all_options

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def read_job_file(file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(option name -> value, the command) of a job file.

    Raises:
        HvdtoolsError: It cannot be read, is no TOML, or holds a key or a value that
            no flag would take.
    """
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise HvdtoolsError(f"The job file {str(file)!r} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise HvdtoolsError(f"The job file {str(file)!r} is no TOML: {error}.") from None
    command = content.pop("command", [])
    if not _is_words(command):
        raise HvdtoolsError(
            f'{file}: command must be a list of words, as in command = ["python", "train.py"].'
        )
    content = with_new_keys(content, RENAMED, str(file))
    kinds = {name: option.kind for name, option in all_options().items()}
    unknown = [name for name in content if name not in kinds]
    if unknown:
        raise HvdtoolsError(
            f"{file}: unknown key {unknown[0]!r}: choose one of {', '.join(sorted(kinds))} and "
            "command."
        )
    values = {name: _checked(file, name, value, kinds[name]) for name, value in content.items()}
    return values, tuple(command)


def _is_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _checked(file: Path, name: str, value: Any, kind: type) -> Any:
    if kind is tuple:
        if name == "env" and isinstance(value, dict):
            value = [f"{key}={text}" for key, text in value.items()]
        if _is_words(value):
            return tuple(value)
        raise HvdtoolsError(f"{file}: {name} must be a list of texts, not {value!r}.")
    accepted = (int, float) if kind is float else kind
    # To Python, true is a number.
    if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
        raise HvdtoolsError(f"{file}: {name} must be {_KINDS[kind]}, not {value!r}.")
    return value
