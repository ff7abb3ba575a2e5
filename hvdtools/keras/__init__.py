"""Keras 3 models on the TensorFlow backend trained by Horovod.

import hvdtools.keras as hvt

topology = hvt.init()
model.compile(optimizer=hvt.prepare(keras.optimizers.Adam(1e-3)), loss=..., metrics=...)
model.fit(hvt.shard(dataset), epochs=5, callbacks=hvt.callbacks(EarlyStopping()))

For custom loops there is `hvdtools.tensorflow`.
"""

import keras

from hvdtools.core.errors import HvdtoolsError

_INSTEAD = {
    "torch": "use hvdtools.torch in a loop of your own (a Keras model is a torch.nn.Module there)",
    "jax": "Horovod has no JAX: use jax.distributed and keras.distribution",
}
if keras.config.backend() != "tensorflow":
    backend = keras.config.backend()
    raise HvdtoolsError(
        f"hvdtools.keras works on Keras' TensorFlow backend, and Keras runs on {backend} here: "
        "set KERAS_BACKEND=tensorflow before Keras is imported, or "
        f"{_INSTEAD.get(backend, 'use another library')}."
    )

from hvdtools.core import installed  # noqa: E402

# Before Horovod's library is loaded: one that was built for another TensorFlow
# would end in an undefined symbol, or worse.
installed.require("tensorflow")

from hvdtools.core.topology import Topology  # noqa: E402
from hvdtools.keras.callbacks import callbacks  # noqa: E402
from hvdtools.keras.data.shard import shard  # noqa: E402
from hvdtools.keras.evaluate import evaluate  # noqa: E402
from hvdtools.keras.in_sync import assert_in_sync  # noqa: E402
from hvdtools.keras.prepare import prepare  # noqa: E402
from hvdtools.keras.saving import load, save  # noqa: E402
from hvdtools.tensorflow.collect import average, broadcast, gather  # noqa: E402
from hvdtools.tensorflow.preemption import stop_requested  # noqa: E402
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
