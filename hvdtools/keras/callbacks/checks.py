"""Callbacks that compare ranks: at the start of `fit`, and every few steps."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import logger
from hvdtools.keras.optimizer import averaging_of, disable_xla, innermost
from hvdtools.keras.replicas import optimizers_of, replicated_variables
from hvdtools.tensorflow.collectives import gather_object
from hvdtools.tensorflow.variables import assert_in_sync

# A wrong setup shows in the first steps.
_FIRST_STEPS = 3


class CheckOptimizers(keras.callbacks.Callback):
    """Refuses a model with an optimizer that does not average, and turns off XLA."""

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        for optimizer in optimizers_of(model):
            if averaging_of(optimizer) is None:
                name = type(innermost(optimizer)).__name__
                raise HvdtoolsError(
                    f"The model's optimizer ({name}) is not prepared, and every rank would train "
                    "a separate model: compile the model with hvt.prepare(keras.optimizers."
                    f"{name}(...)), or call hvt.prepare(model) after compile()."
                )
        if model.jit_compile:
            disable_xla(model)
            model.train_function = None  # a step traced before would use XLA


class CheckArguments(keras.callbacks.Callback):
    """Compares the arguments of `fit` and `callbacks()` over ranks.

    With different ones ranks would wait for each other.

    Args:
        arguments: Those of `callbacks()` that must be equal.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self._arguments = dict(arguments)

    def on_train_begin(self, logs: Any = None) -> None:
        own = {
            "epochs": self.params["epochs"],
            "steps": self.params["steps"],
            "steps_per_execution": self.model.steps_per_execution,
            **self._arguments,
        }
        all_ranks = gather_object(own, "hvdtools.arguments")
        if own["steps"] is None and len(all_ranks) > 1:
            logger.warning(
                "Keras cannot count the steps of this data: every rank must take equally many, or "
                "the job hangs; set fit(steps_per_epoch=...)"
            )
        for name, first in all_ranks[0].items():
            for rank, other in enumerate(all_ranks):
                if other[name] != first:
                    remedy = f"give every rank the same {name}"
                    if name == "steps":
                        remedy = "hvt.shard() gives every rank equally many, or set steps_per_epoch"
                    raise HvdtoolsError(
                        f"The ranks would wait for each other: {name} is {first!r} on rank 0 and "
                        f"{other[name]!r} on rank {rank}; {remedy}."
                    )


class CheckAdaptedLayers(keras.callbacks.Callback):
    """Refuses a model with layers that were adapted to different data on each rank.

    The result of `adapt()` is not a variable, so `CheckReplicas` does not compare it.
    """

    def on_train_begin(self, logs: Any = None) -> None:
        if hvd.size() == 1:
            return
        layers = [layer for layer in self.model._flatten_layers() if hasattr(layer, "adapt")]
        all_ranks = gather_object([_adapted_state(layer) for layer in layers], "hvdtools.adapted")
        for rank, other in enumerate(all_ranks):
            for layer, state_of_0, state in zip(layers, all_ranks[0], other, strict=False):
                if state_of_0 != state:
                    raise HvdtoolsError(
                        f"The layer {layer.name} was adapted to different data on rank {rank} than "
                        "on rank 0: call adapt() with the whole data, before hvt.shard()."
                    )


def _adapted_state(layer: Any) -> int | None:
    """A checksum of a layer's vocabulary, statistics or boundaries; None if it has none."""
    if hasattr(layer, "get_vocabulary"):
        return zlib.crc32(repr([str(word) for word in layer.get_vocabulary()]).encode())
    if isinstance(layer, keras.layers.Normalization) and getattr(layer, "mean", None) is not None:
        return zlib.crc32(np.asarray(layer.mean).tobytes() + np.asarray(layer.variance).tobytes())
    if isinstance(layer, keras.layers.Discretization):
        return zlib.crc32(repr(layer.bin_boundaries).encode())
    return None


def require_check_every(check_every: object) -> None:
    """Raise unless `check_every` is an integer of at least 1."""
    if isinstance(check_every, bool) or not isinstance(check_every, int) or check_every < 1:
        raise HvdtoolsError(f"check_every={check_every!r} must be a whole number of at least 1.")


class EveryFewSteps(keras.callbacks.Callback):
    """Calls `at_step` after steps 1, 2, 3 and every `check_every`-th, the same on all ranks.

    With `steps_per_execution` above 1, at the end of the execution with such a step.
    """

    def __init__(self, check_every: int) -> None:
        super().__init__()
        self._check_every = check_every

    def at_step(self, step: int) -> None:
        """To be overridden; `step` counts from the start of `fit`."""
        raise NotImplementedError

    def on_train_begin(self, logs: Any = None) -> None:
        self._done = 0
        self._in_earlier_epochs = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        before, self._done = self._done, self._in_earlier_epochs + batch + 1
        is_due = self._done // self._check_every > before // self._check_every
        if is_due or before < _FIRST_STEPS:
            self.at_step(self._done)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._in_earlier_epochs = self._done


class CheckReplicas(EveryFewSteps):
    """Compares weights and optimizer state over ranks, every few steps and at the end.

    Args:
        check_every: In steps.
        local: Layers with non-trainable weights that differ between ranks by design.
    """

    def __init__(self, check_every: int, local: Sequence[Any]) -> None:
        super().__init__(check_every)
        self._local = local

    def at_step(self, step: int) -> None:
        assert_in_sync(replicated_variables(self.model, self._local), f"at step {step}")

    def on_train_end(self, logs: Any = None) -> None:
        assert_in_sync(replicated_variables(self.model, self._local), "at the end of training")
