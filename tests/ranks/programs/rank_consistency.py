"""Run in every rank: weights of gradients, idle ranks, and the consistency check."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import nullcontext

import horovod.torch as hvd
import torch
from checking import DEVICE, buckets_sent, heard, refused, run_checks
from torch import Tensor, nn

import hvdtools.torch as hvt
from hvdtools.core.errors import HvdtoolsError
from hvdtools.torch.checksum import Comparison, checksum, checksums

TOPOLOGY = hvt.init()
RANK, SIZE = TOPOLOGY.rank, TOPOLOGY.size
LAST = SIZE - 1
# The host runs ahead of the GPU: what the ranks signal is read a step later.
DEFERRED = DEVICE != "cpu" and os.environ.get("HOROVOD_ENABLE_ASYNC_COMPLETION", "0") != "0"


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def prepared(**options: object) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    model = network()
    options = {"bucket_mib": 1e-5, "check_every": 1, **options}
    return hvt.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


def inputs(step: int, rank: int = RANK) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(100 * step + rank)
    return torch.randn(4, 3, generator=generator, dtype=torch.float64, device="cpu").to(DEVICE)


def loss(model: nn.Module, step: int) -> Tensor:
    return model(inputs(step)).square().mean()


def own_gradients(model: nn.Module, step: int) -> Sequence[Tensor]:
    """This rank's gradients; torch.autograd.grad runs no hook of hvdtools'."""
    return torch.autograd.grad(loss(model, step), list(model.parameters()))


def assert_gradients(model: nn.Module, expected: Sequence[Tensor]) -> None:
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-12, atol=1e-15)


def weight_of(rank: int, step: int) -> float:
    """Different for each rank and step; 0 on rank 1 in steps 1 and 4."""
    return 0.0 if rank == 1 and step % 3 == 1 else 1.0 + rank + 3 * (step % 2)


def broken(value: Tensor, weight: float) -> Tensor:
    """NaN where nothing counts, as a mean over nothing is."""
    return value * math.nan if weight == 0 else value


def check_weighted_gradients() -> None:
    model, optimizer = prepared()
    for step in range(3):
        mine = weight_of(RANK, step)
        expected = [hvt.average(g, count=mine) for g in own_gradients(model, step)]
        for to_none in (True, False):
            optimizer.zero_grad(set_to_none=to_none)
            with hvt.weight(mine):
                broken(loss(model, step), mine).backward()
            assert_gradients(model, expected)
        optimizer.step()
    hvt.assert_in_sync(model, optimizer)


def weighted_sum(model: nn.Module, steps: Sequence[int]) -> list[Tensor]:
    """``passes * sum(w * g) / sum(w)`` over passes and ranks, from each rank's own gradients."""
    weights = [weight_of(RANK, step) for step in steps]
    total = [torch.zeros_like(p) for p in model.parameters()]
    for step, mine in zip(steps, weights, strict=True):
        for sum_, gradient in zip(total, own_gradients(model, step), strict=True):
            sum_ += mine * gradient
    share = hvt.average(sum(weights)) / len(steps)
    return [hvt.average(sum_) / share for sum_ in total]


def check_weighted_accumulation() -> None:
    model, optimizer = prepared(accumulate=3)
    for steps in ((0, 1, 2), (1, 2, 3), (2, 3, 4), (1, 4, 7), (3, 5, 9)):
        expected = weighted_sum(model, steps)
        optimizer.zero_grad()
        for step in steps:
            # Looking at derivatives meanwhile changes nothing.
            own_gradients(model, step)
            with hvt.weight(weight_of(RANK, step)):
                broken(loss(model, step), weight_of(RANK, step)).backward()
        assert_gradients(model, expected)
        optimizer.step()
    hvt.assert_in_sync(model, optimizer)


def check_weighted_no_sync() -> None:
    model, optimizer = prepared()
    expected = weighted_sum(model, (0, 1, 2))
    optimizer.zero_grad(set_to_none=False)
    with hvt.no_sync(model):
        for step in (0, 1):
            with hvt.weight(weight_of(RANK, step)):
                broken(loss(model, step), weight_of(RANK, step)).backward()
    with hvt.weight(weight_of(RANK, 2)):
        loss(model, 2).backward()
    assert_gradients(model, expected)


