"""Metrics over all ranks' samples: in the logs of `fit`, and in `evaluate()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.keras.callbacks.rank_zero import callbacks_of_rank
from hvdtools.tensorflow import named_collectives
from hvdtools.tensorflow.collectives import gather_object
from hvdtools.tensorflow.session import require_started

# A name -> a float, or an array for a metric of several numbers.
Results = dict[str, Any]


def evaluate(model: keras.Model, x: Any, y: Any = None, **options: Any) -> dict[str, Any]:
    """`model.evaluate` on every rank's shard, with the results for all samples on every rank.

    The metrics' states are combined, so that an AUC is that of all samples and a mean
    gives every sample the same weight, however unevenly they are spread. Rank 0 prints.

    Args:
        model: A compiled model, the same on every rank.
        x, y: This rank's shard, as for `model.evaluate`, such as
            `hvt.shard(dataset, uneven="ragged")`. It may be empty.
        options: More arguments of `model.evaluate`.

    Returns:
        {name: value}, the same on every rank.

    Raises:
        HvdtoolsError: `init()` was not called, or the model has different metrics on
            some ranks.
    """
    require_started("evaluate()")
    if "return_dict" in options:
        raise HvdtoolsError("evaluate() always returns a dict: leave return_dict out.")
    global_metrics = GlobalMetrics()
    own = callbacks_of_rank(keras.tree.flatten(options.pop("callbacks", None) or []))
    if hvd.rank():
        options["verbose"] = 0
    model.evaluate(x, y, callbacks=[global_metrics, *own], return_dict=True, **options)
    return global_metrics.evaluated


class GlobalMetrics(keras.callbacks.Callback):
    """Replaces the logs by those of all ranks' samples, for the callbacks after it.

    Attributes:
        evaluated: The results of the last evaluation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.evaluated: Results = {}
        self._epoch: int | None = None
        # Of this epoch: taken before the validation resets the metrics.
        self._training: _Measured | None = None
        self._validation: Results = {}
        self._last: Results = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._training, self._validation = epoch, None, {}

    def on_test_begin(self, logs: Any = None) -> None:
        if hvd.size() > 1 and self._epoch is not None:
            self._training = _measure(self.model, f"the validation of epoch {self._epoch + 1}")

    def on_test_end(self, logs: Any = None) -> None:
        if hvd.size() > 1:
            logs.update(_global_logs(_measure(self.model, "the end of an evaluation"), logs))
        self.evaluated = dict(logs)
        self._validation = {f"val_{name}": value for name, value in logs.items()}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if hvd.size() == 1:
            return
        measured = self._training or _measure(self.model, f"the end of epoch {epoch + 1}")
        of_training = {name: logs[name] for name in logs if name not in self._validation}
        logs.update(_global_logs(measured, of_training), **self._validation)
        self._last = dict(logs)

    def on_train_end(self, logs: Any = None) -> None:
        logs.update(self._last)
        self._epoch = None


@dataclass(frozen=True)
class _Measured:
    """The results of a model's metrics.

    Attributes:
        own: Over this rank's samples.
        over_all_ranks: Over all ranks' samples.
        count: The number of this rank's samples.
    """

    own: Results
    over_all_ranks: Results
    count: float


def _measure(model: Any, point: str) -> _Measured:
    """The metrics' results over all ranks' samples. Every rank calls it.

    The metrics' variables are combined as Keras declares (by their `aggregation`: those
    of `add_variable` are summed by default; of a bare `keras.Variable`
    rank 0's value is used), and the results are computed from them. So an AUC is that of
    all samples. The metrics themselves keep this rank's values.

    Args:
        point: The point of training; ranks at different points raise.

    Raises:
        HvdtoolsError: The ranks are at different points, or have different metrics.
    """
    variables = list({id(variable): variable for variable in model.metrics_variables}.values())
    layout = [(tuple(v.shape), v.aggregation) for v in variables]
    _require_same(gather_object((point, layout), "hvdtools.metrics.layout"))
    own = _results(model)
    before = [np.asarray(variable) for variable in variables]
    _assign(variables, _combine(variables, before))
    over_all_ranks = _results(model)
    _assign(variables, before)
    return _Measured(own, over_all_ranks, _sample_count(model))


