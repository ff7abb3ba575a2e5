"""The registry of trainings that N ranks and one process must end alike: `CASES`, by their ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import equality_grid as grid
import equality_loops as loops
import torch
from torch import Tensor
from worlds import World

# The largest |difference| over the largest |weight|, tensor by tensor. Half
# precision trains on numbers that fit it.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 0.0, torch.bfloat16: 0.0}
# In the table, which is all float32, LBFGS takes rounding for curvature; in float64 it equals, too.
TABLE_TOLERANCE = TOLERANCE[torch.float32]
TABLE_TOLERANCE_OF_LBFGS = 1e-3

LBFGS = ("lbfgs", "line_search")
# In each of these every optimizer trains in float64 and float32 ...
FOR_EVERY_OPTIMIZER = (
    loops.plain,
    loops.clipping,
    loops.accumulation,
    loops.no_sync,
    loops.several_backwards,
    loops.rank_branches,
    loops.reentrant_checkpointing,
    loops.plain_checkpointing,
    loops.exception_in_backward,
)
# ... and these say for themselves what they need.
WITH_ONE_OPTIMIZER = (
    (loops.thawing, "adamw", torch.float64),
    (loops.kept_gradients, "momentum", torch.float64),
    (loops.compiled, "adamw", torch.float64),
    (loops.compiled_in_regions, "adamw", torch.float64),
    (loops.channels_last, "momentum", torch.float64),
    (loops.channels_last, "adamw", torch.float32),
    (loops.scaled_gradients, "adamw", torch.float32),
    (loops.autocast, "sgd", torch.float32),
    (loops.autocast, "adamw", torch.float32),
    (loops.float16_weights, "sgd", torch.float16),
    (loops.bfloat16_weights, "sgd", torch.bfloat16),
)


@dataclass(frozen=True)
class Case:
    """A training and how far N ranks may end from one process.

    Attributes:
        loop: Called with a world and `arguments`, returns the tensors to compare.
        tolerance: Of their relative difference.
    """

    loop: Callable[..., list[Tensor]]
    arguments: tuple[object, ...]
    tolerance: float

    def __str__(self) -> str:
        if self.loop is grid.train_cell:
            return "{}, {}, {}".format(*self.arguments)
        optimizer, dtype = self.arguments
        return f"{self.loop.__name__}-{optimizer}-{str(dtype).removeprefix('torch.')}"

    def train(self, world: World) -> list[Tensor]:
        return self.loop(world, *self.arguments)


def _loop_case(loop: Callable[..., list[Tensor]], optimizer: str, dtype: torch.dtype) -> Case:
    return Case(loop, (optimizer, dtype), TOLERANCE[dtype])


def _table_case(cell: tuple[str, str, str]) -> Case:
    tolerance = TABLE_TOLERANCE_OF_LBFGS if cell[0] == "LBFGS" else TABLE_TOLERANCE
    return Case(grid.train_cell, cell, tolerance)


def _loop_cases() -> list[Case]:
    grown = [
        (loop, optimizer, dtype)
        for loop in FOR_EVERY_OPTIMIZER
        for optimizer in loops.OPTIMIZERS
        for dtype in (torch.float64, torch.float32)
        # A line search compares losses: in float32 the last digit can decide.
        if (optimizer, dtype) != ("line_search", torch.float32)
        # LBFGS takes gradients for those of the loss, which clipped ones are not.
        and not (loop is loops.clipping and optimizer in LBFGS)
    ]
    return [_loop_case(*case) for case in (*grown, *WITH_ONE_OPTIMIZER)]


def _representatives() -> list[Case]:
    """One case of every loop; every optimizer, precision and kind of data at least once."""
    cells = [
        (optimizer, precision, data)
        for optimizer, precision, data in grid.CELLS
        if (optimizer, precision) == ("AdamW", "float32")
        or (optimizer, data) == ("AdamW", "uneven")
        or (precision, data) == ("float32", "weighted")
    ]
    return [
        *(_loop_case(loop, "adamw", torch.float64) for loop in FOR_EVERY_OPTIMIZER),
        *(_loop_case(loops.plain, optimizer, torch.float64) for optimizer in loops.OPTIMIZERS),
        *{case[0]: _loop_case(*case) for case in WITH_ONE_OPTIMIZER}.values(),
        *map(_table_case, cells),
    ]


CASES = {str(case): case for case in (*_loop_cases(), *map(_table_case, grid.CELLS))}
# (optimizer, precision, data) -> the id of its case.
TABLE_IDS = {cell: str(_table_case(cell)) for cell in grid.CELLS}
_REPRESENTATIVES = frozenset(map(str, _representatives()))


def is_fast(case_id: str, ranks: int) -> bool:
    """Whether it belongs to the fast tests: all do on 2 ranks, on others a case of each kind."""
    return ranks == 2 or case_id in _REPRESENTATIVES
