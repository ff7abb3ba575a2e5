"""The file that a checkpoint lies in: written whole or not at all, and safe to open."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from hvdtools.core.errors import HvdtoolsError

_FORMAT = 1


def write_file(target: Path, states: dict[str, Any], extra: dict[str, Any]) -> None:
    """Write {"hvdtools": 1, **states, "extra": extra} over `target`, in one move.

    Args:
        states: "model", "optimizer", "scheduler" -> its state_dict().
        extra: The caller's own values.

    Raises:
        HvdtoolsError: `read_file` would refuse a value; names it.
        OSError: The disk would not have it. An older file is as it was.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            _dump({"hvdtools": _FORMAT, **states, "extra": extra}, file)
            file.flush()
            os.fsync(file.fileno())
        # Maps the tensors and reads none: opening the file costs next to nothing.
        torch.load(part, map_location="cpu", weights_only=True, mmap=True)
        part.replace(target)
    except Exception as error:
        if not isinstance(error, OSError):
            _name_the_culprit([*states.items(), *extra.items()], error)
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    _flush_folder(target.parent)


def _dump(payload: dict[str, Any], file: Any) -> None:
    try:
        torch.save(payload, file)
    except RuntimeError as error:
        # PyTorch's writer dies of a second error over the disk's own.
        disk = error.__context__
        if isinstance(disk, OSError):
            raise disk from None
        raise


def _name_the_culprit(values: list[tuple[str, Any]], error: Exception) -> None:
    for name, value in values:
        if not _loadable(value):
            raise HvdtoolsError(
                f"{name} holds a value that PyTorch does not load from a file without running its "
                "code: keep numbers, strings, tensors, and lists and dicts of them."
            ) from error


def _loadable(value: Any) -> bool:
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer)
        buffer.seek(0)
        torch.load(buffer, map_location="cpu", weights_only=True)
    except Exception:  # pickle and PyTorch have many
        return False
    return True


def _flush_folder(folder: Path) -> None:
    """Let the new name too survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_file(source: Path, wanted: list[str]) -> dict[str, Any]:
    """What `write_file` wrote, with every tensor on the CPU.

    Args:
        wanted: The states that must be in it.

    Raises:
        HvdtoolsError: There is no such file, it is something else, or it lacks a state.
        OSError: The file cannot be read.
    """
    if not source.exists():
        raise HvdtoolsError("there is no such file where rank 0 runs.")
    try:
        payload = torch.load(source, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # pickle, zip and PyTorch have many
        raise HvdtoolsError(
            "it is damaged, or was not written by hvdtools.torch.save()."
        ) from error
    if not (isinstance(payload, dict) and payload.get("hvdtools") == _FORMAT):
        raise HvdtoolsError("it was not written by this version of hvdtools.torch.save().")
    missing = [name for name in wanted if name not in payload]
    if missing:
        held = [name for name in payload if name not in ("hvdtools", "extra")]
        raise HvdtoolsError(
            f"it holds {' and '.join(held) or 'extra values alone'}, and no "
            f"{' and no '.join(missing)}: leave that out, or save it too."
        )
    return payload
