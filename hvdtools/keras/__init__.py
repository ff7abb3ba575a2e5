"""Data-parallel training of Keras 3 models on the TensorFlow backend with Horovod.

import hvdtools.keras as hvt

topology = hvt.init()
model.compile(optimizer=hvt.prepare(keras.optimizers.Adam(1e-3)), loss=..., metrics=...)
model.fit(hvt.shard(dataset), epochs=5, callbacks=hvt.callbacks(EarlyStopping()))

For custom loops there is `hvdtools.tensorflow`.
"""

import keras

from hvdtools.core.errors import HvdtoolsError

_ALTERNATIVES = {
    "torch": "use hvdtools.torch in a custom loop (there a Keras model is a torch.nn.Module)",
    "jax": "use jax.distributed and keras.distribution (Horovod has no JAX)",
}
if keras.config.backend() != "tensorflow":
    backend = keras.config.backend()
    raise HvdtoolsError(
        f"hvdtools.keras needs Keras' TensorFlow backend, but Keras runs on {backend}: set "
        "KERAS_BACKEND=tensorflow before Keras is imported, or "
        f"{_ALTERNATIVES.get(backend, 'use another library')}."
    )

from hvdtools.core import installed  # noqa: E402

# Before Horovod's library is loaded: one built for another TensorFlow fails with an
# undefined symbol, or worse.
installed.require("tensorflow")

from hvdtools.core.topology import Topology  # noqa: E402
from hvdtools.keras.callbacks import callbacks  # noqa: E402
from hvdtools.keras.callbacks.metrics import evaluate  # noqa: E402
from hvdtools.keras.data.shard import shard  # noqa: E402
from hvdtools.keras.optimizer import prepare  # noqa: E402
from hvdtools.keras.replicas import assert_in_sync  # noqa: E402
from hvdtools.keras.saving import load, save  # noqa: E402
from hvdtools.tensorflow.collectives import (  # noqa: E402
    average,
    broadcast,
    gather,
    stop_requested,
)
from hvdtools.tensorflow.session import init  # noqa: E402

__all__ = [
    "Topology",
    "assert_in_sync",
    "average",
    "broadcast",
    "callbacks",
    "evaluate",
    "gather",
    "init",
    "load",
    "prepare",
    "save",
    "shard",
    "stop_requested",
]
