"""Save and load a job's model, optimizer and scheduler in one file."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import horovod.torch as hvd
import torch
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hvdtools.core.agreement import on_every_rank
from hvdtools.core.errors import HvdtoolsError
from hvdtools.torch.replicate import (
    broadcast_tensors,
    replicate_module,
    replicate_optimizer,
    require_same_model,
)
from hvdtools.torch.session import require_started
from hvdtools.torch.waiting import waiting

_LABEL = "hvdtools.checkpoint"
_FORMAT = 1


def save(
    path: str | os.PathLike[str],
    *,
    model: Module | None = None,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    **extra: Any,
) -> None:
    """Write a checkpoint from rank 0. Call it on every rank; it returns when the file is there.

    First every rank's buffers become rank 0's, so that per-rank running statistics
    equal those in the file. The file is written next to `path`, flushed to the disk
    and moved over it, so that a job killed meanwhile leaves the old file intact. It is read with
    `load`, or by `torch.load(path)`: {"hvdtools": 1, "model": state, ...}.

    Args:
        path: Rank 0's counts.
        model: Before or after `prepare()`.
        extra: Values of rank 0 to keep with it: numbers, strings, tensors, None,
            and lists, tuples and dicts of them.

    Raises:
        HvdtoolsError: Rank 0 could not write, or a value is of a kind that
            PyTorch does not load from a file without running its code. The same
            message on every rank.
    """
    require_started("save()")
    if model is not None:
        kept = model.state_dict().keys()
        buffers = [buffer for name, buffer in model.named_buffers() if name in kept]
        broadcast_tensors(buffers, 0, f"{_LABEL}.buffers")
    target = Path(path)

    def write() -> None:
        objects = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        states = {name: held.state_dict() for name, held in objects.items() if held is not None}
        _write_file(target, states, extra)

    _on_rank_0(write, f"save() could not write {target}")


def load(
    path: str | os.PathLike[str],
    *,
    model: Module | None = None,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
) -> dict[str, Any]:
    """Read a checkpoint on rank 0 and give it to every rank. Call it on every rank.

    Afterwards parameters, buffers, the optimizer's state (with the dtypes it was
    saved with) and the scheduler's are equal on all ranks, and as they were
    saved. Only rank 0 needs to see the file. Random-number generators are not kept.

    Args:
        path: Rank 0's counts.
        model: Before or after `prepare()`, on its device. What is left out here
            is left out of the loading.

    Returns:
        The extra values that `save` was given, tensors among them on the CPU.

    Raises:
        HvdtoolsError: The file does not exist, is not a checkpoint or lacks a state,
            or a state does not fit its object. The same message on every rank;
            some objects may have been loaded.
    """
    require_started("load()")
    source = Path(path)
    given = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    wanted = [name for name, held in given.items() if held is not None]

    def read() -> dict[str, Any]:
        payload = _read_file(source, wanted)
        if model is not None:
            model.load_state_dict(payload["model"])
        if optimizer is not None:
            _load_optimizer(optimizer, payload["optimizer"])
        return {"extra": payload["extra"], "scheduler": payload.get("scheduler")}

    if model is not None:
        require_same_model(model, _LABEL)
    common = _on_rank_0(read, f"load() could not load {source}")
    if model is not None:
        replicate_module(model, 0, _LABEL)
    common = hvd.broadcast_object(common, 0, name=f"{_LABEL}.common")

    def follow() -> None:
        if optimizer is not None:
            replicate_optimizer(optimizer, _LABEL)
        if scheduler is not None:
            scheduler.load_state_dict(common["scheduler"])

    _on_every_rank(follow, f"load() could not load {source}")
    extra: dict[str, Any] = common["extra"]
    return extra


ResultT = TypeVar("ResultT")


def _on_rank_0(action: Callable[[], ResultT], failed: str) -> ResultT | None:
    return _on_every_rank(action if hvd.rank() == 0 else lambda: None, failed)


def _on_every_rank(action: Callable[[], ResultT], failed: str) -> ResultT:
    def exchange(problem: str | None) -> list[str | None]:
        with waiting(failed.replace("could not", "to")):
            found: list[str | None] = hvd.allgather_object(problem, name=f"{_LABEL}.outcome")
        return found

    return on_every_rank(action, failed, exchange, (HorovodInternalError,))


def _load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """`load_state_dict`, but each state tensor keeps the dtype it was saved with.

    PyTorch casts them to the parameter's dtype: float32 moments of a bfloat16
    parameter would lose what they were kept for.
    """
    optimizer.load_state_dict(state)
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        for name, saved in state["state"].get(number, {}).items():
            loaded = optimizer.state[parameter].get(name)
            both = isinstance(loaded, Tensor) and isinstance(saved, Tensor)
            if both and loaded.dtype != saved.dtype:
                optimizer.state[parameter][name] = saved.to(loaded.device)


def _write_file(target: Path, states: dict[str, Any], extra: dict[str, Any]) -> None:
    """Write {"hvdtools": 1, **states, "extra": extra} over `target`, in one move.

    Args:
        states: "model", "optimizer", "scheduler" -> its state_dict().
        extra: The caller's own values.

    Raises:
        HvdtoolsError: `_read_file` would refuse a value; names it.
        OSError: Writing failed. An older file is unchanged.
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
            _raise_for_value([*states.items(), *extra.items()], error)
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


def _raise_for_value(values: list[tuple[str, Any]], error: Exception) -> None:
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


def _read_file(source: Path, wanted: list[str]) -> dict[str, Any]:
    """What `_write_file` wrote, with every tensor on the CPU.

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
