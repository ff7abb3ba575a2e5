"""Run in every rank: train_keras.py whose rank 1 sleeps SLEEP_S after each step of `fit`.

It prints how many steps `fit` took.
"""

from __future__ import annotations

import os
import time
from typing import Any

from hvdtools.bench.programs.keras import environment as keras_environment
from hvdtools.bench.programs.keras import train_keras
from hvdtools.core.topology import read_launch_environment

SLEEP_S = float(os.environ.get("SLEEP_S", "0"))


def plant() -> None:
    """Imports TensorFlow, as the program itself does after it has read its options."""
    keras_environment.set_environment()
    from hvdtools.bench.programs.keras import engines as keras_engines
    from hvdtools.bench.programs.keras import timing as keras_timing

    fit = keras_timing.fit

    class Sleepy(keras_timing.Begin):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if read_launch_environment(os.environ).rank == 1:
                time.sleep(SLEEP_S)

    def fit_and_count(model: Any, *rest: Any) -> None:
        fit(model, *rest)
        print("steps taken:", int(model.optimizer.iterations))

    keras_timing.Begin = Sleepy  # type: ignore[misc]
    keras_engines.fit = fit_and_count


plant()
train_keras.main()