def check_derivatives_under_weight_0_leave_gradients_alone() -> None:
    model, _ = prepared()
    loss(model, 0).backward()
    before = [p.grad.clone() for p in model.parameters()]
    with hvt.weight(0):
        own_gradients(model, 1)
    assert_gradients(model, before)


def check_a_parameter_that_only_stand_ins_use() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)})
    hvt.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with hvt.weight(0 if RANK == LAST else 2):
        model["b" if RANK == LAST else "a"](torch.ones(1, 2)).sum().backward()
    assert torch.equal(model["a"].weight.grad, torch.ones(1, 2))
    assert model["b"].weight.grad is None


def check_weights_that_are_refused() -> None:
    model, optimizer = prepared()

    def one_rank_without() -> None:
        if RANK == LAST:
            loss(model, 0).backward()
        else:
            with hvt.weight(2):
                loss(model, 0).backward()

    sentence = f"Only {SIZE - 1} of {SIZE} ranks gave their gradients a weight"
    if DEFERRED:
        one_rank_without()
        refused(sentence, lambda: loss(model, 1).backward())
        return  # this rank may have stepped: it goes no further
    refused(sentence, one_rank_without)
    # What came of it must not be stepped on.
    refused("not averaged over ranks", optimizer.step)
    optimizer.zero_grad()

    def nobody_counts() -> None:
        with hvt.weight(0):
            loss(model, 0).backward()

    refused("Every rank gave its gradients weight 0", nobody_counts)
    optimizer.zero_grad()

    def half_weighted() -> None:
        with hvt.no_sync(model):
            loss(model, 0).backward()
        with hvt.weight(1):
            loss(model, 1).backward()

    refused("have a weight and some have none", half_weighted)
    optimizer.zero_grad()
    loss(model, 0).backward()
    optimizer.step()
    hvt.assert_in_sync(model)
    refused("must be a finite number of 0 or more", lambda: hvt.weight(-1).__enter__())
    refused("must be a finite number of 0 or more", lambda: hvt.weight(math.nan).__enter__())


def check_weighted_passes_on_top_of_an_earlier_step() -> None:
    model, _ = prepared(accumulate=2)
    for step in range(2):
        loss(model, step).backward()

    def again() -> None:
        with hvt.weight(2):
            loss(model, 2).backward()

    refused("call zero_grad() after each step", again)


