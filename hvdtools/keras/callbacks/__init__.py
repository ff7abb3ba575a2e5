"""`callbacks()`: the Keras callbacks that let `model.fit` train together with other ranks."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.learning_rate import scale_factor
from hvdtools.keras.callbacks.checks import (
    CheckAdaptedLayers,
    CheckArguments,
    CheckOptimizers,
    CheckReplicas,
    require_check_every,
)
from hvdtools.keras.callbacks.initial_state import (
    AverageAccumulatedGradients,
    BroadcastInitialState,
)
from hvdtools.keras.callbacks.learning_rate import ScaleLearningRate, require_warmup
from hvdtools.keras.callbacks.metrics import GlobalMetrics
from hvdtools.keras.callbacks.rank_zero import SilentProgbar, callbacks_of_rank
from hvdtools.keras.callbacks.stop import StopTogether
from hvdtools.tensorflow.session import require_started

__all__ = ["callbacks"]


def callbacks(
    *own: keras.callbacks.Callback,
    scale_lr: str = "none",
    warmup_steps: int | None = None,
    warmup_epochs: float | None = None,
    check_every: int = 100,
    local: Sequence[keras.Layer] = (),
    stop_on_signal: bool = False,
) -> list[keras.callbacks.Callback]:
    """The callbacks for `model.fit`, including your own. Make the same call on every rank.

    - At the start all ranks get rank 0's weights, optimizer state, first epoch
      (`BackupAndRestore`) and random seeds; the other ranks' dropout then differs
      from rank 0's. The arguments of `fit` that must agree are compared.
    - The logs of an epoch cover all ranks' samples, in training and validation, on
      every rank: `EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint`, the history
      and the last console line of an epoch use the same values. The logs of a single
      batch cover only this rank's samples.
    - Keras' callbacks that write files or print run only on rank 0, and so does
      a callback with an attribute ``rank_0_only = True``; all others run on every
      rank. `fit` prints nothing on the other ranks; use `hvt.evaluate` to evaluate
      in the same way.
    - A request to stop (`model.stop_training = True`, on any rank, set anywhere) is
      kept until the ranks next communicate, and then stops all of them. Use a small
      `check_every` for requests that must take effect soon (`TerminateOnNaN`, a budget
      of steps).
    - Ranks communicate after steps 1, 2, 3 and every `check_every`-th, and at the end
      of each epoch. At those steps their weights and optimizer state are compared
      bit by bit. Running statistics of batch normalization that is not
      `synchronized` differ by design and are left out: a saved model holds rank 0's.

    Pass all of your callbacks here: any that are added to the list run on every rank,
    after these.

    Every rank must take equally many steps in an epoch. If Keras cannot count them in
    advance (a generator), they cannot be compared either: set `steps_per_epoch`.

    Args:
        own: Your callbacks, in their order.
        scale_lr: "linear", factor N for N ranks (Goyal et al. 2017, arXiv
            1706.02677, as is the warm-up); "sqrt", factor sqrt(N) (Krizhevsky
            2014, arXiv 1404.5997); or "none". It multiplies the optimizer's rate or
            schedule only during a step: `optimizer.learning_rate` and a saved model
            keep the rate of a single rank.
        warmup_steps: Optimizer steps in which the factor rises from 1.
        warmup_epochs: The same in epochs.
        check_every: Steps between two comparisons of the ranks.
        local: Your layers with non-trainable weights that differ between ranks by
            design, such as a codebook: they are not compared.
        stop_on_signal: Let the signal that the job's time is nearly up stop `fit` on
            all ranks. Afterwards, if `hvt.stop_requested()`, save and end with
            exit code 75 to be restarted.

    Raises:
        HvdtoolsError: `init()` was not called, or an argument is out of range.
            From `fit`, on every rank: the optimizer is not prepared, the ranks
            were given different arguments or built different models, or their
            replicas diverged.
    """
    size = require_started("callbacks()").size
    factor = scale_factor(scale_lr, size)
    require_warmup(warmup_steps, warmup_epochs)
    require_check_every(check_every)
    for callback in own:
        if not isinstance(callback, keras.callbacks.Callback):
            raise HvdtoolsError(
                f"callbacks() got {callback!r}: give it Keras callbacks, one by one, as in "
                "callbacks(EarlyStopping(), ModelCheckpoint('model.keras'))."
            )
    arguments = {
        "scale_lr": scale_lr,
        "warmup_steps": warmup_steps,
        "warmup_epochs": warmup_epochs,
        "check_every": check_every,
    }
    return [
        CheckOptimizers(),
        CheckArguments(arguments),
        CheckAdaptedLayers(),
        GlobalMetrics(),
        AverageAccumulatedGradients(),
        *callbacks_of_rank(own),
        ScaleLearningRate(scale_lr, factor, warmup_steps, warmup_epochs),
        BroadcastInitialState(),
        CheckReplicas(check_every, local),
        StopTogether(check_every, on_signal=stop_on_signal),
        *SilentProgbar.if_needed(),
    ]
