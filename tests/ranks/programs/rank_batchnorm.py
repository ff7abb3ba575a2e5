"""Run in every rank: synchronized batch norm against one process on the joined batch.

Prints {check: "ok" or its traceback}. Each rank trains the reference by itself,
with torch's own layers and without any communication.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import torch
import torch.nn.functional as F
from checking import DEVICE, run_checks
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import hvdtools.torch as hvt
from hvdtools.core.errors import HvdtoolsError
from hvdtools.torch.norm.layers import may_differ, sync_batchnorm

TOPOLOGY = hvt.init()
RANK, SIZE = TOPOLOGY.rank, TOPOLOGY.size
STEPS = 3
EQUAL = (4, 4, 4)
UNEQUAL = (2, 5, 1)
# The largest difference allowed, relative to the largest entry of each tensor, or to 0.1 where
# that is next to nothing: a bias that the next layer normalizes away has no gradient but rounding.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


class OwnNorm(nn.BatchNorm2d):
    """A user's subclass: it adds to torch's layer and keeps its forward."""

    def __init__(self, channels: int, **options: object) -> None:
        super().__init__(channels, **options)
        self.note = "own"


def conv_net(norm: type[nn.Module] = nn.BatchNorm2d, **options: object) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        norm(4, **options),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5),
        nn.Flatten(),
        nn.Linear(5 * 2 * 2, 2),
    )


def mlp(**options: object) -> nn.Module:
    """The first layer normalizes the inputs, which want no gradient."""
    torch.manual_seed(7)
    return nn.Sequential(
        nn.BatchNorm1d(6, **options), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)
    )


def sequence_net() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv1d(3, 4, 2), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(12, 2))


SHAPES = {conv_net: (3, 6, 6), mlp: (6,), sequence_net: (3, 4)}


def parts(step: int, shape: tuple[int, ...], sizes: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """Each rank's inputs and targets in float64; the channels lie far from zero."""
    generator = torch.Generator("cpu").manual_seed(step)
    rows = sum(sizes[:SIZE])
    inputs = torch.randn(rows, *shape, generator=generator, dtype=torch.float64, device="cpu")
    targets = torch.randn(rows, 2, generator=generator, dtype=torch.float64, device="cpu")
    inputs, targets = (inputs * 2 + 3).to(DEVICE), targets.to(DEVICE)
    cuts = list(sizes[:SIZE])
    return list(zip(inputs.split(cuts), targets.split(cuts), strict=True))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def train_joined(
    model: nn.Module, shape: tuple[int, ...], sizes: tuple[int, ...], dtype: torch.dtype
) -> None:
    optimizer = sgd(model)
    for step in range(STEPS):
        inputs, targets = (torch.cat(t) for t in zip(*parts(step, shape, sizes), strict=True))
        optimizer.zero_grad()
        F.mse_loss(model(inputs.to(dtype)), targets.to(dtype)).backward()
        optimizer.step()


