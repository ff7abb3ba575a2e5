"""Training loops whose result must not depend on how many ranks share the work.

Each is a function of a world and of what it varies (an optimizer's name, a dtype), and returns the
tensors to compare. `equality_cases.py` lists with what each of them runs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from worlds import WIDTH, LossOfPart, Part, World

STEPS = 4

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    "line_search": lambda p: torch.optim.LBFGS(
        p, lr=0.5, max_iter=3, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    ),
}


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
    world: World, optimizer: str, dtype: torch.dtype, segment: str = "plain", **options: int
) -> tuple[Net, torch.optim.Optimizer]:
    """Both of them prepared."""
    torch.manual_seed(7)
    model = Net(segment).to(dtype)
    built = OPTIMIZERS[optimizer](model.parameters())
    world.prepare(model, built, **options)
    return model, built


def mse(model: nn.Module) -> LossOfPart:
    return lambda part: F.mse_loss(model(part.inputs), part.targets)


def descend(
    world: World, dtype: torch.dtype, loss_of_part: LossOfPart, step: int, *, split: bool = False
) -> Tensor:
    """One backward pass; its loss."""
    loss = world.loss(step, dtype, loss_of_part, split=split)
    loss.backward()
    return loss.detach()


def take_step(
    optimizer: torch.optim.Optimizer,
    backward: Callable[[], Tensor],
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """One step, through a closure where the optimizer wants one."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        return backward()

    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(closure)
        return
    closure()
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def steps_for(optimizer: torch.optim.Optimizer) -> Sequence[int]:
    """The data of each step. LBFGS fits curvature to one function: always the same."""
    return [0] * STEPS if isinstance(optimizer, torch.optim.LBFGS) else range(STEPS)


def weights_of(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().cpu() for parameter in model.parameters()]


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    backward: Callable[[int], Tensor],
    scaler: torch.amp.GradScaler | None = None,
) -> list[Tensor]:
    """The weights after all steps; `backward` fills the gradients of a step."""
    for step in steps_for(optimizer):
        take_step(optimizer, partial(backward, step), scaler)
    return weights_of(model)


