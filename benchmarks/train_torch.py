"""Train a small network on every rank, and measure it.

By hand, in any launcher:

    hvdtools launch -n 2 -- python benchmarks/train_torch.py --engine horovod --data digits

What makes it a Horovod job are three calls, all in the class `Horovod` below:
`hvt.init()`, `hvt.prepare(model, optimizer)` and `hvt.shard(loader)`. The class
`Ddp` does the same with PyTorch's own DistributedDataParallel, the yardstick,
and `Alone` does nothing. The training loop knows none of them.

Rank 0 prints a line an epoch and, with --result, appends one JSON line with the
raw times. METHOD.md says what is timed and why.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from small_images import DATA, MODELS, Batch, Images, Loader, batches, split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DistributedSampler


class Engine(Protocol):
    """What keeps the replicas equal. `moved_by` names what carries the gradients."""

    name: str
    moved_by: str
    rank: int
    size: int
    device: torch.device

    def prepare(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The model and the optimizer to train with: gradients are averaged in backward()."""

    def shard(self, loader: Loader) -> Loader:
        """A loader of this rank's part, with equally many steps on every rank."""

    def gather(self, values: Tensor) -> Tensor:
        """(k,) on each rank -> (size, k) on every rank, row r from rank r."""


class Horovod:
    """Horovod through hvdtools' adapter."""

    name = "horovod"

    def __init__(self) -> None:
        # Imported here, so that --engine ddp runs where no Horovod is built.
        import horovod.torch as hvd

        import hvdtools.torch as hvt
        from hvdtools.installed import require

        topology = hvt.init()
        self.rank, self.size = topology.rank, topology.size
        self.device = this_device()
        self.prepare, self.shard = hvt.prepare, hvt.shard
        self._allgather = hvd.allgather
        controller = "mpi" if hvd.mpi_enabled() else "gloo"
        on_nccl = self.device.type == "cuda" and require("torch").nccl
        self.moved_by = "nccl" if on_nccl else controller

    def gather(self, values: Tensor) -> Tensor:
        return cast(Tensor, self._allgather(values.unsqueeze(0)))


