"""One message under all engines: checked, timed in turns, checked again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hvdtools.bench.formatting import format_bytes
from hvdtools.bench.programs.allreduce.engines import Engine
from hvdtools.bench.programs.allreduce.memory import free_bytes
from hvdtools.bench.programs.allreduce.timing import Stretches, agree_on_ops
from hvdtools.bench.programs.allreduce.values import Values, dtype_of
from hvdtools.bench.programs.torch.process_group import wait_for_device
from hvdtools.bench.results.measured import Point
from hvdtools.bench.run.interleave import Gather, StoppingRule, run_interleaved
from hvdtools.core.errors import HvdtoolsError

# The message itself, and what an engine may copy of it.
COPIES = 2


@dataclass(frozen=True)
class Message:
    """What is summed.

    Attributes:
        size_bytes: Of all tensors together, on one rank.
        dtype: Its name, as `values.dtype_of` takes it.
        tensors: How many equal tensors it consists of.
    """

    size_bytes: int
    dtype: str
    tensors: int

    @property
    def elements(self) -> int:
        """Numbers in the message; a rest of bytes is left out."""
        return self.size_bytes // dtype_of(self.dtype).itemsize

    def pieces(self, flat: Tensor) -> list[Tensor]:
        """Its tensors, in one piece of memory."""
        return list(flat.split(len(flat) // self.tensors))

    def unsupported(self, why: str) -> Point:
        return Point(self.size_bytes, self.dtype, self.tensors, 0, (), 0, why)


@dataclass
class Job:
    """The ranks, and the engines among which they compare.

    Attributes:
        engines: By name, in the order of their turns.
        gather: Brings all ranks' values together, outside of what is timed.
        local_ranks: Ranks on this node.
    """

    engines: Mapping[str, Engine]
    gather: Gather
    rank: int
    ranks: int
    local_ranks: int
    device: torch.device
    rule: StoppingRule
    _values: dict[str, Values] = field(default_factory=dict)
    _tried: dict[tuple[str, str, int], str | None] = field(default_factory=dict)

    def values(self, dtype: str) -> Values:
        if dtype not in self._values:
            self._values[dtype] = Values(dtype, self.rank, self.ranks, self.device)
        return self._values[dtype]

    def refusal(self, name: str, message: Message) -> str | None:
        """Why an engine does not take such a message, whatever its size; found by trying once."""
        key = name, message.dtype, message.tensors
        if key not in self._tried:
            self._tried[key] = self._try(self.engines[name], message)
        return self._tried[key]

    def _try(self, engine: Engine, message: Message) -> str | None:
        flat = torch.zeros(8 * message.tensors, dtype=dtype_of(message.dtype), device=self.device)
        why = None
        try:
            engine.operation(message.pieces(flat))()
            wait_for_device(self.device)
        except engine.refusals as error:
            ours = isinstance(error, HvdtoolsError)
            why = " ".join((f"{error}" if ours else f"{type(error).__name__}: {error}").split())
        unsupported = [
            rank for rank, row in enumerate(self.gather([float(why is not None)])) if row[0]
        ]
        return why or (f"unsupported on rank {unsupported[0]}" if unsupported else None)


def measure(job: Job, message: Message) -> dict[str, Point]:
    """Each engine's point of one message; the same on every rank but for words of refusal."""
    try:
        _require_fits(job, message)
        values = job.values(message.dtype)
    except HvdtoolsError as error:
        return {name: message.unsupported(str(error)) for name in job.engines}
    why = {name: job.refusal(name, message) for name in job.engines}
    # One piece of memory for all engines: no more is taken, and none has the better one.
    flat = torch.empty(message.elements, dtype=dtype_of(message.dtype), device=job.device)
    runs = {
        name: _stretches(engine, message, flat, values)
        for name, engine in job.engines.items()
        if why[name] is None
    }
    measured = _in_turns(job, message, runs) if runs else {}
    return {
        name: measured.get(name) or message.unsupported(why[name] or "") for name in job.engines
    }


def _require_fits(job: Job, message: Message) -> None:
    """Raise HvdtoolsError, on all ranks alike, for a message that cannot be made."""
    words = format_bytes(message.size_bytes)
    if message.size_bytes % (message.tensors * dtype_of(message.dtype).itemsize):
        raise HvdtoolsError(f"{words} are not {message.tensors} equal tensors of {message.dtype}.")
    needed = COPIES * message.size_bytes
    least = min(row[0] for row in job.gather([float(free_bytes(job.device, job.local_ranks))]))
    if needed > least:
        raise HvdtoolsError(
            f"{words} need {format_bytes(needed)} of memory in each rank, and a rank has only "
            f"{format_bytes(int(least))} free."
        )


def _stretches(engine: Engine, message: Message, flat: Tensor, values: Values) -> Stretches:
    tiny = torch.zeros(1, device=flat.device)
    return Stretches(engine.operation(message.pieces(flat)), engine.operation([tiny]), flat, values)


def _in_turns(job: Job, message: Message, runs: dict[str, Stretches]) -> dict[str, Point]:
    before = {name: _wrong(job, run) for name, run in runs.items()}
    ops = {name: agree_on_ops(run.seconds, job.gather) for name, run in runs.items()}
    blocks = {name: (lambda run=run, n=ops[name]: run.seconds(n)) for name, run in runs.items()}
    interleaved = run_interleaved(blocks, job.rule, job.gather)
    return {
        name: Point(
            message_bytes=message.size_bytes,
            dtype=message.dtype,
            tensors=message.tensors,
            ops_per_block=ops[name],
            op_s=tuple(block_s / ops[name] for block_s in interleaved.slowest_s(name)),
            wrong_elements=max(before[name], _wrong(job, run)),
        )
        for name, run in runs.items()
    }


def _wrong(job: Job, run: Stretches) -> int:
    """Elements of all ranks that are not the exact sum after one all-reduce."""
    run.values.fill(run.flat)
    wait_for_device(job.device)
    run.operation()
    wait_for_device(job.device)
    return int(sum(row[0] for row in job.gather([float(run.values.count_wrong(run.flat))])))
