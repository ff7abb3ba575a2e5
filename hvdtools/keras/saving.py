"""`save()` writes a model from rank 0; `load()` reads rank 0's file on every rank."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import horovod.tensorflow as hvd
import keras

from hvdtools.core.agreement import on_every_rank
from hvdtools.core.errors import HvdtoolsError
from hvdtools.keras.optimizer import prepare
from hvdtools.keras.replicas import average_accumulated_gradients
from hvdtools.tensorflow.collectives import broadcast, gather_object
from hvdtools.tensorflow.session import require_started

ResultT = TypeVar("ResultT")
_SUFFIX = ".keras"


def save(path: str | os.PathLike[str], model: Any) -> None:
    """Write `model` from rank 0. Call it on every rank; it returns when the file exists.

    The file is written next to `path` and moved over it, so that a job killed in between
    leaves the old file intact. It is a plain .keras file that any Keras reads, with rank
    0's batch-norm statistics, the optimizer's state and the learning rate of a single rank.

    Args:
        path: Must end in .keras; only rank 0's is used.

    Raises:
        HvdtoolsError: Another suffix, or rank 0 could not write. The same message on
            every rank.
    """
    require_started("save()")
    target = _keras_file("save()", path)
    average_accumulated_gradients(model)

    def write() -> None:
        unfinished = target.with_name(f".{target.stem}.{os.getpid()}{_SUFFIX}")
        try:
            model.save(unfinished)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)

    _on_every_rank(write if hvd.rank() == 0 else lambda: None, f"save() could not write {target}")


def load(path: str | os.PathLike[str], *, custom_objects: dict[str, Any] | None = None) -> Any:
    """The model in rank 0's file, on every rank, prepared. Call it on every rank.

    Args:
        path: Must end in .keras; only rank 0's is used, and only rank 0 needs the file.
        custom_objects: As in `keras.saving.load_model`.

    Returns:
        The model. If it was saved compiled, its optimizer is prepared and resumes from
        its saved state.

    Raises:
        HvdtoolsError: Another suffix, no such file, or Keras could not read it. The same
            message on every rank.
    """
    require_started("load()")
    source = _keras_file("load()", path)
    failed = f"load() could not read {source}"
    data = broadcast(_on_every_rank(source.read_bytes if hvd.rank() == 0 else lambda: b"", failed))

    def read() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"model{_SUFFIX}"
            file.write_bytes(data)
            return keras.saving.load_model(file, custom_objects=custom_objects)

    model = _on_every_rank(read, failed)
    return prepare(model) if model.compiled and model.optimizer is not None else model


def _keras_file(caller: str, path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if file.suffix != _SUFFIX:
        raise HvdtoolsError(f"{caller} got {str(path)!r}: the name must end in .keras.")
    return file


def _on_every_rank(action: Callable[[], ResultT], failed: str) -> ResultT:
    def exchange(problem: str | None) -> list[str | None]:
        return gather_object(problem, "hvdtools.saving.outcome")

    return on_every_rank(action, failed, exchange)
