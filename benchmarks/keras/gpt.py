"""GPT-2's architecture in Keras; `gpt_shapes` has its sizes and its source.

No dropout, as is usual where no text is read twice.
"""

from __future__ import annotations

from typing import Any

import keras

from hvdtools.bench.programs.common.gpt_shapes import Shape

_EPSILON = 1e-5


def _normal() -> keras.initializers.Initializer:
    """GPT-2's random weights. A new one for each layer: Keras' own repeat themselves."""
    return keras.initializers.RandomNormal(0, 0.02)


class Places(keras.layers.Layer):  # type: ignore[misc]
    """Adds to each token of a text what stands for its place.

    An embedding looked up by 0, 1, 2, ... would be the same, but for its gradient:
    Horovod would get that as a list of rows.
    """

    def build(self, shape: tuple[int | None, int, int]) -> None:
        self.table = self.add_weight(shape[1:], _normal())

    def call(self, signal: Any) -> Any:
        """(B, T, width) -> the same."""
        return signal + self.table


def gpt(shape: Shape) -> keras.Model:
    """Tokens (B, longest) -> scores (B, longest, vocabulary) of the token that follows each."""
    tokens = keras.Input((shape.longest,), dtype="int32")
    table = keras.layers.ReversibleEmbedding(
        shape.vocabulary, shape.width, embeddings_initializer=_normal()
    )
    signal = Places()(table(tokens))
    for _ in range(shape.layers):
        signal = _block(signal, shape)
    signal = keras.layers.LayerNormalization(epsilon=_EPSILON)(signal)
    # The embedding is the last layer, too: its gradient comes from both ends of the network.
    return keras.Model(tokens, table(signal, reverse=True))


def _block(signal: Any, shape: Shape) -> Any:
    """Attention and a layer of four times the width, each beside a shortcut."""
    layers = keras.layers
    normed = layers.LayerNormalization(epsilon=_EPSILON)(signal)
    attend = layers.MultiHeadAttention(
        shape.heads, shape.width // shape.heads, kernel_initializer=_normal()
    )
    signal = signal + attend(normed, normed, use_causal_mask=True)
    normed = layers.LayerNormalization(epsilon=_EPSILON)(signal)
    wide = layers.Dense(4 * shape.width, _gelu, kernel_initializer=_normal())(normed)
    return signal + layers.Dense(shape.width, kernel_initializer=_normal())(wide)


def _gelu(signal: Any) -> Any:
    """By tanh, as GPT-2 has it."""
    return keras.activations.gelu(signal, approximate=True)