def train_ranks(
    model: nn.Module, shape: tuple[int, ...], sizes: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Each rank's loss is the mean of its own rows, weighted by their number."""
    optimizer = sgd(model)
    hvt.prepare(model, optimizer)
    for step in range(STEPS):
        inputs, targets = parts(step, shape, sizes)[RANK]
        optimizer.zero_grad()
        with hvt.weight(len(inputs)):
            F.mse_loss(model(inputs.to(dtype)), targets.to(dtype)).backward()
        optimizer.step()


def require_equal(model: nn.Module, reference: nn.Module, tolerance: float) -> None:
    found = model.state_dict()
    assert list(found) == list(reference.state_dict())
    for name, expected in reference.state_dict().items():
        of_rank_0 = hvt.broadcast(found[name].clone())
        assert torch.equal(of_rank_0, found[name]), f"{name} differs between ranks"
        difference = (found[name].double() - expected.double()).abs().max()
        relative = (difference / expected.double().abs().max().clamp_min(0.1)).item()
        assert relative <= tolerance, f"{name}: {relative:.3g}"


def compare(
    build: Callable[..., nn.Module],
    *,
    sizes: tuple[int, ...] = EQUAL,
    dtype: torch.dtype = torch.float64,
    **options: object,
) -> None:
    reference = build(**options).to(dtype)
    model = copy.deepcopy(reference)
    sync_batchnorm(model, "check")
    train_ranks(model, SHAPES[build], sizes, dtype)
    train_joined(reference, SHAPES[build], sizes, dtype)
    require_equal(model, reference, TOLERANCE[dtype])


def check_equal_batches() -> None:
    for build in SHAPES:
        for dtype in TOLERANCE:
            compare(build, dtype=dtype)


def check_unequal_batches() -> None:
    for build in SHAPES:
        for dtype in TOLERANCE:
            compare(build, sizes=UNEQUAL, dtype=dtype)


def check_options_of_the_layers() -> None:
    compare(mlp, sizes=UNEQUAL, momentum=None)
    compare(conv_net, sizes=UNEQUAL, affine=False)
    compare(mlp, sizes=UNEQUAL, affine=False, momentum=0.5)
    compare(conv_net, sizes=UNEQUAL, track_running_stats=False, eps=0.1)


def check_local_statistics_are_something_else() -> None:
    """Without synchronisation the same comparison fails: it can tell."""
    reference = conv_net().double()
    model = copy.deepcopy(reference)
    train_ranks(model, SHAPES[conv_net], EQUAL, torch.float64)
    train_joined(reference, SHAPES[conv_net], EQUAL, torch.float64)
    found, expected = model[0].weight, reference[0].weight
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4) == (SIZE == 1)


def check_channels_last() -> None:
    reference = conv_net().double()
    model = copy.deepcopy(reference).to(memory_format=torch.channels_last)
    sync_batchnorm(model, "check")
    x = parts(0, (3, 6, 6), EQUAL)[RANK][0].contiguous(memory_format=torch.channels_last)
    assert model[1](
        x[:, :1].expand(-1, 4, -1, -1).contiguous(memory_format=torch.channels_last)
    ).is_contiguous(memory_format=torch.channels_last)
    model.load_state_dict(reference.state_dict())
    train_ranks(model, (3, 6, 6), UNEQUAL, torch.float64)
    train_joined(reference, (3, 6, 6), UNEQUAL, torch.float64)
    require_equal(model, reference, 1e-12)


def joined_gradient(layer: nn.Module, pieces: list[Tensor], slopes: list[Tensor]) -> Tensor:
    """One process' gradient of sum(slope * layer(x)) with respect to the joined inputs."""
    joined = torch.cat(pieces).requires_grad_()
    (layer(joined) * torch.cat(slopes)).sum().backward()
    assert joined.grad is not None
    return joined.grad


def check_the_input_gradient_carries_the_weights() -> None:
    """Weighted by w, this rank's input gradient is that of sum_r(w_r * loss_r)."""
    weights = [3.0, 0.5, 7.0][:SIZE]
    torch.manual_seed(0)
    pieces = [torch.randn(rows, 4, 3, dtype=torch.float64) for rows in UNEQUAL[:SIZE]]
    slopes = [torch.randn_like(piece) for piece in pieces]
    reference = nn.BatchNorm1d(4).double()
    nn.init.uniform_(reference.weight, 0.5, 2.0)
    reference.register_parameter("bias", None)
    layer = copy.deepcopy(reference)
    sync_batchnorm(layer, "check")
    weighted = [w * slope for w, slope in zip(weights, slopes, strict=True)]
    expected = joined_gradient(reference, pieces, weighted)
    expected = expected.split(UNEQUAL[:SIZE])[RANK]
    mine = pieces[RANK].clone().requires_grad_()
    with hvt.weight(weights[RANK]):
        (layer(mine) * slopes[RANK]).sum().backward()
    assert mine.grad is not None
    assert torch.allclose(weights[RANK] * mine.grad, expected, rtol=1e-12, atol=1e-12)
    of_weight = hvt.average(layer.weight.grad * weights[RANK]) * SIZE
    assert torch.allclose(of_weight, reference.weight.grad, rtol=1e-12, atol=1e-12)


