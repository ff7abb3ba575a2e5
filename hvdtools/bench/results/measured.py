"""What a program in benchmarks/ measures of one engine in one job.

Each program writes a line with a JSON object for each engine, with exactly the fields
below. `results.schema.json` describes them for other tools.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hvdtools.core.errors import HvdtoolsError, unknown_name

# In the order of a step. Communication is not a phase: it is computed as a difference, see
# `step_time`.
PHASES = ("input", "forward", "backward", "optimizer")


@dataclass(frozen=True)
class Training:
    """A training loop.

    Attributes:
        engine: The program's --engine.
        transport: Of the gradients: "mpi", "gloo", "grpc", "nccl" or "none".
        device: "cpu" or "cuda".
        model, data: As the program names them.
        precision: "float32", "float64" or "bfloat16" (autocast; weights stay float32).
        batch_per_rank: Samples a rank and step: images, or sequences of text.
        threads_per_rank: Of the framework.
        lr: The learning rate of the whole job.
        parameters: Trained numbers of the model; None in results of hvdtools before 0.1.
        gradient_bytes: Gradients of one rank in a step; None as above.
        allreduces_per_step: None where the engine does not record it.
        steps_per_block: Steps in each of `block_s`.
        block_s: Seconds of each block of steps, on its slowest rank.
        rank_step_s: Rank -> its median seconds of a step.
        phase_s: Name in PHASES -> rank -> its median seconds in a step; empty where the
            program does not measure phases.
        peak_memory_bytes: Rank -> peak memory of this engine's model, gradients, optimizer
            and activations, on the GPU if there is one.
        stopped_by: As in `interleave.InterleavedBlocks`.
        accuracy: On the whole test set after training, 0 to 1; None without one.
        in_sync: Whether all ranks ended with the same weights, bit for bit; None for a single
            rank and for engine "no_comm".
    """

    engine: str
    transport: str
    device: str
    model: str
    data: str
    precision: str
    batch_per_rank: int
    threads_per_rank: int
    lr: float
    parameters: int | None
    gradient_bytes: int | None
    allreduces_per_step: int | None
    steps_per_block: int
    block_s: tuple[float, ...]
    rank_step_s: tuple[float, ...]
    phase_s: dict[str, tuple[float, ...]]
    peak_memory_bytes: tuple[int, ...]
    stopped_by: str
    accuracy: float | None
    in_sync: bool | None

    @property
    def block_rates(self) -> list[float]:
        """Samples/s in each block: ranks x batch x steps over the slowest rank's seconds."""
        samples = len(self.rank_step_s) * self.batch_per_rank * self.steps_per_block
        return [samples / seconds for seconds in self.block_s]


@dataclass(frozen=True)
class Point:
    """All-reduces of one message.

    Attributes:
        message_bytes: Of all its tensors together, on one rank.
        dtype: "float32", "float16" or "bfloat16".
        tensors: 1, or the number of equal tensors of a grouped all-reduce.
        ops_per_block: All-reduces in each block, one after another.
        op_s: Seconds of one all-reduce: each block's time on its slowest rank over
            `ops_per_block`.
        wrong_elements: Elements that were not the exact sum, on all ranks together.
        unsupported: Why the engine does not support this; `op_s` is then empty.
    """

    message_bytes: int
    dtype: str
    tensors: int
    ops_per_block: int
    op_s: tuple[float, ...]
    wrong_elements: int
    unsupported: str | None = None


@dataclass(frozen=True)
class Allreduce:
    """All-reduces of many sizes.

    Attributes:
        engine, transport, device: As in `Training`.
        points: One for each message.
    """

    engine: str
    transport: str
    device: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Loader:
    """A loader without a training.

    Attributes:
        engine: "loader".
        data, batch_per_rank, steps_per_block, block_s, rank_step_s, stopped_by: As in
            `Training`; a step is one batch.
        workers: Loader processes of each rank.
    """

    engine: str
    data: str
    batch_per_rank: int
    workers: int
    steps_per_block: int
    block_s: tuple[float, ...]
    rank_step_s: tuple[float, ...]
    stopped_by: str

    @property
    def block_rates(self) -> list[float]:
        """Samples/s of all ranks together in each block."""
        samples = len(self.rank_step_s) * self.batch_per_rank * self.steps_per_block
        return [samples / seconds for seconds in self.block_s]


Measured = Training | Allreduce | Loader
KINDS: dict[str, type[Training] | type[Allreduce] | type[Loader]] = {
    "training": Training,
    "allreduce": Allreduce,
    "input": Loader,
}


def to_dict(measured: Measured) -> dict[str, Any]:
    """The fields, for `json.dumps`."""
    return dataclasses.asdict(measured)


def from_dict(kind: str, fields: Mapping[str, Any]) -> Measured:
    """The measurement with these fields, from `json.loads`.

    Raises:
        HvdtoolsError: The kind is unknown, or a field is missing or unknown.
    """
    if kind not in KINDS:
        raise unknown_name("kind of result", kind, tuple(KINDS))
    checked = _checked(KINDS[kind], fields)
    if kind == "allreduce":
        checked["points"] = tuple(Point(**_checked(Point, point)) for point in fields["points"])
    if kind == "training":
        checked["phase_s"] = {name: tuple(ranks) for name, ranks in fields["phase_s"].items()}
    return KINDS[kind](**checked)


def _checked(made: type[Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass, lists as tuples."""
    expected = {field.name for field in dataclasses.fields(made)}
    if fields.keys() != expected:
        odd = ", ".join(sorted(fields.keys() ^ expected))
        raise HvdtoolsError(f"A result has missing or unknown fields ({odd}): was it edited?")
    return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
