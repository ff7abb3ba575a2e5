"""Run in every rank: a gradient transport that sends payloads in another form than the default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import horovod.torch as hvd
import torch
from checking import DEVICE, refused, run_checks
from torch import Tensor, nn

import hvdtools.torch as hvt
from hvdtools.torch.gradients.transport import AllreduceTransport, GradientTransport, Transfer

TOPOLOGY = hvt.init()
RANK, SIZE = TOPOLOGY.rank, TOPOLOGY.size
STEPS = 6


class Float64Transport:
    """Sends every payload as float64, so that no payload carries the flags."""

    def carries_flags(self, dtype: torch.dtype) -> bool:
        return False

    def send(self, payload: Tensor, name: str) -> Transfer:
        wide = payload.double()
        handle = hvd.allreduce_async_(wide, name=name, op=hvd.Average)

        def unpack() -> None:
            payload.copy_(wide)

        return Transfer([handle], unpack)


@contextmanager
def messages() -> Iterator[list[tuple[str, torch.dtype, int]]]:
    """(name, dtype, size) of the all-reduces that are sent meanwhile."""
    sent: list[tuple[str, torch.dtype, int]] = []
    original = hvd.allreduce_async_

    def recorded(tensor: Tensor, **options: object) -> int:
        name = str(options["name"]).rpartition(".")[2]
        sent.append((name, tensor.dtype, tensor.numel()))
        handle: int = original(tensor, **options)
        return handle

    hvd.allreduce_async_ = recorded
    try:
        yield sent
    finally:
        hvd.allreduce_async_ = original


def prepared(
    transport: GradientTransport, dtype: torch.dtype = torch.float32
) -> tuple[nn.ModuleDict, torch.optim.Optimizer]:
    """A model of several buckets; its layer "c" is unused on rank 0."""
    torch.manual_seed(0)
    layers = {
        "a": nn.Linear(3, 8),
        "b": nn.Linear(8, 8),
        "c": nn.Linear(8, 8),
        "d": nn.Linear(8, 8),
    }
    model = nn.ModuleDict(layers).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    hvt.prepare(model, optimizer, bucket_mib=300 / 2**20, check_every=1, transport=transport)
    return model, optimizer


def backward(model: nn.ModuleDict, step: int, *, weighted: bool) -> None:
    generator = torch.Generator("cpu").manual_seed(100 * step + RANK)
    rows = torch.randn(4, 3, generator=generator, device="cpu")
    hidden = model["b"](model["a"](rows.to(DEVICE, model["a"].weight.dtype)).tanh()).tanh()
    hidden = model["c"](hidden).tanh() if RANK else hidden
    if weighted:
        with hvt.weight(1 + RANK + step):
            model["d"](hidden).square().mean().backward()
    else:
        model["d"](hidden).square().mean().backward()


def trained(
    transport: GradientTransport, dtype: torch.dtype, *, weighted: bool
) -> tuple[list[Tensor], list[tuple[str, torch.dtype, int]]]:
    """The weights at the end, and the messages of the last step."""
    model, optimizer = prepared(transport, dtype)
    for step in range(STEPS):
        optimizer.zero_grad()
        with messages() as sent:
            # In step 3 rank 0 has no new gradient.
            if (RANK, step) != (0, 3):
                backward(model, step, weighted=weighted)
            optimizer.step()
    hvt.assert_in_sync(model, optimizer)
    return [parameter.detach() for parameter in model.parameters()], sent


def check_payloads_in_float64_train_to_the_same_weights() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for weighted in (False, True):
            default, sent = trained(AllreduceTransport(), dtype, weighted=weighted)
            other, sent_apart = trained(Float64Transport(), dtype, weighted=weighted)
            for one, another in zip(default, other, strict=True):
                # Weighted means are divided by flags that have another dtype.
                assert torch.equal(one, another) or weighted
                assert torch.allclose(one, another, rtol=1e-2 if dtype.itemsize == 2 else 1e-6)
            buckets = [f"bucket{index}" for index in range(len(sent))]
            assert len(sent) > 1
            assert [name for name, _, _ in sent] == buckets
            assert {kind for _, kind, _ in sent} == {torch.float32}
            # The same payloads without their tails, and all tails in one message.
            assert [name for name, _, _ in sent_apart] == [*buckets, "flags"]
            assert {kind for _, kind, _ in sent_apart} == {torch.float64}
            assert sum(size for _, _, size in sent_apart) == sum(size for _, _, size in sent)


def check_separate_flags_tell_of_an_exception() -> None:
    model, optimizer = prepared(Float64Transport())
    for step in range(4):
        optimizer.zero_grad()
        if step != 2:
            backward(model, step, weighted=False)
            optimizer.step()
        elif RANK == SIZE - 1:
            hook = model["a"].weight.register_hook(_fail)
            try:
                backward(model, step, weighted=False)
            except RuntimeError as error:
                assert "tripped" in str(error)
            hook.remove()
        else:
            told = "Another rank aborted this backward pass"
            refused(told, lambda: backward(model, 2, weighted=False))
    hvt.assert_in_sync(model, optimizer)


def _fail(gradient: Tensor) -> Tensor:
    raise RuntimeError("tripped")


if __name__ == "__main__":
    run_checks(globals())
