"""Training cases whose result must not depend on how many ranks share the work."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from worlds import WIDTH, LossOfPart, World

STEPS = 4
LBFGS = ("lbfgs", "line_search")

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    "line_search": lambda p: torch.optim.LBFGS(
        p, lr=0.5, max_iter=3, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    ),
}

Case = Callable[[World, str, torch.dtype], nn.Module]


class Net(nn.Module):
    """Three linear layers, a tied pair, a layer for odd ranks and one that nobody uses."""

    def __init__(self, segment: str = "plain") -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, 7)
        self.middle = nn.Linear(7, 7)
        self.tied = nn.Linear(7, 7)
        self.tied.weight = self.middle.weight
        self.odd = nn.Linear(7, 7)
        self.dead = nn.Linear(7, 7)
        self.last = nn.Linear(7, 1)
        self.segment = segment

    def body(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.tied(torch.tanh(self.middle(hidden))))

    def forward(self, inputs: Tensor, rank: int = 0) -> Tensor:
        hidden = torch.tanh(self.first(inputs))
        if self.segment == "plain":
            hidden = self.body(hidden)
        else:
            hidden = checkpoint(self.body, hidden, use_reentrant=self.segment == "reentrant")
        if rank % 2:
            hidden = hidden + self.odd(hidden)
        return self.last(hidden)


def build(
    optimizer: str, dtype: torch.dtype, segment: str = "plain"
) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(7)
    model = Net(segment).to(dtype)
    return model, OPTIMIZERS[optimizer](model.parameters())


def batches(optimizer: str) -> list[int]:
    """The batch of each step. LBFGS fits curvature to one function: always the same batch."""
    return [0] * STEPS if optimizer in LBFGS else list(range(STEPS))


def mse(model: nn.Module) -> Callable[[Tensor, Tensor, int], Tensor]:
    return lambda x, y, rank: F.mse_loss(model(x), y)


def take_step(optimizer: torch.optim.Optimizer, backward: Callable[[], Tensor]) -> None:
    """One step, through a closure where the optimizer wants one."""
    if isinstance(optimizer, torch.optim.LBFGS):

        def closure() -> Tensor:
            optimizer.zero_grad()
            return backward()

        optimizer.step(closure)
    else:
        optimizer.zero_grad()
        backward()
        optimizer.step()


def descend(
    world: World, step: int, dtype: torch.dtype, loss_of_part: LossOfPart, *, split: bool = False
) -> Tensor:
    """One backward pass; its loss."""
    loss = world.loss(step, dtype, loss_of_part, split=split)
    loss.backward()
    return loss.detach()


def plain(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    model, optimizer = build(name, dtype)
    world.prepare(model, optimizer)
    for step in batches(name):
        take_step(optimizer, partial(descend, world, step, dtype, mse(model)))
    assert model.dead.weight.grad is None
    return model


def clipping(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    model, optimizer = build(name, dtype)
    world.prepare(model, optimizer)
    for step in batches(name):

        def backward(step: int = step) -> Tensor:
            loss = world.loss(step, dtype, mse(model))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            return loss.detach()

        take_step(optimizer, backward)
    return model


def accumulation(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    model, optimizer = build(name, dtype)
    world.prepare(model, optimizer, accumulate=3)
    for step in batches(name):

        def backward(step: int = step) -> Tensor:
            total = torch.zeros((), dtype=dtype)
            for micro in range(3):
                loss = world.loss(10 * step + micro, dtype, mse(model)) / 3
                loss.backward()
                total += loss.detach()
            return total

        take_step(optimizer, backward)
    return model


def no_sync(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    model, optimizer = build(name, dtype)
    world.prepare(model, optimizer)
    for step in batches(name):

        def backward(step: int = step) -> Tensor:
            with world.no_sync(model):
                first = world.loss(10 * step, dtype, mse(model))
                first.backward()
            second = world.loss(10 * step + 1, dtype, mse(model))
            second.backward()
            return (first + second).detach()

        take_step(optimizer, backward)
    return model


def several_backwards(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    """Two passes that each average; the second does not use every parameter."""
    model, optimizer = build(name, dtype)
    world.prepare(model, optimizer)

    def first_layer(x: Tensor, y: Tensor, rank: int) -> Tensor:
        return model.first(x).square().mean()

    for step in batches(name):

        def backward(step: int = step) -> Tensor:
            first = world.loss(10 * step, dtype, mse(model))
            first.backward()
            second = world.loss(10 * step + 1, dtype, first_layer)
            second.backward()
            return (first + second).detach()

        take_step(optimizer, backward)
    return model


def rank_branches(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    model, optimizer = build(name, dtype)
    world.prepare(model, optimizer)

    def branching(x: Tensor, y: Tensor, rank: int) -> Tensor:
        return F.mse_loss(model(x, rank), y)

    for step in batches(name):
        take_step(optimizer, partial(descend, world, step, dtype, branching, split=True))
    assert (model.odd.weight.grad is None) == (world.size == 1)
    return model


def _checkpointed(world: World, name: str, dtype: torch.dtype, segment: str) -> nn.Module:
    model, optimizer = build(name, dtype, segment)
    world.prepare(model, optimizer)
    for step in batches(name):
        take_step(optimizer, partial(descend, world, step, dtype, mse(model)))
    return model


def reentrant_checkpointing(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    return _checkpointed(world, name, dtype, "reentrant")


def plain_checkpointing(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    return _checkpointed(world, name, dtype, "not reentrant")


class _Trip(torch.autograd.Function):
    """Raises in backward when told to."""

    @staticmethod
    def forward(ctx: object, hidden: Tensor, broken: bool) -> Tensor:
        ctx.broken = broken  # type: ignore[attr-defined]
        return hidden.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        if ctx.broken:  # type: ignore[attr-defined]
            raise RuntimeError("tripped")
        return gradient, None


def exception_in_backward(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    """A pass that dies half way on all ranks is dropped; training goes on."""
    model, optimizer = build(name, dtype)
    world.prepare(model, optimizer)
    for number, step in enumerate(batches(name)):
        if number in (1, 2):

            def broken(x: Tensor, y: Tensor, rank: int) -> Tensor:
                hidden = _Trip.apply(torch.tanh(model.first(x)), True)
                return F.mse_loss(model.last(model.body(hidden)), y)

            try:
                world.loss(step, dtype, broken).backward()
                raise AssertionError("the planted exception did not come")
            except RuntimeError as error:
                assert "tripped" in str(error)
            optimizer.zero_grad()
        take_step(optimizer, partial(descend, world, step, dtype, mse(model)))
    return model


def thawing(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    """Frozen at prepare(), thawed later; parameter groups of their own."""
    torch.manual_seed(7)
    model = Net().to(dtype)
    model.first.requires_grad_(False)
    rest = [p for n, p in model.named_parameters() if not n.startswith("first")]
    optimizer = torch.optim.AdamW(
        [{"params": rest}, {"params": model.first.parameters(), "lr": 0.1}], lr=0.01
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    world.prepare(model, optimizer)
    for step in range(STEPS):
        model.first.requires_grad_(step >= 2)
        optimizer.zero_grad(set_to_none=bool(step % 2))
        world.loss(step, dtype, mse(model)).backward()
        optimizer.step()
        scheduler.step()
    return model


def kept_gradients(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    """A script that keeps gradients over steps, and copies and pickles the model."""
    model, optimizer = build(name, dtype)
    world.prepare(model, optimizer)
    average = copy.deepcopy(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        world.loss(2 * step, dtype, mse(model)).backward()
        kept = [p.grad for p in model.parameters() if p.grad is not None]
        copies = [gradient.clone() for gradient in kept]
        optimizer.zero_grad()
        world.loss(2 * step + 1, dtype, mse(model)).backward()
        for old, copied in zip(kept, copies, strict=True):
            assert torch.equal(old, copied), "a gradient that the script kept has changed"
        used = [p for p in model.parameters() if p.grad is not None]
        for parameter, old in zip(used, kept, strict=True):
            parameter.grad = parameter.grad + old
        optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(parameter, 0.3)
    return average


def compiled(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    """torch.compile around a prepared model, graph capture and all but code generation."""
    model, optimizer = build(name, dtype)
    world.prepare(model, optimizer)
    torch.compiler.reset()
    fast = torch.compile(model, backend="aot_eager")
    for step in range(STEPS):
        optimizer.zero_grad()
        world.loss(step, dtype, mse(fast)).backward()
        optimizer.step()
    return model


def compiled_in_regions(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    """hvt.compile: the layers compiled one by one, in place."""
    model, optimizer = build(name, dtype)
    world.prepare(model, optimizer)
    torch.compiler.reset()
    world.compile(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        world.loss(step, dtype, mse(model)).backward()
        optimizer.step()
    return model


def channels_last(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(7)
    layers = [nn.Conv2d(WIDTH, 4, 1), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 1, 1)]
    model = nn.Sequential(*layers).to(dtype).to(memory_format=torch.channels_last)
    optimizer = OPTIMIZERS[name](model.parameters())
    world.prepare(model, optimizer)

    def loss(x: Tensor, y: Tensor, rank: int) -> Tensor:
        image = x[:, :, None, None].expand(-1, -1, 2, 2)
        return F.mse_loss(
            model(image.contiguous(memory_format=torch.channels_last)).mean((2, 3)), y
        )

    for step in range(STEPS):
        optimizer.zero_grad()
        world.loss(step, dtype, loss).backward()
        assert model[2].weight.grad.stride() == model[2].weight.stride()
        optimizer.step()
    return model


def scaled_gradients(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    """GradScaler: unscale, clip, step, update."""
    model, optimizer = build(name, dtype)
    world.prepare(model, optimizer)
    scaler = torch.amp.GradScaler(torch.get_default_device().type, init_scale=1024.0)
    for step in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(world.loss(step, dtype, mse(model))).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
    return model


def autocast(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    """bfloat16 rounding depends on the batch: one process goes through the N parts."""
    model, optimizer = build(name, dtype)
    world.prepare(model, optimizer)

    def loss(x: Tensor, y: Tensor, rank: int) -> Tensor:
        with torch.autocast(torch.get_default_device().type, torch.bfloat16):
            return F.mse_loss(model(x).float(), y)

    for step in range(STEPS):
        optimizer.zero_grad()
        world.backward_of_parts(model, step, dtype, loss)
        optimizer.step()
    return model


def _half(world: World, name: str, half: torch.dtype) -> nn.Module:
    """Half-precision weights. Exact: every product and sum here fits the dtype."""
    model = nn.Linear(WIDTH, 1, bias=False).to(half)
    with torch.no_grad():
        model.weight.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    world.prepare(model, optimizer)

    def loss(x: Tensor, y: Tensor, rank: int) -> Tensor:
        return (model(x.sign()) * y.sign()).sum() * 2 ** (rank + 1)

    for step in range(2):
        optimizer.zero_grad()
        world.loss(step, half, loss, split=True).backward()
        assert model.weight.grad.dtype == half
        optimizer.step()
    return model


def float16_weights(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    return _half(world, name, torch.float16)


def bfloat16_weights(world: World, name: str, dtype: torch.dtype) -> nn.Module:
    return _half(world, name, torch.bfloat16)


# In each of these every optimizer trains in float64 and float32 ...
FOR_EVERY_OPTIMIZER: tuple[Case, ...] = (
    plain,
    clipping,
    accumulation,
    no_sync,
    several_backwards,
    rank_branches,
    reentrant_checkpointing,
    plain_checkpointing,
    exception_in_backward,
)
# ... and these say for themselves what they need.
WITH_ONE_OPTIMIZER: tuple[tuple[Case, str, torch.dtype], ...] = (
    (thawing, "adamw", torch.float64),
    (kept_gradients, "momentum", torch.float64),
    (compiled, "adamw", torch.float64),
    (compiled_in_regions, "adamw", torch.float64),
    (channels_last, "momentum", torch.float64),
    (channels_last, "adamw", torch.float32),
    (scaled_gradients, "adamw", torch.float32),
    (autocast, "sgd", torch.float32),
    (autocast, "adamw", torch.float32),
    (float16_weights, "sgd", torch.float16),
    (bfloat16_weights, "sgd", torch.bfloat16),
)


def all_cases() -> dict[str, tuple[Case, str, torch.dtype]]:
    """Every case by its name, "accumulation-adamw-float64"."""
    grid = [
        (case, optimizer, dtype)
        for case in FOR_EVERY_OPTIMIZER
        for optimizer in OPTIMIZERS
        for dtype in (torch.float64, torch.float32)
        # A line search compares losses: in float32 the last digit can decide.
        if (optimizer, dtype) != ("line_search", torch.float32)
        # LBFGS takes gradients for those of the loss, which clipped ones are not.
        and not (case is clipping and optimizer in LBFGS)
    ]
    return {
        f"{case.__name__}-{optimizer}-{str(dtype).removeprefix('torch.')}": (case, optimizer, dtype)
        for case, optimizer, dtype in [*grid, *WITH_ONE_OPTIMIZER]
    }
