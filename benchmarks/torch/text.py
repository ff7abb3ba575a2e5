"""Windows of a text that is a file, for models that read tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from hvdtools.bench.programs.common.bad_sample import BadSample
from hvdtools.core.errors import HvdtoolsError


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """A text in windows of equal length, side by side: shuffled, an epoch reads each once.

    A sample is a window's tokens and the tokens that follow each of them, both
    (sequence,) int64. The file is mapped into memory and not read as a whole.

    Args:
        file: Tokens as little-endian 16-bit numbers if its name ends in .bin,
            otherwise any file whose bytes are the tokens.
        sequence: Tokens in a window.
        vocabulary: How many tokens the model knows.

    Raises:
        HvdtoolsError: The file is too short for one window.
    """

    def __init__(self, file: Path, sequence: int, vocabulary: int) -> None:
        self.file, self.sequence, self.vocabulary = file, sequence, vocabulary
        self._dtype = np.dtype("<u2" if file.suffix == ".bin" else np.uint8)
        size = file.stat().st_size // self._dtype.itemsize
        self._windows = (size - 1) // sequence  # the last token of all is only ever a target
        # Mapped by each process for itself, as it begins to read: a map would be sent as a copy.
        self._tokens: NDArray[np.uint16] | NDArray[np.uint8] | None = None
        if self._windows < 1:
            raise HvdtoolsError(
                f"{file} has {size} tokens, too few for one sequence of {sequence} and the token "
                "after it: bring a longer file or read shorter sequences."
            )

    def __len__(self) -> int:
        return self._windows

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Raises `BadSample` for a token that the model does not know."""
        if self._tokens is None:
            self._tokens = np.memmap(self.file, self._dtype, mode="r")
        begin = number * self.sequence
        window = self._tokens[begin : begin + self.sequence + 1].astype(np.int64)
        if window.max() >= self.vocabulary:
            raise BadSample(
                f"{self.file} has a token {window.max()}, and the model knows 0 to "
                f"{self.vocabulary - 1}: it was written for another vocabulary, so make it anew."
            )
        tokens = torch.from_numpy(window)
        return tokens[:-1], tokens[1:]