def plain(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    model, optimizer = build(world, name, dtype)
    weights = fit(model, optimizer, partial(descend, world, dtype, mse(model)))
    assert model.dead.weight.grad is None
    return weights


def clipping(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    model, optimizer = build(world, name, dtype)

    def backward(step: int) -> Tensor:
        loss = descend(world, dtype, mse(model), step)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        return loss

    return fit(model, optimizer, backward)


def accumulation(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    model, optimizer = build(world, name, dtype, accumulate=3)

    def third(part: Part) -> Tensor:
        return mse(model)(part) / 3

    def backward(step: int) -> Tensor:
        return sum(descend(world, dtype, third, 10 * step + micro) for micro in range(3))

    return fit(model, optimizer, backward)


def no_sync(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    model, optimizer = build(world, name, dtype)

    def backward(step: int) -> Tensor:
        with world.no_sync(model):
            first = descend(world, dtype, mse(model), 10 * step)
        return first + descend(world, dtype, mse(model), 10 * step + 1)

    return fit(model, optimizer, backward)


def several_backwards(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    """Two passes that each average; the second does not use every parameter."""
    model, optimizer = build(world, name, dtype)

    def first_layer(part: Part) -> Tensor:
        return model.first(part.inputs).square().mean()

    def backward(step: int) -> Tensor:
        first = descend(world, dtype, mse(model), 10 * step)
        return first + descend(world, dtype, first_layer, 10 * step + 1)

    return fit(model, optimizer, backward)


def rank_branches(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    model, optimizer = build(world, name, dtype)

    def branching(part: Part) -> Tensor:
        return F.mse_loss(model(part.inputs, part.rank), part.targets)

    weights = fit(model, optimizer, partial(descend, world, dtype, branching, split=True))
    assert (model.odd.weight.grad is None) == (world.size == 1)
    return weights


def reentrant_checkpointing(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    model, optimizer = build(world, name, dtype, "reentrant")
    return fit(model, optimizer, partial(descend, world, dtype, mse(model)))


def plain_checkpointing(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    model, optimizer = build(world, name, dtype, "not reentrant")
    return fit(model, optimizer, partial(descend, world, dtype, mse(model)))


class _Trip(torch.autograd.Function):
    """Raises in backward."""

    @staticmethod
    def forward(ctx: object, hidden: Tensor) -> Tensor:
        return hidden.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        raise RuntimeError("tripped")


def exception_in_backward(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    """A pass that dies half way on all ranks is dropped; training goes on."""
    model, optimizer = build(world, name, dtype)

    def broken(part: Part) -> Tensor:
        hidden = _Trip.apply(torch.tanh(model.first(part.inputs)))
        return F.mse_loss(model.last(model.body(hidden)), part.targets)

    for number, step in enumerate(steps_for(optimizer)):
        if number in (1, 2):
            try:
                world.loss(step, dtype, broken).backward()
                raise AssertionError("the planted exception did not come")
            except RuntimeError as error:
                assert "tripped" in str(error)
            optimizer.zero_grad()
        take_step(optimizer, partial(descend, world, dtype, mse(model), step))
    return weights_of(model)


def thawing(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
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
        descend(world, dtype, mse(model), step)
        optimizer.step()
        scheduler.step()
    return weights_of(model)


def kept_gradients(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    """A script that keeps gradients over steps, and copies and pickles the model."""
    model, optimizer = build(world, name, dtype)
    average = copy.deepcopy(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        descend(world, dtype, mse(model), 2 * step)
        kept = [p.grad for p in model.parameters() if p.grad is not None]
        copies = [gradient.clone() for gradient in kept]
        optimizer.zero_grad()
        descend(world, dtype, mse(model), 2 * step + 1)
        for old, copied in zip(kept, copies, strict=True):
            assert torch.equal(old, copied), "a gradient that the script kept has changed"
        used = [p for p in model.parameters() if p.grad is not None]
        for parameter, old in zip(used, kept, strict=True):
            parameter.grad = parameter.grad + old
        optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(parameter, 0.3)
    return weights_of(average)


@contextmanager
def _own_compiler_cache() -> Iterator[None]:
    """What is compiled meanwhile is neither another's nor left to anyone."""
    torch.compiler.reset()
    try:
        yield
    finally:
        torch.compiler.reset()


def compiled(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    """torch.compile around a prepared model, graph capture and all but code generation."""
    model, optimizer = build(world, name, dtype)
    with _own_compiler_cache():
        fast = torch.compile(model, backend="aot_eager")
        return fit(model, optimizer, partial(descend, world, dtype, mse(fast)))


def compiled_in_regions(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    """hvt.compile: the layers compiled one by one, in place."""
    model, optimizer = build(world, name, dtype)
    with _own_compiler_cache():
        world.compile(model)
        return fit(model, optimizer, partial(descend, world, dtype, mse(model)))


def channels_last(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(7)
    layers = [nn.Conv2d(WIDTH, 4, 1), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 1, 1)]
    model = nn.Sequential(*layers).to(dtype).to(memory_format=torch.channels_last)
    optimizer = OPTIMIZERS[name](model.parameters())
    world.prepare(model, optimizer)

    def loss_of_part(part: Part) -> Tensor:
        image = part.inputs[:, :, None, None].expand(-1, -1, 2, 2)
        image = image.contiguous(memory_format=torch.channels_last)
        return F.mse_loss(model(image).mean((2, 3)), part.targets)

    def backward(step: int) -> Tensor:
        loss = descend(world, dtype, loss_of_part, step)
        assert model[2].weight.grad.stride() == model[2].weight.stride()
        return loss

    return fit(model, optimizer, backward)


def scaled_gradients(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    """GradScaler: unscale, clip, step, update."""
    model, optimizer = build(world, name, dtype)
    scaler = torch.amp.GradScaler(torch.get_default_device().type, init_scale=1024.0)

    def backward(step: int) -> Tensor:
        loss = world.loss(step, dtype, mse(model))
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        return loss.detach()

    return fit(model, optimizer, backward, scaler)


def autocast(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    """bfloat16 rounding depends on the batch: one process goes through the N parts."""
    model, optimizer = build(world, name, dtype)

    def loss_of_part(part: Part) -> Tensor:
        with torch.autocast(torch.get_default_device().type, torch.bfloat16):
            return F.mse_loss(model(part.inputs).float(), part.targets)

    def backward(step: int) -> Tensor:
        return world.backward_of_parts(model, world.parts(step, dtype), loss_of_part)

    return fit(model, optimizer, backward)


def _half_weights(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    """Half-precision weights. Exact: every product and sum here fits the dtype."""
    model = nn.Linear(WIDTH, 1, bias=False).to(dtype)
    with torch.no_grad():
        model.weight.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    world.prepare(model, optimizer)

    def loss_of_part(part: Part) -> Tensor:
        return (model(part.inputs.sign()) * part.targets.sign()).sum() * 2 ** (part.rank + 1)

    for step in range(2):
        optimizer.zero_grad()
        descend(world, dtype, loss_of_part, step, split=True)
        assert model.weight.grad.dtype == dtype
        optimizer.step()
    return weights_of(model)


def float16_weights(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    return _half_weights(world, name, dtype)


def bfloat16_weights(world: World, name: str, dtype: torch.dtype) -> list[Tensor]:
    return _half_weights(world, name, dtype)
