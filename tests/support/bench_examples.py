"""Small results of a benchmark run, for tests: complete except for the numbers a test gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hvdtools.bench.results.measured import PHASES, Allreduce, Loader, Measured, Point, Training
from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.engines import FAMILIES

BATCH = 10
STEPS = 10  # in a block: one that takes 1 s is 100 samples/s a rank
OPTIONS: Mapping[str, str | int | float] = {"model": "cnn", "data": "digits"}


def training_result(
    engine: str,
    ranks: int,
    repeat: int = 1,
    block_s: Sequence[float] = (1.0,) * 6,
    *,
    nodes: int = 1,
    family: str = "torch",
    scaling: str = "weak",
    interleaved: Sequence[str] | None = None,
    phase_s: Mapping[str, Sequence[float]] | None = None,
    rank_step_s: Sequence[float] | None = None,
    options: Mapping[str, str | int | float] = OPTIONS,
    run_id: str = "run-1",
    **measured: Any,
) -> Result:
    """A training that worked; `measured` are further fields of `Training`."""
    step_s = sorted(block_s)[len(block_s) // 2] / STEPS
    values: dict[str, Any] = {
        "engine": FAMILIES[family].engines[engine].program_engine,
        "transport": FAMILIES[family].engines[engine].transport,
        "device": "cpu",
        "model": str(options.get("model", "cnn")),
        "data": str(options.get("data", "digits")),
        "precision": str(options.get("precision", "float32")),
        "batch_per_rank": BATCH,
        "threads_per_rank": 1,
        "lr": 0.1 * ranks,
        "parameters": 1000,
        "gradient_bytes": 4000,
        "allreduces_per_step": None if engine == "no_comm" else 2,
        "steps_per_block": STEPS,
        "block_s": tuple(block_s),
        "rank_step_s": tuple(rank_step_s or (step_s,) * ranks),
        "phase_s": {name: tuple(each) for name, each in (phase_s or {}).items()},
        "peak_memory_bytes": (1_000_000,) * ranks,
        "stopped_by": "interval",
        "accuracy": 0.975,
        "in_sync": None if ranks == 1 or engine == "no_comm" else True,
    }
    return _result(
        engine,
        ranks,
        repeat,
        Training(**{**values, **measured}),
        kind="training",
        family=family,
        nodes=nodes,
        scaling=scaling,
        interleaved=interleaved,
        options=options,
        run_id=run_id,
    )


def phases(ranks: int, *seconds: float) -> dict[str, tuple[float, ...]]:
    """Input, forward, backward and optimizer, equal on every rank."""
    return {name: (each,) * ranks for name, each in zip(PHASES, seconds, strict=True)}


def allreduce_result(
    engine: str,
    ranks: int,
    repeat: int = 1,
    op_s: Mapping[int, Sequence[float]] | None = None,
    *,
    nodes: int = 1,
    dtype: str = "float32",
    tensors: int = 1,
    wrong_elements: int = 0,
    points: Sequence[Point] | None = None,
    interleaved: Sequence[str] | None = None,
    options: Mapping[str, str | int | float] | None = None,
    run_id: str = "run-1",
    **measured: Any,
) -> Result:
    """All-reduces that worked: message bytes -> seconds of one operation in each block.

    `points` replaces `op_s`, `dtype`, `tensors` and `wrong_elements`.
    """
    sizes = {1024: (0.001,) * 6} if op_s is None else op_s
    made = tuple(
        Point(size, dtype, tensors, 10, tuple(seconds), wrong_elements)
        for size, seconds in sizes.items()
    )
    known = FAMILIES["allreduce"].engines[engine]
    values: dict[str, Any] = {
        "engine": known.program_engine,
        "transport": known.transport,
        "device": "cpu",
        "points": made if points is None else tuple(points),
    }
    return _result(
        engine,
        ranks,
        repeat,
        Allreduce(**{**values, **measured}),
        kind="allreduce",
        family="allreduce",
        nodes=nodes,
        scaling=None,
        interleaved=interleaved,
        options=options or {},
        run_id=run_id,
    )


def loader_result(
    ranks: int,
    repeat: int = 1,
    block_s: Sequence[float] = (1.0,) * 6,
    *,
    data: str = "digits",
    nodes: int = 1,
    workers: int = 1,
    run_id: str = "run-1",
) -> Result:
    """A loader that worked."""
    step_s = sorted(block_s)[len(block_s) // 2] / STEPS
    measured = Loader(
        engine="loader",
        data=data,
        batch_per_rank=BATCH,
        workers=workers,
        steps_per_block=STEPS,
        block_s=tuple(block_s),
        rank_step_s=(step_s,) * ranks,
        stopped_by="interval",
    )
    return _result(
        "loader",
        ranks,
        repeat,
        measured,
        kind="input",
        family="input",
        nodes=nodes,
        scaling=None,
        interleaved=None,
        options={"data": data, "workers": workers},
        run_id=run_id,
    )


def failed(result: Result, why: str = "rank 1 ended with exit code 3: out of memory") -> Result:
    """The same case, had it failed."""
    return dataclasses.replace(result, measured=None, exit_code=3, error=why)


def _result(
    engine: str,
    ranks: int,
    repeat: int,
    measured: Measured,
    *,
    kind: str,
    family: str,
    nodes: int,
    scaling: str | None,
    interleaved: Sequence[str] | None,
    options: Mapping[str, str | int | float],
    run_id: str,
) -> Result:
    program = FAMILIES[family].program
    return Result(
        run_id=run_id,
        time_utc="2026-01-31T12:00:00+00:00",
        suite="demo",
        suite_digest="0" * 64,
        family=family,
        kind=kind,
        program=program,
        options=dict(options),
        engine=engine,
        interleaved=tuple(interleaved or (engine,)),
        scaling=scaling,
        ranks=ranks,
        nodes=nodes,
        repeat=repeat,
        wall_s=5.0,
        exit_code=0,
        error=None,
        command=f"hvdtools launch -n {ranks} -- python benchmarks/{program} --engine {engine}",
        versions={"hvdtools": "0.1.0", "mpi": "Open MPI 5.0.11"},
        hardware={"cpu": "A CPU", "cores_usable": 2, "memory_gib": 8.0, "gpus": []},
        environment={"OMP_NUM_THREADS": "1"},
        measured=measured,
    )
