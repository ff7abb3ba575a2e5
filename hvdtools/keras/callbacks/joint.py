"""What all ranks measured together, from what each of them measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.tensorflow import named
from hvdtools.tensorflow.collect import gather_object

# A name -> a float, or an array for a metric of several numbers.
Results = dict[str, Any]


@dataclass(frozen=True)
class Joint:
    """The results of a model's metrics.

    Attributes:
        mine: Of this rank's samples.
        all: Of all ranks' samples.
        count: This rank's samples.
    """

    mine: Results
    all: Results
    count: float


def metrics_of(model: Any, where: str) -> Joint:
    """The metrics' results over all ranks' samples. Every rank calls it.

    The metrics' variables are combined as Keras declares them to be (their
    `aggregation`: all that `add_variable` makes are added up, unless it is told
    otherwise; of a bare `keras.Variable` rank 0's counts), and the results are
    taken from those: joint samples, joint AUC. The metrics themselves stay the
    rank's own.

    Args:
        where: The point of the script; ranks that are at different ones raise.

    Raises:
        HvdtoolsError: The ranks are not at the same point, or have other metrics.
    """
    variables = _distinct(model.metrics_variables)
    layout = [(tuple(v.shape), v.aggregation) for v in variables]
    _require_same(gather_object((where, layout), "hvdtools.metrics.layout"))
    mine = _results(model)
    before = [np.asarray(variable) for variable in variables]
    _set(variables, _combined(variables, before))
    together = _results(model)
    _set(variables, before)
    return Joint(mine, together, _samples(model))


def _distinct(variables: Sequence[Any]) -> list[Any]:
    return list({id(variable): variable for variable in variables}.values())


def _require_same(everyone: Sequence[tuple[str, Any]]) -> None:
    for rank, (where, layout) in enumerate(everyone):
        if where != everyone[0][0]:
            raise HvdtoolsError(
                f"Rank 0 is at {everyone[0][0]} and rank {rank} at {where}: give fit() the same "
                "epochs, initial_epoch, validation_freq and kind of validation_data on every rank "
                "(a rank's part may be empty)."
            )
        if layout != everyone[0][1]:
            raise HvdtoolsError(
                f"Rank {rank}'s metrics differ from rank 0's in number or shape: compile the model "
                "with the same ones on every rank."
            )


def _combined(variables: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    shares = [_share(variable.aggregation) for variable in variables]
    flat = [
        np.zeros(value.size) if share == 0 else value.astype(np.float64).reshape(-1) * share
        for value, share in zip(values, shares, strict=True)
    ]
    mine = tf.constant(np.concatenate([np.zeros(0), *flat]))
    total = named.allreduce(mine, hvd.Sum, "hvdtools.metrics").numpy()
    *pieces, _ = np.split(total, np.cumsum([value.size for value in values]))
    return [
        piece.reshape(value.shape).astype(value.dtype)
        for piece, value in zip(pieces, values, strict=True)
    ]


def _share(aggregation: str) -> float:
    """What this rank's value counts for in a sum over ranks."""
    if aggregation == "sum":
        return 1.0
    if aggregation == "mean":
        return 1 / hvd.size()
    return float(hvd.rank() == 0)  # "none", "only_first_replica"


def _set(variables: Sequence[Any], values: Sequence[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _results(model: Any) -> Results:
    found = {name: _number(value) for name, value in model.get_metrics_result().items()}
    return {name: value for name, value in found.items() if value is not None}


def _number(value: Any) -> Any:
    """A float or an array; None for what is neither."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None
    return float(array) if array.ndim == 0 else array


def _samples(model: Any) -> float:
    """The samples in Keras' loss since the metrics were reset; 0 where it is not tracked."""
    trackers = [
        metric
        for metric in model.metrics
        if metric.name == "loss" and isinstance(metric, keras.metrics.Mean)
    ]
    return float(trackers[0].count) if trackers else 0.0


def logs_of(joint: Joint, logs: Mapping[str, Any]) -> Results:
    """The joint values for all that the ranks' logs hold. Every rank calls it.

    What equals a metric's result is that metric's. Anything else, from a
    `train_step` of one's own, is averaged over ranks by their samples.

    Args:
        logs: This rank's; without any where it had no sample.
    """
    mine = {name: number for name in logs if (number := _number(logs[name])) is not None}
    others = {name: value for name, value in mine.items() if not _same(joint.mine, name, value)}
    everyone = gather_object((list(mine), others, joint.count, joint.all), "hvdtools.logs")
    names = dict.fromkeys(name for held, *_ in everyone for name in held)
    return {name: _of_all(name, everyone) for name in names}


def _of_all(name: str, everyone: Sequence[tuple[list[str], Results, float, Results]]) -> Any:
    parts = [(values[name], count) for _, values, count, _ in everyone if name in values]
    if parts:
        return _mean(parts)
    # A metric that keeps its state in Python is not the same on all ranks even then.
    together = [(results[name], count) for *_, count, results in everyone]
    first = together[0][0]
    same = all(np.array_equal(value, first, equal_nan=True) for value, _ in together)
    return first if same else _mean(together)


def _same(results: Results, name: str, value: Any) -> bool:
    return name in results and np.array_equal(results[name], value, equal_nan=True)


def _mean(parts: Sequence[tuple[Any, float]]) -> Any:
    values, counts = zip(*parts, strict=True)
    weights = counts if sum(counts) else [1.0] * len(counts)
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
