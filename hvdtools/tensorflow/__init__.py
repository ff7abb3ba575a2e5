"""Data-parallel training of custom TensorFlow loops with Horovod.

import hvdtools.tensorflow as hvt

topology = hvt.init()
hvt.broadcast_variables(model.variables)
with hvt.GradientTape() as tape:
    loss = ...
gradients = tape.gradient(loss, model.trainable_variables)  # averages over ranks

For `model.fit` there is `hvdtools.keras`.
"""

from hvdtools.core import installed

# Before Horovod's library is loaded: one built for another TensorFlow fails with an
# undefined symbol, or worse.
installed.require("tensorflow")

from hvdtools.core.topology import Topology  # noqa: E402
from hvdtools.tensorflow.collectives import average, broadcast, gather  # noqa: E402
from hvdtools.tensorflow.gradients import GradientTape  # noqa: E402
from hvdtools.tensorflow.session import init  # noqa: E402
from hvdtools.tensorflow.variables import assert_in_sync, broadcast_variables  # noqa: E402

__all__ = [
    "GradientTape",
    "Topology",
    "assert_in_sync",
    "average",
    "broadcast",
    "broadcast_variables",
    "gather",
    "init",
]