class Ddp:
    """PyTorch's DistributedDataParallel, tuned as its documentation advises."""

    name = "ddp"

    def __init__(self) -> None:
        from hvdtools.topology import promised

        if "MASTER_PORT" not in os.environ:
            sys.exit(
                "train_torch: --engine ddp meets at MASTER_ADDR:MASTER_PORT: set both, the "
                "same on every rank."
            )
        place = promised(os.environ)
        self.rank, self.size = place.rank, place.size
        if torch.cuda.is_available():
            torch.cuda.set_device(place.local_rank)
        self.device = this_device()
        self.moved_by = "nccl" if self.device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(self.moved_by, rank=self.rank, world_size=self.size)

    def prepare(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        wrapped = nn.parallel.DistributedDataParallel(
            model, gradient_as_bucket_view=True, static_graph=True
        )
        return wrapped, optimizer

    def shard(self, loader: Loader) -> Loader:
        part: DistributedSampler[Batch] = DistributedSampler(
            loader.dataset, self.size, self.rank, drop_last=True
        )
        return batches(cast(Images, loader.dataset), loader.batch_size or 1, part)

    def gather(self, values: Tensor) -> Tensor:
        rows = [torch.empty_like(values) for _ in range(self.size)]
        torch.distributed.all_gather(rows, values)
        return torch.stack(rows)


class Alone:
    """One process, no communication: what a single rank can do."""

    name = moved_by = "none"
    rank, size = 0, 1

    def __init__(self) -> None:
        self.device = this_device()

    def prepare(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        return model, optimizer

    def shard(self, loader: Loader) -> Loader:
        return loader

    def gather(self, values: Tensor) -> Tensor:
        return values.unsqueeze(0)


def this_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


ENGINES: dict[str, type[Engine]] = {"horovod": Horovod, "ddp": Ddp, "none": Alone}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; a clock read earlier would lie."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Loader) -> Tensor:
    """One pass over this rank's part; the last loss."""
    loss = torch.tensor(float("nan"))
    for images, labels in loader:
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    return loss.detach()


def train(
    engine: Engine,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    epochs: int,
) -> list[float]:
    """Train on this rank's `loader`; the wall time of each epoch on this rank, in seconds."""
    model, optimizer = engine.prepare(model, optimizer)
    samples = engine.size * (loader.batch_size or 1) * len(loader)
    epoch_s = []
    for epoch in range(epochs):
        if isinstance(loader.sampler, DistributedSampler):
            loader.sampler.set_epoch(epoch)
        synchronize(engine.device)
        start_s = time.perf_counter()
        loss = train_epoch(model, optimizer, loader)
        synchronize(engine.device)
        epoch_s.append(time.perf_counter() - start_s)
        if engine.rank == 0:
            rate = samples / epoch_s[-1]
            said = f"epoch {epoch + 1}/{epochs}: loss {loss.item():.4f}, {rate:.0f} samples/s"
            print(said, flush=True)
    return epoch_s


def accuracy(model: nn.Module, test: Images) -> float:
    """The share of all test images that the model names rightly."""
    model.eval()
    with torch.no_grad():
        right = model(test.images).argmax(1) == test.labels
    return float(right.double().mean())


def replicas_equal(engine: Engine, model: nn.Module) -> bool | None:
    """Whether every rank holds the same weights, bit for bit; None for a single rank."""
    digest = hashlib.sha256()
    for weight in model.parameters():
        flat = weight.detach().cpu().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    mine = torch.tensor(list(digest.digest()), dtype=torch.uint8, device=engine.device)
    every = engine.gather(mine)
    return None if engine.size == 1 else bool((every == every[0]).all())


def measure(engine: Engine, options: argparse.Namespace) -> dict[str, Any]:
    """Train as the options say; the measurement, equal on every rank but for the accuracy."""
    torch.manual_seed(options.seed)
    dtype = DTYPES[options.dtype]
    training, test = split(DATA[options.data](), engine.device, dtype)
    model = MODELS[options.model]().to(engine.device, dtype)
    lr = options.lr * engine.size
    if engine.rank == 0:
        print(f"{engine.name} over {engine.moved_by}, {engine.size} rank(s): lr {lr:g}", flush=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    loader = engine.shard(batches(training, options.batch_size))
    mine_s = train(engine, model, optimizer, loader, options.epochs)
    # The slowest rank's time, before any rate is made of it: a job is as fast as that one.
    times_s = torch.tensor(mine_s, dtype=torch.float64, device=engine.device)
    slowest_s = engine.gather(times_s).max(0).values.tolist()
    if engine.rank == 0 and options.weights:
        torch.save([weight.detach().cpu() for weight in model.parameters()], options.weights)
    return {
        "engine": engine.name,
        "moved_by": engine.moved_by,
        "device": engine.device.type,
        "ranks": engine.size,
        "threads_per_rank": torch.get_num_threads(),
        "batch_per_rank": options.batch_size,
        "lr": lr,
        "steps_per_block": len(loader),
        "block_s": slowest_s[options.warmup_epochs :],
        "accuracy": accuracy(model, test),
        "in_sync": replicas_equal(engine, model),
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small network on every rank.")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="horovod")
    parser.add_argument("--model", choices=sorted(MODELS), default="cnn")
    parser.add_argument("--data", choices=sorted(DATA), default="digits")
    parser.add_argument("--epochs", type=int, default=12, help="of training, warm-up and all")
    parser.add_argument("--warmup-epochs", type=int, default=2, help="first ones, not counted")
    parser.add_argument("--batch-size", type=int, default=45, help="images a rank and a step")
    parser.add_argument("--lr", type=float, default=0.03, help="of one rank; times the ranks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    parser.add_argument("--weights", type=Path, help="rank 0 saves the trained weights there")
    parser.add_argument("--result", type=Path, help="rank 0 appends one JSON line to this file")
    options = parser.parse_args(arguments)
    if not 0 <= options.warmup_epochs < options.epochs:
        parser.error("--warmup-epochs leaves no epoch to count: give more --epochs")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    engine = ENGINES[options.engine]()
    measured = measure(engine, options)
    if engine.rank == 0 and options.result:
        with options.result.open("a") as file:
            file.write(json.dumps(measured) + "\n")
    if engine.rank == 0:
        known = {True: ", replicas equal", False: ", REPLICAS DIFFER", None: ""}
        said = f"test accuracy {measured['accuracy']:.4f}{known[measured['in_sync']]}"
        print(said, flush=True)
    if torch.distributed.is_initialized():
        # The wrapped model lies in a reference cycle. Left there it keeps Gloo's threads until
        # Python ends under them, which now and then aborts a rank that was done.
        gc.collect()
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
