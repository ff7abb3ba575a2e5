"""What layers learnt by `adapt()` is no variable, and must be the same on every rank."""

from __future__ import annotations

import zlib
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np

from hvdtools.core.errors import HvdtoolsError
from hvdtools.tensorflow.collect import gather_object


class Adapted(keras.callbacks.Callback):
    """Refuses a model whose layers were adapted to other data on each rank."""

    def on_train_begin(self, logs: Any = None) -> None:
        if hvd.size() == 1:
            return
        layers = [layer for layer in self.model._flatten_layers() if hasattr(layer, "adapt")]
        everyone = gather_object([_learnt(layer) for layer in layers], "hvdtools.adapted")
        for rank, other in enumerate(everyone):
            for layer, here, there in zip(layers, everyone[0], other, strict=False):
                if here != there:
                    raise HvdtoolsError(
                        f"The layer {layer.name} was adapted to other data on rank {rank} than on "
                        "rank 0: call adapt() with the whole data, before hvt.shard()."
                    )


def _learnt(layer: Any) -> int | None:
    """A checksum of a layer's vocabulary, statistics or boundaries; None if it has none."""
    if hasattr(layer, "get_vocabulary"):
        return zlib.crc32(repr([str(word) for word in layer.get_vocabulary()]).encode())
    if isinstance(layer, keras.layers.Normalization) and getattr(layer, "mean", None) is not None:
        return zlib.crc32(np.asarray(layer.mean).tobytes() + np.asarray(layer.variance).tobytes())
    if isinstance(layer, keras.layers.Discretization):
        return zlib.crc32(repr(layer.bin_boundaries).encode())
    return None
