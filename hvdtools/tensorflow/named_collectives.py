"""Horovod's collectives, matched between ranks by name, also in eager mode.

Horovod matches the ranks' operations by the name of the graph's node. TensorFlow
drops that name when an operation runs eagerly, and any two all-reduces would be
taken for the same one. In eager mode each therefore runs in a separate small graph.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import horovod.tensorflow as hvd
import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError

_INNER_GRAPHS = ("CondBranchFuncGraph", "WhileCondFuncGraph", "WhileBodyFuncGraph")


def allreduce(value: Any, op: Any, name: str) -> Any:
    """`value`, shape (n,), reduced over ranks by Horovod's `op`; `name` is the same on all."""
    return _run("allreduce", value, name, op)


def allgather(value: Any, name: str) -> Any:
    """The ranks' `value`s, shape (n_r, ...), concatenated; `name` is the same on all."""
    return _run("allgather", value, name, None)


def broadcast(value: Any, root: int, name: str) -> Any:
    """Rank `root`'s `value`, shape (n,) on every rank; `name` is the same on all."""
    return _run("broadcast", value, name, root)


def _run(kind: str, value: Any, name: str, option: Any) -> Any:
    if tf.executing_eagerly():
        return _graph_function(kind, name, value.dtype, option)(value)
    return _operation(kind, value, name, option)


@functools.cache
def _graph_function(kind: str, name: str, dtype: Any, option: Any) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        return _operation(kind, value, name, option)

    traced = tf.function(run, input_signature=[tf.TensorSpec(None, dtype)], autograph=False)
    # As a tf.function TensorFlow would take all of these for one function that it retraces.
    return traced.get_concrete_function()


def _operation(kind: str, value: Any, name: str, option: Any) -> Any:
    _refuse_xla()
    name = _unique_name(name)
    if kind == "allreduce":
        return hvd.allreduce(value, op=option, name=name, ignore_name_scope=True)
    if kind == "allgather":
        return hvd.allgather(value, name=name, ignore_name_scope=True)
    return hvd.broadcast(value, option, name=name, ignore_name_scope=True)


def _unique_name(name: str) -> str:
    """A different name for each operation of a traced function, the same on every rank.

    TensorFlow's own names are unique only within a scope, and scopes contain layer
    numbers that may differ between ranks. Operations are counted in the function with
    its branches and loop bodies, not in its callers: ranks may trace a function more or
    less often.
    """
    graph = tf.compat.v1.get_default_graph()
    while type(graph).__name__ in _INNER_GRAPHS:
        graph = graph.outer_graph
    counts = getattr(graph, "_hvdtools_names", None)
    if counts is None:
        counts = graph._hvdtools_names = Counter()
    counts[name] += 1
    function = re.sub(r"[^A-Za-z0-9_]", "_", getattr(graph, "name", ""))
    return f"{name}_{counts[name]}_in_{function}"


def _refuse_xla() -> None:
    # The only sign that a tf.function is traced with jit_compile=True.
    from tensorflow.python.ops import control_flow_util

    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        raise HvdtoolsError(
            "This step is compiled by XLA, which has no Horovod operations: call "
            "model.compile(..., jit_compile=False), or tf.function without jit_compile. (In "
            "model.fit, hvdtools.keras.callbacks() turns XLA off.)"
        )