def check_a_closures_loss_is_weighted() -> None:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=1)
    hvt.prepare(model, optimizer)
    expected = hvt.average(loss(model, 0).item(), count=RANK + 1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        with hvt.weight(RANK + 1):
            value = loss(model, 0)
            value.backward()
        return value

    assert abs(float(optimizer.step(closure)) - expected) < 1e-15


def check_diverged_weights_are_named() -> None:
    model, optimizer = prepared()
    for step in range(3):
        optimizer.zero_grad()
        loss(model, step).backward()
        optimizer.step()
    with torch.no_grad():
        if RANK == 1:  # by the last bit
            model[2].weight[0, 1] = torch.nextafter(
                model[2].weight[0, 1], torch.tensor(9.0).double()
            )
    optimizer.zero_grad()
    loss(model, 3).backward()  # compared in this step ...
    optimizer.step()
    optimizer.zero_grad()
    sentence = "at step 4: rank 1 differs from the others in the weight 2.weight"
    refused(sentence, lambda: loss(model, 4).backward())  # ... and told in the next
    refused("the weight 2.weight", lambda: hvt.assert_in_sync(model))


def check_the_consistency_check_runs_in_some_steps() -> None:
    model, optimizer = prepared(check_every=5)
    seen: list[str] = []
    original = hvd.allreduce_async

    def watched(*arguments: object, **options: object) -> int:
        seen.append(str(options["name"]))
        handle: int = original(*arguments, **options)
        return handle

    hvd.allreduce_async = watched
    due = []
    try:
        for step in range(1, 12):
            seen.clear()
            optimizer.zero_grad()
            loss(model, step).backward()
            due += [step] if any("check" in name for name in seen) else []
    finally:
        hvd.allreduce_async = original
    assert due == [1, 2, 3, 5, 10], due


def check_assert_in_sync() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU()).to(
        memory_format=torch.channels_last
    )
    model.register_buffer("mask", torch.ones(3, dtype=torch.bool))
    optimizer = torch.optim.AdamW(model.parameters())
    hvt.prepare(model, optimizer)
    torch.manual_seed(RANK)
    model(torch.randn(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    # Each rank has its own running statistics by now.
    assert not torch.equal(hvt.broadcast(model[1].running_mean.clone()), model[1].running_mean) or (
        RANK == 0
    )
    hvt.assert_in_sync(model, optimizer)
    state = optimizer.state[model[0].bias]["exp_avg"]
    state += RANK == LAST
    sentence = f"rank {LAST} differs from the others in the optimizer's exp_avg of 0.bias"
    refused(sentence, lambda: hvt.assert_in_sync(model, optimizer))
    model.mask[0] = RANK != LAST
    refused("the buffer mask", lambda: hvt.assert_in_sync(model))
    model.register_buffer("extra", torch.ones(1)) if RANK == LAST else None
    refused("do not hold the same tensors (the buffer extra)", lambda: hvt.assert_in_sync(model))


def check_comparison_of_numbers() -> None:
    ends = [-(2**63), 2**63 - 1, 0, -1]
    same = Comparison(torch.tensor(ends), "same")
    assert same.conclude() == {}
    odd = torch.tensor(ends)
    odd[1] -= int(RANK == LAST)
    odd[3] += int(RANK == 0)
    # Of three, two are right; of two, rank 0 is.
    expected = {1: [LAST], 3: [0] if SIZE > 2 else [1]}
    assert Comparison(odd, "odd").conclude() == expected


def check_nan_on_one_rank_is_named_on_all() -> None:
    model, optimizer = prepared()
    with heard() as lines:
        for step in range(2 + DEFERRED):
            optimizer.zero_grad()
            value = loss(model, step)
            if (RANK, step) == (1, 1):
                value = value * math.inf
            value.backward()
    (line,) = [line for line in lines if "NaN" in line]
    assert "gradients of rank 1 were NaN or infinite (2.bias and 3 more)" in line, line
    assert line.startswith("step 2: "), line
    assert DEFERRED or not any(p.grad.isfinite().any() for p in model.parameters())


def check_a_loss_that_touches_no_parameter() -> None:
    model, optimizer = prepared()
    for step in range(4):
        gradients = own_gradients(model, step)
        idle = (RANK, step) in ((1, 2), (0, 3))
        shares = [torch.zeros_like(g) if idle else g for g in gradients]
        expected = [
            p - 0.1 * hvt.average(g) for p, g in zip(model.parameters(), shares, strict=True)
        ]
        optimizer.zero_grad()
        with heard() as lines:
            if idle:
                inputs(step).requires_grad_().sum().backward()
            else:
                loss(model, step).backward()
            optimizer.step()
        for parameter, value in zip(model.parameters(), expected, strict=True):
            assert torch.allclose(parameter, value, rtol=1e-12, atol=1e-15)
        told = f"rank {RANK} came to step() {step + 1} without a new gradient"
        assert any(told in line for line in lines) == idle, lines
    hvt.assert_in_sync(model, optimizer)


def check_an_idle_rank_among_weighted_ones() -> None:
    model, optimizer = prepared()
    for step in range(3):
        mine = 0.0 if (RANK, step) == (0, 1) else 2.0 + RANK
        expected = [hvt.average(g, count=mine) for g in own_gradients(model, step)]
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.zero_grad()
        with hvt.weight(2 + RANK):
            if mine:
                loss(model, step).backward()
        optimizer.step()
        for parameter, old, gradient in zip(model.parameters(), before, expected, strict=True):
            assert torch.allclose(parameter, old - 0.1 * gradient, rtol=1e-12, atol=1e-15)
    hvt.assert_in_sync(model, optimizer)


def check_an_idle_rank_that_clips_is_detected() -> None:
    """Its averages come in step(), after it clipped: the next step tells."""
    model, optimizer = prepared(check_every=100)
    for step in range(6):
        optimizer.zero_grad()
        if (RANK, step) != (0, 4):
            loss(model, step).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
        optimizer.zero_grad()
    refused("rank 0 differs" if SIZE > 2 else "differs", lambda: loss(model, 6).backward())


def check_two_models_in_one_backward() -> None:
    """One of them unused on a rank, so that the other's gradients are complete first."""
    torch.manual_seed(0)
    models = [nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)}).double() for _ in "AB"]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        hvt.prepare(model, optimizer, bucket_mib=1e-5)
    for step in range(4):
        first, second = models if RANK % 2 else models[::-1]
        value = first["b"](first["a"](inputs(step))).square().mean()
        if (RANK, step) != (0, 2):
            value = value + second["a"](inputs(step)).square().mean()
        for model in models:
            model.zero_grad()
        value.backward()
        for optimizer in optimizers:
            optimizer.step()
    for model in models:
        hvt.assert_in_sync(model)


