"""The model is one that averages its gradients."""

from __future__ import annotations

from typing import Any

import keras

from hvdtools.core.errors import HvdtoolsError
from hvdtools.keras.averaging import averaging_of, innermost
from hvdtools.keras.replicated import optimizers_of
from hvdtools.keras.xla import turn_off_xla


class Prepared(keras.callbacks.Callback):
    """Refuses a model whose ranks would train apart, and takes XLA off the others."""

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        for optimizer in optimizers_of(model):
            if averaging_of(optimizer) is None:
                name = type(innermost(optimizer)).__name__
                raise HvdtoolsError(
                    f"The model's optimizer ({name}) is not prepared, and every rank would train "
                    f"a model of its own: compile it with hvt.prepare(keras.optimizers.{name}"
                    "(...)), or call hvt.prepare(model) after compile()."
                )
        if model.jit_compile:
            turn_off_xla(model)
            model.train_function = None  # one that was made before is XLA's
