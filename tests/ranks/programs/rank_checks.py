"""Run in every rank: checks that need more than one. Prints {check: "ok" or its traceback}."""

from __future__ import annotations

import os
import signal

import torch
from checking import buckets_sent, heard, refused, run_checks
from torch import nn

import hvdtools.torch as hvt
from hvdtools.core.errors import HvdtoolsError

TOPOLOGY = hvt.init()
RANK, SIZE = TOPOLOGY.rank, TOPOLOGY.size


def equal_everywhere(tensor: torch.Tensor) -> bool:
    of_rank_0 = hvt.broadcast(tensor.clone())
    return hvt.average(float(torch.equal(of_rank_0, tensor))) == 1.0


def check_topology() -> None:
    assert (TOPOLOGY.node, TOPOLOGY.nodes) == (0, 1)
    assert (TOPOLOGY.local_rank, TOPOLOGY.local_size) == (RANK, SIZE)
    refused(f"the job has {SIZE} ranks", lambda: hvt.init(expect_size=SIZE + 1))


def check_prepare_broadcasts_model_and_optimizer_of_rank_0() -> None:
    torch.manual_seed(RANK)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1 * (RANK + 1))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    if RANK == 0:  # a checkpoint that only rank 0 read
        model(torch.randn(4, 3).bfloat16()).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    groups = optimizer.param_groups
    hvt.prepare(model, optimizer)
    assert optimizer.param_groups is groups
    assert groups[0]["lr"] == 0.1
    for tensor in model.state_dict().values():
        assert equal_everywhere(tensor)
    for parameter in model.parameters():
        state = optimizer.state[parameter]
        assert state["exp_avg"].dtype == torch.bfloat16
        assert state["step"] == 1
        assert all(equal_everywhere(value) for value in state.values())
    model(torch.randn(4, 3).bfloat16()).sum().backward()
    optimizer.step()
    scheduler.step()
    assert groups[0]["lr"] == 0.05


def check_different_models_are_refused() -> None:
    model = nn.Linear(3, 2 + RANK)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    refused("built different models (('weight', (2, 3)", lambda: hvt.prepare(model, optimizer))


def check_average() -> None:
    counts = [1, 3, 5][:SIZE]
    expected = sum(rank * count for rank, count in enumerate(counts)) / sum(counts)
    value = {"a": float(RANK), "b": torch.full((2, 3), RANK)}
    mean = hvt.average(value, count=counts[RANK])
    assert abs(mean["a"] - expected) < 1e-15
    assert mean["b"].shape == (2, 3)
    assert torch.allclose(mean["b"], torch.full((2, 3), expected, dtype=torch.float64))
    empty = hvt.average(float("nan") if RANK else 2.0, count=0 if RANK else 7)
    assert empty == 2.0
    refused("different names or shapes", lambda: hvt.average({f"x{RANK}": 1.0}))
    refused("different names or shapes", lambda: hvt.average(torch.ones(RANK + 1)))
    assert hvt.average(1.0) == 1.0  # the job goes on


def check_broadcast() -> None:
    tensor = torch.full((2, 2), float(RANK)).t()
    assert hvt.broadcast(tensor, root=SIZE - 1) is tensor
    assert (tensor == SIZE - 1).all()
    assert hvt.broadcast({"epoch": RANK}) == {"epoch": 0}
    assert hvt.broadcast(torch.ones(2) if RANK == 0 else None).tolist() == [1, 1]
    flags = torch.tensor([RANK == 0, False])
    assert hvt.broadcast(flags).tolist() == [True, False]
    torch.manual_seed(RANK)
    layer = hvt.broadcast(nn.Linear(2, 2))
    assert equal_everywhere(layer.weight.detach())


def check_gather() -> None:
    rows = torch.arange(3.0 * RANK).reshape(RANK, 3)  # rank 0 brings none
    everyone = hvt.gather(rows.t())
    assert [part.shape for part in everyone] == [(3, rank) for rank in range(SIZE)]
    for rank, part in enumerate(everyone):
        assert torch.equal(part, torch.arange(3.0 * rank).reshape(rank, 3).t())
    scalar = torch.tensor(RANK + 0.5, dtype=torch.bfloat16, requires_grad=True)
    numbers = hvt.gather(scalar)
    assert [number.item() for number in numbers] == [rank + 0.5 for rank in range(SIZE)]
    assert all(n.dtype == torch.bfloat16 and not n.requires_grad for n in numbers)
    mixed = hvt.gather(torch.tensor([True, False]) if RANK == 0 else torch.tensor([RANK]))
    assert mixed[0].tolist() == [True, False]
    assert [part.tolist() for part in mixed[1:]] == [[rank] for rank in range(1, SIZE)]
    assert [part.shape for part in hvt.gather(torch.empty(0, 4))] == [(0, 4)] * SIZE
    refused("gather() got a list", lambda: hvt.gather([1.0]))
    refused("gather() got a torch.sparse_coo tensor", lambda: hvt.gather(torch.eye(2).to_sparse()))