def check_a_rank_that_ran_out_of_data() -> None:
    """Its stand-in batch (NaN here) or empty batch counts for nothing, on any rank."""
    if SIZE == 1:
        return
    for stand_in in (torch.full((3, 4, 2), float("nan")).double(), torch.zeros(0, 4, 2).double()):
        torch.manual_seed(0)
        idle = SIZE - 1
        pieces = [torch.randn(2 + r, 4, 2, dtype=torch.float64) for r in range(SIZE - 1)]
        slopes = [torch.randn_like(piece) for piece in pieces]
        reference = nn.BatchNorm1d(4).double()
        layer = copy.deepcopy(reference)
        sync_batchnorm(layer, "check")
        expected = joined_gradient(reference, pieces, slopes)
        mine = (stand_in if idle == RANK else pieces[RANK]).clone().requires_grad_()
        slope = stand_in if idle == RANK else slopes[RANK]
        with hvt.weight(0 if idle == RANK else 1):
            (layer(mine) * slope).sum().backward()
        assert mine.grad is not None
        if idle == RANK:
            assert torch.equal(mine.grad, torch.zeros_like(stand_in))
            assert torch.equal(layer.weight.grad, torch.zeros(4).double())
        else:
            share = expected.split([len(piece) for piece in pieces])[RANK]
            assert torch.allclose(mine.grad, share, rtol=1e-12, atol=1e-12)
        assert torch.allclose(layer.running_mean, reference.running_mean, rtol=1e-13)
        assert torch.allclose(layer.running_var, reference.running_var, rtol=1e-13)


def check_too_few_values() -> None:
    layer = nn.BatchNorm1d(3)
    sync_batchnorm(layer, "check")
    mine = torch.ones(1 if RANK == 0 else 0, 3)
    try:
        layer(mine)
    except ValueError as error:
        assert "more than 1 value per channel" in str(error)
    else:
        raise AssertionError("one value has no variance")
    if SIZE > 1:
        layer(torch.full((1, 3), float(RANK)))  # one value on each rank is enough
        assert layer.running_var.isfinite().all()


def check_half_and_autocast() -> None:
    """The layer's dtype is torch's own; its statistics do not suffer from the half inputs."""
    inputs = [x.float() for x, _ in parts(0, (3, 6, 6), EQUAL)]
    for half in (torch.bfloat16, torch.float16):
        reference = nn.BatchNorm2d(3)
        layer = copy.deepcopy(reference)
        sync_batchnorm(layer, "check")
        halves = [x.to(half) for x in inputs]
        with torch.autocast(DEVICE, half):
            found = layer(halves[RANK])
            assert layer(inputs[RANK]).dtype == reference(inputs[RANK]).dtype
        assert found.dtype == reference(halves[RANK]).dtype == half
        exact = F.batch_norm(torch.cat(halves).double(), None, None, training=True)
        exact = exact.split([len(x) for x in inputs])[RANK]
        assert (found.double() - exact).abs().max() <= 4 * torch.finfo(half).eps
    whole = nn.BatchNorm2d(3).bfloat16()
    sync_batchnorm(whole, "check")
    x = inputs[RANK].bfloat16().requires_grad_()
    whole(x).square().mean().backward()
    assert x.grad is not None
    assert {x.grad.dtype, whole.weight.grad.dtype, whole.running_var.dtype} == {torch.bfloat16}


def check_autocast_trains_alike() -> None:
    reference = conv_net()
    model = copy.deepcopy(reference)
    sync_batchnorm(model, "check")
    with torch.autocast(DEVICE, torch.bfloat16):
        train_ranks(model, (3, 6, 6), EQUAL, torch.float32)
        train_joined(reference, (3, 6, 6), EQUAL, torch.float32)
    require_equal(model, reference, 0.1)


def check_the_layers_stay_the_users() -> None:
    model = conv_net(OwnNorm).double()
    layer, weight, keys = model[1], model[1].weight, list(model.state_dict())
    changed = sync_batchnorm(model, "check")
    assert changed == (2 if SIZE > 1 else 0)
    assert sync_batchnorm(model, "again") == 0
    assert model[1] is layer and layer.weight is weight
    assert isinstance(layer, OwnNorm) and layer.note == "own"
    assert list(model.state_dict()) == keys
    assert ("Sync" in repr(model)) == (SIZE > 1)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(twin[1]) is type(layer) and twin[1].weight is not weight
        train_ranks(twin, (3, 6, 6), EQUAL, torch.float64)
        reference = conv_net(OwnNorm).double()
        train_joined(reference, (3, 6, 6), EQUAL, torch.float64)
        require_equal(twin, reference, 1e-12)


