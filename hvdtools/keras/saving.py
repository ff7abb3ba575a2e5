"""Save a model from rank 0, and load it on every rank, from rank 0's file."""

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
from hvdtools.keras.prepare import prepare
from hvdtools.keras.replicated import even_out
from hvdtools.tensorflow.collect import broadcast, gather_object
from hvdtools.tensorflow.session import require_started

ResultT = TypeVar("ResultT")
_SUFFIX = ".keras"


def save(path: str | os.PathLike[str], model: Any) -> None:
    """Write `model` from rank 0. Call it on every rank; it returns when the file is there.

    The file is written beside `path` and moved over it, so that a job killed half
    way leaves the old file whole. It is a plain .keras file, with rank 0's
    batch-norm statistics, the optimizer's state and the learning rate of one rank:
    any Keras reads it.

    Args:
        path: Rank 0's counts; it ends in .keras.

    Raises:
        HvdtoolsError: Another ending, or rank 0 could not write. The same
            sentence on every rank.
    """
    require_started("save()")
    target = _keras_file("save()", path)
    even_out(model)

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
        path: Rank 0's counts, and only rank 0 needs to see it; it ends in .keras.
        custom_objects: As `keras.saving.load_model` has it.

    Returns:
        The model; where it was saved compiled, its optimizer averages (`prepare`)
        and goes on from its saved state.

    Raises:
        HvdtoolsError: Another ending, no such file, or Keras could not read it.
            The same sentence on every rank.
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
        raise HvdtoolsError(f"{caller} got {str(path)!r}: give it a name that ends in .keras.")
    return file


def _on_every_rank(action: Callable[[], ResultT], failed: str) -> ResultT:
    def exchange(problem: str | None) -> list[str | None]:
        return gather_object(problem, "hvdtools.saving.outcome")

    return on_every_rank(action, failed, exchange)
