"""Run in 2 ranks: the rates that optimizers step with. Prints {check: "ok" or its traceback}."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import torch
import torch.nn.functional as F
from checking import heard, refused, run_checks
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    LambdaLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
    StepLR,
)

import hvdtools.torch as hvt

TOPOLOGY = hvt.init()
RANK, SIZE = TOPOLOGY.rank, TOPOLOGY.size
KEY = "hvdtools_scale_lr"


def one_weight(lr: float | Tensor = 0.1, **options: object) -> tuple[Tensor, torch.optim.Optimizer]:
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    weight.grad = torch.ones_like(weight)
    return weight, torch.optim.SGD([weight], lr=lr, **options)


def used(weight: Tensor, optimizer: torch.optim.Optimizer, steps: int = 1) -> list[float]:
    """The rate of each step: how far a gradient of 1 moves the weight."""
    rates = []
    for _ in range(steps):
        before = weight.item()
        optimizer.step()
        rates.append(before - weight.item())
    return rates


def close(found: list[float], expected: list[float]) -> None:
    assert len(found) == len(expected)
    for rate, wanted in zip(found, expected, strict=True):
        assert math.isclose(rate, wanted, rel_tol=1e-9), f"{found} instead of {expected}"


def ramp(step: int, steps: int, factor: float) -> float:
    """By hand: the part of the scaled rate in a step, counted from 0."""
    return (1 + (factor - 1) * min(step, steps) / steps) / factor


def check_policies() -> None:
    for policy, factor in (("linear", SIZE), ("sqrt", math.sqrt(SIZE)), ("none", 1)):
        weight, optimizer = one_weight()
        optimizer.add_param_group({"params": [torch.zeros(1, requires_grad=True)], "lr": 0.03})
        assert hvt.scale_lr(optimizer, policy) == factor
        close([group["lr"] for group in optimizer.param_groups], [0.1 * factor, 0.03 * factor])
        close(used(weight, optimizer, 2), [0.1 * factor] * 2)


def check_rank_0_says_it_in_one_line() -> None:
    _, optimizer = one_weight()
    optimizer.add_param_group({"params": [torch.zeros(1, requires_grad=True)], "lr": 0.03})
    with heard() as lines:
        hvt.scale_lr(optimizer)
        hvt.scale_lr(one_weight()[1], warmup_steps=4)
    said = [
        "lr 0.1, 0.03 -> 0.2, 0.06 (linear, 2 ranks)",
        "lr 0.1 -> 0.2 (linear, 2 ranks), warm-up over 4 steps",
    ]
    assert lines == (said if RANK == 0 else [])


def check_warm_up() -> None:
    weight, optimizer = one_weight()
    hvt.scale_lr(optimizer, warmup_steps=4)
    # 2 ranks: 0.1 rises to 0.2 in 4 equal amounts.
    close(used(weight, optimizer, 6), [0.1, 0.125, 0.15, 0.175, 0.2, 0.2])
    assert optimizer.param_groups[0]["lr"] == 0.2
    assert optimizer.param_groups[0][KEY] == {"factor": 2.0, "warmup_steps": 4, "step": 4}


def check_schedulers() -> None:
    """What the scheduler gives for the scaled rate alone, times the ramp."""
    makers: tuple[Callable[[torch.optim.Optimizer], LRScheduler], ...] = (
        lambda o: StepLR(o, step_size=2, gamma=0.5),
        lambda o: LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
        lambda o: OneCycleLR(o, max_lr=0.7, total_steps=9, cycle_momentum=False),
        lambda o: SequentialLR(
            o, [LinearLR(o, 0.2, total_iters=3), StepLR(o, 2, gamma=0.1)], milestones=[3]
        ),
    )
    for make in makers:
        _, plain = one_weight(0.1 * SIZE)
        weight, optimizer = one_weight(0.1)
        hvt.scale_lr(optimizer, warmup_steps=5)
        reference, scheduler = make(plain), make(optimizer)
        for step in range(8):
            expected = plain.param_groups[0]["lr"] * ramp(step, 5, SIZE)
            close(used(weight, optimizer), [expected])
            assert optimizer.param_groups[0]["lr"] == plain.param_groups[0]["lr"]
            plain.step()
            reference.step()
            scheduler.step()
    # And one of them by hand: 0.2, halved every 2 steps, on the ramp of 5.
    weight, optimizer = one_weight()
    hvt.scale_lr(optimizer, warmup_steps=5)
    scheduler = StepLR(optimizer, step_size=2, gamma=0.5)
    rates = []
    for _ in range(6):
        rates += used(weight, optimizer)
        scheduler.step()
    close(rates, [0.1, 0.12, 0.07, 0.08, 0.045, 0.05])


def check_steps_that_the_scaler_skips() -> None:
    for fused in (False, True):
        weight, optimizer = one_weight(fused=fused)
        hvt.scale_lr(optimizer, warmup_steps=4)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        scaler.scale(torch.zeros(1))  # makes its scale a tensor
        rates = []
        for gradient in (1.0, math.inf, 1.0, math.nan, 1.0):
            weight.grad = torch.full_like(weight, gradient * 8)
            before = weight.item()
            scaler.step(optimizer)
            rates.append((before - weight.item()) * 8 / scaler.get_scale())
            scaler.update(8.0)
        close(rates, [0.1, 0.0, 0.125, 0.0, 0.15])


def check_tensor_rates() -> None:
    rate = torch.tensor(0.1, dtype=torch.float64)
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    other = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    weight.grad = torch.ones_like(weight)
    groups = [{"params": [weight], "lr": rate}, {"params": [other], "lr": rate}]
    optimizer = torch.optim.SGD(groups, lr=0.5)
    hvt.scale_lr(optimizer, warmup_steps=2)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.5)
    assert optimizer.param_groups[0]["lr"] is rate  # the one that a captured graph would read
    assert scheduler.base_lrs == [0.2, 0.2]
    close(used(weight, optimizer, 3), [0.1, 0.15, 0.2])
    assert rate == 0.2


def check_resume_in_the_middle() -> None:
    weight, optimizer = one_weight()
    hvt.scale_lr(optimizer, warmup_steps=4)
    scheduler = StepLR(optimizer, step_size=2, gamma=0.5)
    rates = []
    for _ in range(3):
        rates += used(weight, optimizer)
        scheduler.step()
    saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    shallow = optimizer.state_dict()
    pickled = pickle.dumps(optimizer)
    close(rates + used(weight, optimizer), [0.1, 0.125, 0.075, 0.0875])
    assert shallow["param_groups"][0][KEY]["step"] == 3  # not that of the step after

    weight, optimizer = one_weight()  # scaled, then loaded
    hvt.scale_lr(optimizer, warmup_steps=4)
    scheduler = StepLR(optimizer, step_size=2, gamma=0.5)
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    rates = used(weight, optimizer)
    scheduler.step()
    close(rates + used(weight, optimizer), [0.0875, 0.05])

    weight, optimizer = one_weight()  # loaded, then scaled
    optimizer.load_state_dict(saved[0])
    hvt.scale_lr(optimizer, warmup_steps=4)
    close(used(weight, optimizer, 2), [0.0875, 0.1])

    optimizer = pickle.loads(pickled)
    hvt.scale_lr(optimizer, warmup_steps=4)
    weight = optimizer.param_groups[0]["params"][0]
    weight.grad = torch.ones_like(weight)
    close(used(weight, optimizer, 2), [0.0875, 0.1])


def check_a_state_of_another_number_of_ranks() -> None:
    """A factor of sqrt(2) is as another number of ranks; no key is a job without scale_lr."""
    _, other = one_weight()
    hvt.scale_lr(other, "sqrt", warmup_steps=4)
    _, never = one_weight()
    for saved in (other.state_dict(), never.state_dict()):
        weight, optimizer = one_weight()
        hvt.scale_lr(optimizer)
        refused("and this job scales by 2", lambda o=optimizer, s=saved: o.load_state_dict(s))
        assert optimizer.param_groups[0]["lr"] == 0.2  # nothing was loaded
    _, optimizer = one_weight()
    optimizer.load_state_dict(other.state_dict())
    refused("was scaled by 1.41421", lambda: hvt.scale_lr(optimizer))
    weight, optimizer = one_weight()
    hvt.scale_lr(optimizer, "none")
    optimizer.load_state_dict(other.state_dict())
    full = 0.1 * math.sqrt(2)
    close(used(weight, optimizer, 5), [full * ramp(step, 4, math.sqrt(2)) for step in range(5)])
    weight, optimizer = one_weight()
    hvt.scale_lr(optimizer, "none")
    optimizer.load_state_dict(never.state_dict())
    close(used(weight, optimizer), [0.1])


def check_a_step_that_raises() -> None:
    weight, optimizer = one_weight()
    hvt.scale_lr(optimizer, warmup_steps=4)

    def fails() -> float:
        raise RuntimeError("tripped")

    try:
        optimizer.step(fails)
    except RuntimeError:
        assert optimizer.param_groups[0]["lr"] == 0.2
    close(used(weight, optimizer, 2), [0.1, 0.125])

    handle = optimizer.register_step_pre_hook(lambda *_: fails())
    for _ in range(2):
        try:
            optimizer.step()
        except RuntimeError:
            assert optimizer.state_dict()["param_groups"][0]["lr"] == 0.2
    handle.remove()
    close(used(weight, optimizer), [0.15])

    handle = optimizer.register_step_pre_hook(lambda *_: fails())
    try:
        optimizer.step()
    except RuntimeError:
        optimizer.param_groups[0]["lr"] *= 0.5  # as a scheduler does
    handle.remove()
    refused("a scheduler may have computed from the warm-up's lr", optimizer.step)
    optimizer.param_groups[0]["lr"] = 0.2
    close(used(weight, optimizer), [0.175])


def check_a_closure() -> None:
    weight, optimizer = one_weight()
    hvt.scale_lr(optimizer, warmup_steps=4)
    seen = []

    def closure() -> float:
        seen.append(optimizer.param_groups[0]["lr"])
        return 1.0

    assert optimizer.step(closure) == optimizer.step(closure=closure) == 1.0
    close(seen, [0.1, 0.125])
    close(used(weight, optimizer), [0.15])


def check_training_equals_one_process() -> None:
    """With the rates set by hand, on the joined batch; scaled before and after prepare()."""
    for order in ("before", "after"):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        reference = copy.deepcopy(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        by_hand = torch.optim.AdamW(reference.parameters(), lr=0.01)
        if order == "before":
            hvt.scale_lr(optimizer, warmup_steps=3)
        hvt.prepare(model, optimizer)
        if order == "after":
            hvt.scale_lr(optimizer, warmup_steps=3)
        scheduler = StepLR(optimizer, step_size=4, gamma=0.5)
        rates = [0.01, 0.01 * 4 / 3, 0.01 * 5 / 3, 0.02, 0.01, 0.01]
        for step, rate in enumerate(rates):
            generator = torch.Generator().manual_seed(step)
            inputs = torch.randn(4 * SIZE, 3, generator=generator, dtype=torch.float64)
            targets = inputs.sum(1, keepdim=True)
            mine = slice(4 * RANK, 4 * RANK + 4)
            optimizer.zero_grad()
            F.mse_loss(model(inputs[mine]), targets[mine]).backward()
            optimizer.step()
            scheduler.step()
            by_hand.zero_grad()
            by_hand.param_groups[0]["lr"] = rate
            F.mse_loss(reference(inputs), targets).backward()
            by_hand.step()
        for found, expected in zip(model.parameters(), reference.parameters(), strict=True):
            assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)


if __name__ == "__main__":
    run_checks(globals())