def _require_same(all_ranks: Sequence[tuple[str, Any]]) -> None:
    first_point, first_layout = all_ranks[0]
    for rank, (point, layout) in enumerate(all_ranks):
        if point != first_point:
            raise HvdtoolsError(
                f"Rank 0 is at {first_point} and rank {rank} at {point}: give fit() the same "
                "epochs, initial_epoch, validation_freq and kind of validation_data on every rank "
                "(a rank's shard may be empty)."
            )
        if layout != first_layout:
            raise HvdtoolsError(
                f"Rank {rank}'s metrics differ from rank 0's in number or shape: compile the model "
                "with the same ones on every rank."
            )


def _combine(variables: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    weights = [_weight_in_sum(variable.aggregation) for variable in variables]
    flat = [
        np.zeros(value.size) if weight == 0 else value.astype(np.float64).reshape(-1) * weight
        for value, weight in zip(values, weights, strict=True)
    ]
    own = tf.constant(np.concatenate([np.zeros(0), *flat]))
    total = named_collectives.allreduce(own, hvd.Sum, "hvdtools.metrics").numpy()
    *pieces, _ = np.split(total, np.cumsum([value.size for value in values]))
    return [
        piece.reshape(value.shape).astype(value.dtype)
        for piece, value in zip(pieces, values, strict=True)
    ]


def _weight_in_sum(aggregation: str) -> float:
    """The weight of this rank's value in a sum over ranks."""
    if aggregation == "sum":
        return 1.0
    if aggregation == "mean":
        return 1 / hvd.size()
    return float(hvd.rank() == 0)  # "none", "only_first_replica"


def _assign(variables: Sequence[Any], values: Sequence[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _results(model: Any) -> Results:
    found = {name: _to_number(value) for name, value in model.get_metrics_result().items()}
    return {name: value for name, value in found.items() if value is not None}


def _to_number(value: Any) -> Any:
    """A float or an array; None for anything else."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None
    return float(array) if array.ndim == 0 else array


def _sample_count(model: Any) -> float:
    """The samples in Keras' loss since the metrics were reset; 0 if it is not tracked."""
    trackers = [
        metric
        for metric in model.metrics
        if metric.name == "loss" and isinstance(metric, keras.metrics.Mean)
    ]
    return float(trackers[0].count) if trackers else 0.0


def _global_logs(measured: _Measured, logs: Mapping[str, Any]) -> Results:
    """The values over all ranks for everything in the ranks' logs. Every rank calls it.

    A value that equals a metric's result is that metric's. Others, from a custom
    `train_step`, are averaged over ranks, weighted by their samples.

    Args:
        logs: This rank's; empty if it had no sample.
    """
    own = {name: number for name in logs if (number := _to_number(logs[name])) is not None}
    others = {
        name: value
        for name, value in own.items()
        if name not in measured.own or not _equal(measured.own[name], value)
    }
    all_ranks = gather_object(
        (list(own), others, measured.count, measured.over_all_ranks), "hvdtools.logs"
    )
    names = dict.fromkeys(name for held, *_ in all_ranks for name in held)
    return {name: _global_value(name, all_ranks) for name in names}


def _global_value(name: str, all_ranks: Sequence[tuple[list[str], Results, float, Results]]) -> Any:
    values = [(others[name], count) for _, others, count, _ in all_ranks if name in others]
    if values:
        return _weighted_mean(values)
    # A metric with state in Python may differ between ranks even after its variables agree.
    results = [(results[name], count) for *_, count, results in all_ranks]
    first = results[0][0]
    same = all(_equal(value, first) for value, _ in results)
    return first if same else _weighted_mean(results)


def _equal(a: Any, b: Any) -> bool:
    return np.array_equal(a, b, equal_nan=True)


def _weighted_mean(values_and_counts: Sequence[tuple[Any, float]]) -> Any:
    values, counts = zip(*values_and_counts, strict=True)
    weights = counts if sum(counts) else [1.0] * len(counts)
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