def check_an_exception_after_the_last_gradient_aborts_all_ranks() -> None:
    class Raise(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, value: Tensor) -> Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            raise RuntimeError("late")

    if DEFERRED:
        return  # told a step later, when this rank has stepped: the job must end
    model, optimizer = prepared()
    outcomes = []
    for step in range(4):
        optimizer.zero_grad()
        x = inputs(step).requires_grad_()
        x = Raise.apply(x) if (RANK, step) == (LAST, 2) else x
        try:
            model(x).square().mean().backward()
        except (RuntimeError, HvdtoolsError) as error:
            outcomes.append(str(error)[:12])
            continue
        optimizer.step()
    assert outcomes == ["late" if RANK == LAST else "Another rank"], outcomes
    hvt.assert_in_sync(model, optimizer)


def check_passes_dropped_by_zeros_do_not_weigh() -> None:
    for weighted in (True, False):
        model, optimizer = prepared(accumulate=2)
        expected = weighted_sum(model, (2, 3)) if weighted else None
        for step, drop in ((0, True), (2, False), (3, False)):
            with hvt.weight(weight_of(RANK, step) if step else 30) if weighted else nullcontext():
                loss(model, step).backward()
            if drop:
                optimizer.zero_grad(set_to_none=False)
        if expected is not None:
            assert_gradients(model, expected)
        optimizer.step()
        hvt.assert_in_sync(model)


def check_an_exception_in_a_pass_of_weight_0() -> None:
    """What the pass before it left is still there, and its NaN is not."""

    def trip(gradient: Tensor) -> Tensor:
        raise RuntimeError("tripped")

    model, optimizer = prepared()
    with hvt.no_sync(model):
        with hvt.weight(2):
            loss(model, 0).backward()
        before = [p.grad.clone() for p in model.parameters()]
        value = loss(model, 1) * math.nan
        model[0].weight.register_hook(trip)
        try:
            with hvt.weight(0):
                value.backward()
        except RuntimeError as error:
            assert "tripped" in str(error)
        refused("not averaged over ranks", optimizer.step)  # it ends the broken pass
    assert_gradients(model, before)


def check_compiled_regions_keep_the_overlap() -> None:
    def sent_early(compiled: bool) -> int:
        torch._dynamo.reset()
        model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(6)])
        hvt.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1), bucket_mib=3e-4)
        run = torch.compile(model, backend="aot_eager")
        if compiled:
            run = hvt.compile(model, region_mib=3e-4, backend="aot_eager")
            assert run is model
        for _ in range(3):
            model.zero_grad()
            with buckets_sent(model[0].weight) as early:
                run(torch.ones(1, 8)).sum().backward()
        assert len(early) == 6
        return sum(early)

    with heard() as lines:
        assert sent_early(compiled=False) == 0
        assert sent_early(compiled=True) >= 4
    if RANK == 0:  # which logs what is no warning
        assert any(
            "with torch.compile around the whole model all at its end" in line for line in lines
        )
        assert any("torch.compile in 6 regions" in line for line in lines)
        assert sum("gradients are sent in 6 buckets" in line for line in lines) == 2


def check_checksums() -> None:
    """Any layout and dtype, and one changed bit shows."""
    base = torch.arange(30.0).reshape(5, 6)
    tensors = [
        base,
        base.t(),
        base[1:, 1:],
        base[:1].expand(4, 6),
        base.reshape(1, 5, 2, 3).to(memory_format=torch.channels_last),
        base.to(torch.bfloat16)[0, :3],
        base > 3,
        torch.tensor(True),
        torch.zeros(0),
        torch.complex(base, base),
    ]
    for tensor in tensors:
        twin = tensor.clone()
        assert checksum(tensor) == checksum(twin)
        for place in range(0, twin.numel(), 7):
            changed = tensor.contiguous().clone()
            changed.view(-1)[place] = changed.view(-1)[place].logical_not()
            assert checksum(changed) != checksum(tensor)
    assert checksums(tensors[:3]).shape == (3,)


if __name__ == "__main__":
    run_checks(globals())
