"""What `model.fit` needs to train as one with the other ranks."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from hvdtools.core import lr_scaling
from hvdtools.core.errors import HvdtoolsError
from hvdtools.keras.callbacks.accumulated import Accumulated
from hvdtools.keras.callbacks.adapted import Adapted
from hvdtools.keras.callbacks.arguments import SameArguments
from hvdtools.keras.callbacks.joint_metrics import JointMetrics
from hvdtools.keras.callbacks.learning_rate import LearningRate, require_warmup
from hvdtools.keras.callbacks.prepared import Prepared
from hvdtools.keras.callbacks.rank_0 import Silent, for_this_rank
from hvdtools.keras.callbacks.replicas import Replicas
from hvdtools.keras.callbacks.start import Start
from hvdtools.keras.callbacks.steps import require_check_every
from hvdtools.keras.callbacks.stop import Stop
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
    """The callbacks for `model.fit`, one's own among them. The same call on every rank.

    - At the start all ranks get rank 0's weights, optimizer state, first epoch
      (`BackupAndRestore`) and random seeds; other ranks' dropout then differs
      from rank 0's. The arguments of `fit` that must agree are compared.
    - The logs of an epoch are those of all ranks' samples, training and
      validation alike, on every rank: `EarlyStopping`, `ReduceLROnPlateau`,
      `ModelCheckpoint`, the history and the last console line of an epoch see
      the same. The logs of a single batch stay the rank's own.
    - Keras' callbacks that write files or print run on rank 0 alone, and so does
      a callback with an attribute ``rank_0_only = True``; all others run on every
      rank. The other ranks' `fit` prints nothing; outside of it `hvt.evaluate`
      does the same for an evaluation.
    - A request to stop (`model.stop_training = True`, on any rank, from anywhere)
      is kept until the ranks talk to each other, and then stops all of them. What
      waits for no batch more (`TerminateOnNaN`, a budget of steps) wants a small
      `check_every`.
    - Ranks talk after steps 1, 2, 3 and every `check_every`-th, and at the end of
      each epoch. At those steps their weights and optimizer state are compared
      bit by bit. Running statistics of batch normalization that is not
      `synchronized` differ by nature and are left out: a saved model holds
      rank 0's.

    Give it all of your callbacks: those put beside it in the list of `fit` run on
    every rank, and after what it does last.

    Every rank must take equally many steps in an epoch. Where Keras cannot count
    them beforehand (a generator) nobody can compare them either: say
    `steps_per_epoch`.

    Args:
        own: One's own callbacks, in their order.
        scale_lr: "linear", factor N for N ranks (Goyal et al. 2017, arXiv
            1706.02677, as is the warm-up); "sqrt", factor sqrt(N) (Krizhevsky
            2014, arXiv 1404.5997); or "none". It multiplies whatever rate the
            optimizer has, a schedule's too, within a step alone:
            `optimizer.learning_rate` and a saved model keep that of one rank.
        warmup_steps: Optimizer steps in which the factor rises from 1.
        warmup_epochs: The same in epochs.
        check_every: Steps from one comparison of the ranks to the next.
        local: Layers of your own whose non-trainable weights are each rank's own,
            such as a codebook: they are not compared.
        stop_on_signal: Let the signal that the job's time is nearly up stop `fit` on
            all ranks; ask `hvt.stop_requested()` afterwards whether it came, save,
            and end with exit code 75 to be started again.

    Raises:
        HvdtoolsError: `init()` was not called, or an argument is out of range.
            From `fit`, on every rank: the optimizer is not prepared, the ranks
            were given different arguments or built different models, or their
            replicas diverged.
    """
    size = require_started("callbacks()").size
    factor = lr_scaling.factor_of(scale_lr, size)
    require_warmup(warmup_steps, warmup_epochs)
    require_check_every(check_every)
    for callback in own:
        if not isinstance(callback, keras.callbacks.Callback):
            raise HvdtoolsError(
                f"callbacks() got {callback!r}: give it Keras callbacks, one by one, as in "
                "callbacks(EarlyStopping(), ModelCheckpoint('model.keras'))."
            )
    alike = {
        "scale_lr": scale_lr,
        "warmup_steps": warmup_steps,
        "warmup_epochs": warmup_epochs,
        "check_every": check_every,
    }
    return [
        Prepared(),
        SameArguments(alike),
        Adapted(),
        JointMetrics(),
        Accumulated(),
        *for_this_rank(own),
        LearningRate(scale_lr, factor, warmup_steps, warmup_epochs),
        Start(),
        Replicas(check_every, local),
        Stop(check_every, on_signal=stop_on_signal),
        *Silent.where_needed(),
    ]