def check_evaluation_is_torchs_own_and_waits_for_nobody() -> None:
    reference = conv_net().double()
    model = copy.deepcopy(reference)
    sync_batchnorm(model, "check")
    if RANK == 0:
        x = parts(0, (3, 6, 6), EQUAL)[RANK][0]
        assert torch.equal(model.eval()(x), reference.eval()(x))


def check_a_layer_used_twice_and_checkpointing() -> None:
    torch.manual_seed(7)
    norm = nn.BatchNorm1d(5)
    body = nn.Sequential(nn.Linear(5, 5), norm, nn.Tanh(), nn.Linear(5, 5), norm).double()
    head = nn.Linear(5, 2).double()
    inputs, targets = zip(*parts(0, (5,), EQUAL), strict=True)
    for reentrant in (None, True, False):
        reference = copy.deepcopy(nn.ModuleList([body, head]))
        model = copy.deepcopy(reference)
        sync_batchnorm(model, "check")
        F.mse_loss(reference[1](reference[0](torch.cat(inputs))), torch.cat(targets)).backward()
        x = inputs[RANK].clone().requires_grad_()
        hidden = (
            model[0](x) if reentrant is None else checkpoint(model[0], x, use_reentrant=reentrant)
        )
        F.mse_loss(model[1](hidden), targets[RANK]).backward()
        for mine, expected in zip(model.parameters(), reference.parameters(), strict=True):
            assert torch.allclose(hvt.average(mine.grad), expected.grad, rtol=1e-12, atol=1e-14)


def check_compiled() -> None:
    reference = conv_net().double()
    model = copy.deepcopy(reference)
    sync_batchnorm(model, "check")
    compiled = torch.compile(model, backend="aot_eager")
    inputs, targets = zip(*parts(0, (3, 6, 6), EQUAL), strict=True)
    F.mse_loss(compiled(inputs[RANK]), targets[RANK]).backward()
    F.mse_loss(reference(torch.cat(inputs)), torch.cat(targets)).backward()
    for mine, expected in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(hvt.average(mine.grad), expected.grad, rtol=1e-12, atol=1e-14)
    assert torch.allclose(model[1].running_var, reference[1].running_var, rtol=1e-13)
    x = inputs[RANK]
    assert torch.allclose(compiled.eval()(x), model.eval()(x), rtol=1e-13)


def check_torchs_sync_layer_becomes_ours() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(conv_net()).double()
    sync_batchnorm(model, "check")
    train_ranks(model, (3, 6, 6), EQUAL, torch.float64)
    reference = conv_net().double()
    train_joined(reference, (3, 6, 6), EQUAL, torch.float64)
    require_equal(model, reference, 1e-12)


def check_second_derivatives_are_refused() -> None:
    layer = nn.BatchNorm1d(3).double()
    sync_batchnorm(layer, "check")
    x = torch.arange(12.0).double().reshape(4, 3).requires_grad_()
    try:
        torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    except HvdtoolsError as error:
        assert SIZE > 1 and "Second derivatives" in str(error)
    else:
        assert SIZE == 1


def check_which_buffers_may_differ() -> None:
    model = nn.ModuleDict({"a": conv_net(), "b": nn.InstanceNorm1d(3, track_running_stats=True)})
    local = {f"a.{i}.running_{what}" for i in (1, 4) for what in ("mean", "var")}
    local |= {f"a.{i}.num_batches_tracked" for i in (1, 4)}
    instance = {f"b.{what}" for what in ("running_mean", "running_var", "num_batches_tracked")}
    assert may_differ(model) == local | instance
    assert may_differ(model) <= {name for name, _ in model.named_buffers()}
    sync_batchnorm(model, "check")
    assert may_differ(model) == (instance if SIZE > 1 else local | instance)


if __name__ == "__main__":
    run_checks(globals())
