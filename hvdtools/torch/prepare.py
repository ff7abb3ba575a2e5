"""Make a model and its optimizer ready for data-parallel training."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import horovod.torch as hvd
import torch
from torch.nn import Module
from torch.optim import Optimizer

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import log_first_step, logger
from hvdtools.torch.collect import average
from hvdtools.torch.gradients.autograd_hooks import OutputHook
from hvdtools.torch.gradients.reducer import Reducer
from hvdtools.torch.gradients.transport import AllreduceTransport, GradientTransport
from hvdtools.torch.norm.layers import sync_batchnorm as synchronize
from hvdtools.torch.replicate import replicate_module, replicate_optimizer, require_same_model
from hvdtools.torch.session import require_started

ModelT = TypeVar("ModelT", bound=Module)
OptimizerT = TypeVar("OptimizerT", bound=Optimizer)

# A model's reducer lives as long as the model, and an optimizer is known by
# itself, so that a second prepare() can be told from the first.
_reducers: weakref.WeakKeyDictionary[Module, Reducer] = weakref.WeakKeyDictionary()
_options: weakref.WeakKeyDictionary[Module, dict[str, Any]] = weakref.WeakKeyDictionary()
_optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
_numbers = itertools.count()
_ALLREDUCE = AllreduceTransport()


def prepare(
    model: ModelT,
    optimizer: OptimizerT,
    *,
    accumulate: int = 1,
    bucket_mib: float = 25.0,
    sync_batchnorm: bool = False,
    check_every: int = 100,
    transport: GradientTransport = _ALLREDUCE,
) -> tuple[ModelT, OptimizerT]:
    """Broadcast rank 0's weights and average gradients over ranks from now on.

    Both objects are returned unwrapped. When `backward()`
    returns, every `.grad` is the average over ranks, or None where no rank used
    that parameter; clipping, scaling, schedulers and closures need nothing
    special. A rank that did not use a parameter counts as a zero, as in one
    process on the joined batch. A closure given to `optimizer.step` returns its
    loss averaged over ranks, so that line searches decide alike everywhere.

    The average over ranks equals one process on the joined batch where each
    rank's loss is a mean over equally many samples; otherwise give the
    backward pass a `weight`, or the loader `shard(uneven="weighted")`.

    Call it on every rank, in the same order, after moving the model to its
    device. A second optimizer of the same model is prepared by a second call.

    Args:
        model: The same architecture on every rank. Frozen parameters may be
            thawed later, on all ranks alike.
        optimizer: Over parameters of `model`.
        accumulate: Backward passes for each all-reduce. Gradients add up over
            them as in PyTorch itself and are **not divided** by it: divide the
            loss if you want their mean. `step()` belongs after the last.
        bucket_mib: Size, in MiB, at which a gradient bucket is sent.
        sync_batchnorm: Let batch-norm layers, in training, normalize over the
            batches of all ranks, as one process on the joined batch does; an
            all-reduce for each layer and direction. Otherwise each rank uses and
            keeps per-rank statistics, which is faster and trains
            another model: use `hvt.save` so that all ranks resume from rank 0's.
        check_every: Steps between two comparisons of weights and averaged
            gradients over ranks, by checksums that travel while training goes on;
            the first three steps always. Replicas that diverged raise on every
            rank, and gradients that are NaN or infinite are logged, with rank and
            parameter. 0 for none.
        transport: How gradients travel, of the same kind on every rank: an object with
            the methods of `hvdtools.torch.gradients.transport.GradientTransport`.

    Returns:
        The same `model` and `optimizer`.

    Raises:
        HvdtoolsError: An argument cannot be used, or the ranks' models differ.
    """
    require_started("prepare()")
    _check(model, optimizer, accumulate, bucket_mib, check_every)
    label = f"hvdtools.{next(_numbers)}"
    if sync_batchnorm:
        count = synchronize(model, label)
        logger.info(f"batch-norm layers that share their statistics over ranks: {count}")
    require_same_model(model, label)
    reducer = _reducers.get(model)
    options = {
        "accumulate": accumulate,
        "bucket_mib": bucket_mib,
        "check_every": check_every,
        "transport": transport,
    }
    if reducer is not None and _options[model] != options:
        raise HvdtoolsError(
            f"The model is prepared with {_options[model]}: give its second optimizer the same."
        )
    if reducer is None:
        replicate_module(model, 0, label)
        reducer = Reducer(
            list(model.named_parameters()),
            label=label,
            accumulate=accumulate,
            bucket_bytes=bucket_mib * 2**20,
            check_every=check_every,
            transport=transport,
        )
        _reducers[model] = reducer
        _options[model] = options
        model.register_forward_hook(OutputHook(reducer.on_output_gradient))
    replicate_optimizer(optimizer, label)
    _optimizers.add(optimizer)
    optimizer.register_step_pre_hook(_StepCheck(reducer))
    _tell_first_step(optimizer)
    return model, optimizer


def _tell_first_step(optimizer: Optimizer) -> None:
    """Log the first step. The hook stays: removing it would break the loop over the hooks."""
    rank = hvd.rank()
    optimizer.register_step_post_hook(lambda *_: log_first_step(rank))


def _check(
    model: Module, optimizer: Optimizer, accumulate: int, bucket_mib: float, check_every: int
) -> None:
    if isinstance(model, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
        raise HvdtoolsError(
            f"prepare() got a model wrapped in {type(model).__name__}, which would average or "
            "split a second time: pass the plain model."
        )
    if not isinstance(accumulate, int) or accumulate < 1:
        raise HvdtoolsError(f"accumulate={accumulate!r} must be a whole number of at least 1.")
    if not isinstance(check_every, int) or check_every < 0:
        raise HvdtoolsError(f"check_every={check_every!r} must be a whole number of 0 or more.")
    if not bucket_mib > 0:
        raise HvdtoolsError(f"bucket_mib={bucket_mib!r} must be above 0.")
    if optimizer in _optimizers:
        raise HvdtoolsError("This optimizer is prepared already: call prepare() once for it.")
    parameters = list(model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        raise HvdtoolsError(
            "The model has no trainable parameter, so there is nothing to average: thaw some with "
            "requires_grad_(True) before prepare()."
        )
    own = {id(parameter) for parameter in parameters}
    strangers = sum(id(p) not in own for group in optimizer.param_groups for p in group["params"])
    if strangers:
        raise HvdtoolsError(
            f"The optimizer holds {strangers} parameters that are not the model's, which would "
            "not be averaged: make the optimizer from this model's parameters (after moving "
            "or wrapping the model)."
        )
    for other in _reducers:
        if other is not model and any(id(parameter) in own for parameter in other.parameters()):
            raise HvdtoolsError(
                "The model shares parameters with one that is prepared already: put both into one "
                "torch.nn.ModuleList and prepare that, once for each optimizer."
            )


class _StepCheck:
    """Before each `optimizer.step`: gradients are averaged, and a closure's loss too."""

    def __init__(self, reducer: Reducer) -> None:
        self._reducer = reducer
        self._rounds = reducer.rounds  # when this optimizer last stepped

    def __call__(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if len(args) > 1 and callable(args[1]):
            return (args[0], self._averaging(args[1]), *args[2:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._averaging(kwargs["closure"])}
        self._require_round()
        return None

    def _require_round(self) -> None:
        self._reducer.require_reduced()
        if self._reducer.rounds == self._rounds:
            self._reducer.reduce_nothing()
        self._rounds = self._reducer.rounds

    def _averaging(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def averaged() -> Any:
            loss = closure()
            self._require_round()
            return None if loss is None else average(loss, count=self._reducer.last_weight)

        return averaged


@contextmanager
def no_sync(model: Module | None = None) -> Iterator[None]:
    """Let gradients add up on each rank: `backward()` inside sends nothing.

    The first `backward()` after it averages all that has added up, as with
    DistributedDataParallel. Passes inside do not count towards `accumulate`.

    Args:
        model: A prepared model; all prepared models where it is left out.

    Raises:
        HvdtoolsError: `model` was not prepared.
    """
    if model is not None and model not in _reducers:
        raise HvdtoolsError("no_sync() got a model that was not prepared: call prepare() first.")
    paused = list(_reducers.values()) if model is None else [_reducers[model]]
    with ExitStack() as stack:
        for reducer in paused:
            reducer.paused += 1
            stack.callback(_resume, reducer)
        yield


def _resume(reducer: Reducer) -> None:
    reducer.paused -= 1