class _Raise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.clone()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("tripped")


class _Trip(nn.Module):
    """Raises half way through backward while `armed`."""

    armed = False

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return _Raise.apply(hidden) if self.armed else hidden


def check_an_exception_on_one_rank_aborts_all_ranks() -> None:
    for to_none in (True, False):
        one_rank_fails(to_none=to_none)


def one_rank_fails(*, to_none: bool) -> None:
    torch.manual_seed(0)
    trip = _Trip()
    model = nn.Sequential(nn.Linear(3, 3), trip, nn.Linear(3, 1)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hvt.prepare(model, optimizer, bucket_mib=1e-5)
    outcomes = []
    for step in range(4):
        trip.armed = False
        inputs = torch.full((2, 3), float(RANK + step + 1), dtype=torch.float64)
        # torch.autograd.grad runs no parameter's hook: this rank's own gradients.
        own = torch.autograd.grad(model(inputs).square().mean(), model.parameters())
        trip.armed = step == 2 and RANK == SIZE - 1
        optimizer.zero_grad(set_to_none=to_none)
        try:
            model(inputs).square().mean().backward()
        except RuntimeError:
            outcomes.append("own")
            continue
        except HvdtoolsError as error:
            assert "Another rank aborted this backward pass" in str(error)
            outcomes.append("told")
            continue
        for parameter, mine in zip(model.parameters(), own, strict=True):
            assert torch.allclose(parameter.grad, hvt.average(mine), rtol=1e-12, atol=1e-15)
        optimizer.step()
        outcomes.append("fine")
    assert outcomes == ["fine", "fine", "own" if RANK == SIZE - 1 else "told", "fine"]
    assert all(equal_everywhere(parameter.detach()) for parameter in model.parameters())


def check_a_parameter_used_on_one_rank_only() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1), "c": nn.Linear(2, 1)})
    hvt.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    key = "a" if RANK == 0 else "b"
    model[key](torch.ones(1, 2)).sum().backward()
    assert torch.allclose(model["a"].weight.grad, torch.full((1, 2), 1 / SIZE))
    assert torch.allclose(model["b"].weight.grad, torch.full((1, 2), (SIZE - 1) / SIZE))
    assert model["c"].weight.grad is None


def check_autograd_grad_reduces_nothing() -> None:
    """A gradient penalty: inner derivatives by torch.autograd.grad, on one rank more of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    hvt.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1), accumulate=2)
    total = [torch.zeros_like(p) for p in model.parameters()]
    for micro in range(2):
        inputs = torch.full((2, 3), RANK + micro + 1.0, dtype=torch.float64, requires_grad=True)
        for _ in range(RANK + 1):
            (slope,) = torch.autograd.grad(model(inputs).sum(), inputs, create_graph=True)
        loss = slope.square().mean() + model(inputs).square().mean()
        for sum_, own in zip(
            total,
            torch.autograd.grad(loss, model.parameters(), retain_graph=True, allow_unused=True),
            strict=True,
        ):
            sum_ += 0 if own is None else own
        loss.backward()
    for parameter, own in zip(model.parameters(), total, strict=True):
        assert torch.allclose(parameter.grad, hvt.average(own), rtol=1e-12, atol=1e-15)


def check_batch_norm_on_request() -> None:
    for synchronized in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with heard() as lines:
            hvt.prepare(model, optimizer, sync_batchnorm=synchronized)
        told = any(
            "batch-norm layers that share their statistics over ranks: 1" in line for line in lines
        )
        assert told == (synchronized and RANK == 0)
        torch.manual_seed(RANK)
        model(torch.randn(5, 3)).sum().backward()
        optimizer.step()
        assert isinstance(model[1], nn.BatchNorm1d)
        assert equal_everywhere(model[1].running_mean) == synchronized
        hvt.assert_in_sync(model)


def check_gradients_are_sent_while_backward_runs() -> None:
    """From the second pass on, buckets leave before the first layer's gradient is there."""
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(6)])
    hvt.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1), bucket_mib=1e-4)
    for _ in range(2):
        model.zero_grad()
        with buckets_sent(model[0].weight) as early:
            model(torch.ones(1, 8)).sum().backward()
    assert len(early) >= 6
    assert sum(early) >= len(early) - 2


def check_a_signal_to_one_rank_stops_all_at_once() -> None:
    assert not hvt.stop_requested()
    if RANK == SIZE - 1:
        os.kill(os.getpid(), signal.SIGUSR1)
    asked = [hvt.stop_requested() for _ in range(3)]
    assert asked == [True] * 3


if __name__ == "__main__":
    run_checks(globals())
