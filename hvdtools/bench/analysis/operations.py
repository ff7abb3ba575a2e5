"""The measured all-reduces of what moves a training's gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hvdtools.bench.analysis import repeats as repeats_
from hvdtools.bench.analysis.bootstrap import Floats, Repeat, generator, resample, widened
from hvdtools.bench.analysis.curves import kinds_of, points_of
from hvdtools.bench.analysis.repeats import Repeats
from hvdtools.bench.analysis.workloads import workloads_of
from hvdtools.bench.results.measured import Training
from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.engines import FAMILIES
from hvdtools.core.errors import HvdtoolsError

Size = tuple[int, int]  # ranks, nodes
# Whose all-reduces move an engine's gradients.
_REDUCERS = {"hvdtools": "horovod", "horovod": "horovod", "ddp": "torch"}


def operations_of(
    results: Sequence[Result], family: str, engine: str, training: Training, draws: int
) -> dict[Size, dict[int, Floats]]:
    """The all-reduces of what moves this engine's gradients, float32 in one tensor.

    Raises:
        HvdtoolsError: None were measured, or no program measures them.
    """
    name = _reducer(family, engine)
    made: dict[Size, dict[int, Floats]] = {}
    for of_one in workloads_of([each for each in results if each.kind == "allreduce"]).values():
        for size, mine in by_size(of_one, name).items():
            moved = {
                (each.allreduce.transport, each.allreduce.device)
                for each in mine.values()
                if each.allreduce is not None
            }
            if size[0] > 1 and moved == {(training.transport, training.device)}:
                made.setdefault(size, {}).update(_op_seconds(mine, draws))
    if not any(made.values()):
        raise HvdtoolsError(
            f"No all-reduce of {name} was measured over {training.transport} on "
            f"{training.device}, so nothing says what {engine}'s communication costs: run "
            f'allreduce.py with engines = ["{name}"] and dtype = "float32" in the same suite.'
        )
    return made


def by_size(results: Sequence[Result], engine: str) -> dict[Size, Repeats]:
    """What worked, by ranks and nodes."""
    found = {
        (ranks, nodes): repeats_.worked(results, name, ranks, nodes)
        for name, ranks, nodes in repeats_.sizes(results)
        if name == engine
    }
    return {size: repeats for size, repeats in found.items() if repeats}


def seconds_of(repeats: Sequence[Repeat], draws: int) -> Floats:
    """From logarithms: what was measured, then so many draws.

    The random numbers are the same for all, so that a repeat that is drawn for one is
    drawn for all that were measured in as many repeats: they share its luck.
    """
    drawn = resample(repeats, generator(), max(draws, 1))
    return np.concatenate([[math.exp(drawn.middle)], widened(drawn)[:draws]])


def _reducer(family: str, engine: str) -> str:
    """The engine of allreduce.py that sends as a training's engine does.

    Raises:
        HvdtoolsError: There is none.
    """
    trained = FAMILIES[family].engines[engine]
    for name, known in FAMILIES["allreduce"].engines.items():
        if (known.program_engine, known.launcher) == (
            _REDUCERS.get(trained.program_engine),
            trained.launcher,
        ):
            return name
    raise HvdtoolsError(
        f"allreduce.py cannot measure what moves the gradients of {engine}: predict an engine of "
        "hvdtools or Horovod, or ddp."
    )


def _op_seconds(repeats: Repeats, draws: int) -> dict[int, Floats]:
    kinds = kinds_of(repeats)
    if ("float32", 1) not in kinds:
        return {}
    return {
        message_bytes: seconds_of([(np.log(point.op_s),) for point in measured.values()], draws)
        for message_bytes, measured in points_of(repeats, "float32", 1).items()
    }
