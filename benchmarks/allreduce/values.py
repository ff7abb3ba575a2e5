"""What a message holds: small whole numbers to check sums by, and numbers to time with."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from hvdtools.core.errors import HvdtoolsError

BASES = (11, 7, 5, 3, 2)
# Elements of a tile: prime, so that tiles do not begin where an engine's chunks do.
TILE = 2**18 - 5


def dtype_of(name: str) -> torch.dtype:
    """PyTorch's type of this name, "float32"."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


class Values:
    """The numbers of one rank in one type, repeated tile by tile.

    To check: an element is a digit of the rank's number, written in some base, plus
    a shift, modulo that base; or 0 on all ranks. Which digit and which shift depend on
    where it stands. Two ranks differ in a digit, so counting one of them twice in
    place of the other shows; so does a piece that is moved. All numbers and all sums of some ranks'
    are whole and small enough to be exact in the type, in whatever order they are
    added.

    To time: an all-reduce in place multiplies what all ranks hold by their number,
    again and again. These numbers begin at the smallest that are not denormal and
    last for `ops` sums: infinities, NaN, denormals and zeros, which arithmetic in
    software takes other paths for, never come up.

    Args:
        dtype: Its name, as `dtype_of` takes it.

    Attributes:
        ops: All-reduces in a row before numbers to time with may overflow.

    Raises:
        HvdtoolsError: So many ranks' sums are not exact in this type.
    """

    def __init__(self, dtype: str, rank: int, ranks: int, device: torch.device) -> None:
        self.dtype = dtype_of(dtype)
        limits = torch.finfo(self.dtype)
        exact = round(2 / limits.eps)  # eps is 2**(1 - p) for p significant bits
        sums = next((sums for base in BASES if _most(sums := _sums(ranks, base)) <= exact), None)
        if sums is None:
            raise HvdtoolsError(
                f"{dtype} holds whole numbers up to {exact} exactly, and sums of {ranks} ranks go "
                "beyond: they cannot be checked."
            )
        self._shifts = len(sums[0])
        base = self._shifts - 1
        mine = [_shifted(digit, base) for digit in _digits(rank, base, len(sums))]
        self._mine, self._sums = self._tiles(mine, device), self._tiles(sums, device)
        self.ops = 2**30
        if ranks > 1:
            self.ops = int(math.log(limits.max / (2 * limits.tiny)) / math.log(ranks))
        steps = torch.arange(TILE, device=device) % 8
        self._timed = ((1 + steps / 8) * limits.tiny).to(self.dtype)

    def _tiles(self, table: list[list[int]], device: torch.device) -> list[Tensor]:
        """A tile for each shift; `table` has a number for each digit and shift."""
        index = torch.arange(TILE, device=device)
        digit = index % len(table)
        shift = (index * 2654435761 >> 7) % self._shifts  # Knuth's multiplicative hash
        numbers = torch.tensor(table, dtype=self.dtype, device=device)
        return [numbers[digit, (shift + more) % self._shifts] for more in range(self._shifts)]

    def fill(self, flat: Tensor) -> None:
        """Give the message this rank's numbers, to check its sum by."""
        for number, part in enumerate(flat.split(TILE)):
            part.copy_(self._mine[number % self._shifts][: len(part)])

    def count_wrong(self, flat: Tensor) -> int:
        """Elements that are not the exact sum of all ranks'; NaN is none."""
        wrong = torch.zeros((), dtype=torch.int64, device=flat.device)
        for number, part in enumerate(flat.split(TILE)):
            wrong += (part != self._sums[number % self._shifts][: len(part)]).sum()
        return int(wrong)

    def fill_to_time(self, flat: Tensor) -> None:
        """Give the message numbers that last for `ops` all-reduces."""
        for part in flat.split(TILE):
            part.copy_(self._timed[: len(part)])


def _digits(rank: int, base: int, count: int) -> list[int]:
    return [rank // base**place % base for place in range(count)]


def _shifted(digit: int, base: int) -> list[int]:
    """A digit under each shift, and last the 0 that it is on all ranks.

    Without that, sums over 2 ranks in base 2, or over 121 in base 11, would be the
    same wherever they stand.
    """
    return [*((digit + shift) % base for shift in range(base)), 0]


@functools.cache
def _sums(ranks: int, base: int) -> list[list[int]]:
    """For each digit and shift the sum over ranks; as many digits as the last rank's has."""
    count = next(count for count in range(1, 64) if base**count >= ranks)
    places = zip(*(_digits(rank, base, count) for rank in range(ranks)), strict=True)
    tables = ([_shifted(digit, base) for digit in digits] for digits in places)
    return [[sum(column) for column in zip(*table, strict=True)] for table in tables]


def _most(sums: list[list[int]]) -> int:
    return max(map(max, sums))
