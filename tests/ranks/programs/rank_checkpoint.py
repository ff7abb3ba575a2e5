"""Run in every rank: save and load. Usage: ... FOLDER. Prints {check: "ok" or its traceback}."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from checking import refused, run_checks
from torch import nn
from torch.optim.lr_scheduler import StepLR

import hvdtools.torch as hvt
from hvdtools.torch.norm.layers import sync_batchnorm

TOPOLOGY = hvt.init()
RANK, SIZE = TOPOLOGY.rank, TOPOLOGY.size
FOLDER = Path(os.environ["CHECK_FOLDER"])


def refused_alike(sentence: str, action: Callable[[], object]) -> None:
    """On every rank, and the same."""
    said = refused(sentence, action)
    assert hvt.broadcast(said) == said


class Training:
    """A model with batch norm, AdamW, a warm-up and a scheduler; `seed` is of its start weights."""

    def __init__(self, seed: int, *, synchronized: bool, dtype: torch.dtype) -> None:
        torch.manual_seed(seed)
        self.dtype = dtype
        self.model = nn.Sequential(
            nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)
        ).to(dtype)
        if synchronized:
            sync_batchnorm(self.model, "checkpoint")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        hvt.scale_lr(self.optimizer, warmup_steps=4)
        self.scheduler = StepLR(self.optimizer, step_size=2, gamma=0.7)

    def prepare(self) -> None:
        hvt.prepare(self.model, self.optimizer)

    def parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
        }

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last):
            generator = torch.Generator().manual_seed(100 * step + RANK)
            inputs = torch.randn(6, 5, generator=generator).to(self.dtype)
            self.optimizer.zero_grad()
            F.mse_loss(self.model(inputs), inputs.sum(1, keepdim=True)).backward()
            self.optimizer.step()
            self.scheduler.step()

    def require_same(self, other: Training) -> None:
        for name, mine in self.model.state_dict().items():
            assert torch.equal(mine, other.model.state_dict()[name]), name
        mine, theirs = self.optimizer.state_dict(), other.optimizer.state_dict()
        assert mine["param_groups"] == theirs["param_groups"]
        for number, state in mine["state"].items():
            for name, value in state.items():
                assert value.dtype == theirs["state"][number][name].dtype
                assert torch.equal(value, theirs["state"][number][name]), name
        assert self.scheduler.state_dict() == other.scheduler.state_dict()


def check_a_resumed_run_is_the_uninterrupted_one() -> None:
    for synchronized in (False, True):
        for dtype in (torch.float32, torch.bfloat16):
            for order in ("prepared first", "loaded first"):
                resume(order, synchronized=synchronized, dtype=dtype)


def resume(order: str, *, synchronized: bool, dtype: torch.dtype) -> None:
    path = FOLDER / f"{order}-{synchronized}-{dtype}.pt"
    whole = Training(1, synchronized=synchronized, dtype=dtype)
    whole.prepare()
    whole.steps(0, 3)
    hvt.save(path, **whole.parts(), epoch=3, best={"loss": 0.5, "rows": torch.arange(2)})
    whole.steps(3, 6)
    again = Training(10 + RANK, synchronized=synchronized, dtype=dtype)
    if order == "prepared first":
        again.prepare()
        again.steps(0, 1)
    # Only rank 0 needs to see the file.
    extra = hvt.load(path if RANK == 0 else FOLDER / "not here", **again.parts())
    if order == "loaded first":
        again.prepare()
    assert extra["epoch"] == 3
    assert extra["best"]["loss"] == 0.5 and extra["best"]["rows"].tolist() == [0, 1]
    again.steps(3, 6)
    again.require_same(whole)


def check_buffers_are_rank_0s_and_its_file_holds_them() -> None:
    model = nn.BatchNorm1d(2)
    model(torch.randn(3, 2, generator=torch.Generator().manual_seed(RANK)))
    own = model.running_mean.clone()
    assert torch.equal(own, hvt.broadcast(own.clone())) == (RANK == 0)
    hvt.save(FOLDER / "buffers.pt", model=model)
    assert torch.equal(model.running_mean, hvt.broadcast(own.clone()))
    held = torch.load(FOLDER / "buffers.pt")["model"]["running_mean"]  # rank 0 is done by now
    assert torch.equal(held, model.running_mean)


def check_states_keep_their_dtype() -> None:
    """Float32 moments of a bfloat16 weight, which load_state_dict would round."""
    for order in range(2):
        weight = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        precise = torch.tensor([1 / 3, 2 / 3, 1.0])
        if order == 0:
            optimizer.state[weight]["momentum_buffer"] = precise
            hvt.save(FOLDER / "dtypes.pt", optimizer=optimizer)
        else:
            hvt.load(FOLDER / "dtypes.pt", optimizer=optimizer)
            assert torch.equal(optimizer.state[weight]["momentum_buffer"], precise)


def check_a_write_that_fails_leaves_the_old_file() -> None:
    path = FOLDER / "kept.pt"
    small = {"weights": torch.zeros(8)}
    hvt.save(path, **small)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if RANK == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    refused_alike("kept.pt: File too large", lambda: hvt.save(path, weights=torch.ones(100_000)))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.equal(hvt.load(path)["weights"], torch.zeros(8))
    refused_alike("weights holds a value", lambda: hvt.save(path, weights=Path("x")))
    refused_alike("make holds a value", lambda: hvt.save(path, weights=1, make=lambda: 1))
    assert torch.equal(hvt.load(path)["weights"], torch.zeros(8))
    assert [f.name for f in FOLDER.iterdir() if f.name.endswith(".part")] == []
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "Umask" in x)
    return int(line.split()[1], 8)


def check_folders_that_are_not_there() -> None:
    path = FOLDER / "no" / "where.pt"
    refused_alike(
        f"save() could not write {path}: No such file or directory", lambda: hvt.save(path)
    )
    refused_alike(f"load() could not load {path}: there is no such file", lambda: hvt.load(path))
    refused_alike("Is a directory", lambda: hvt.save(FOLDER))


def check_files_and_states_that_do_not_fit() -> None:
    path = FOLDER / "fits.pt"
    model = nn.Linear(2, 3)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    hvt.save(path, model=model)
    refused_alike(
        "it holds model, and no optimizer and", lambda: hvt.load(path, optimizer=sgd, scheduler=1)
    )
    wider = nn.Linear(2, 4)
    refused_alike("size mismatch for weight", lambda: hvt.load(path, model=wider))
    deeper = nn.Sequential(nn.Linear(2, 3))
    refused_alike("Missing key(s) in state_dict", lambda: hvt.load(path, model=deeper))
    hvt.save(path, optimizer=sgd)
    split = torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=0.1)
    refused_alike("different number of parameter groups", lambda: hvt.load(path, optimizer=split))
    other = FOLDER / "other.pt"
    if RANK == 0:
        torch.save(model.state_dict(), other)
    refused_alike("was not written by this version of", lambda: hvt.load(other, model=model))
    if RANK == 0:
        other.write_bytes(path.read_bytes()[:300])
    refused_alike("it is damaged, or was not written by", lambda: hvt.load(other, model=model))


def check_an_object_that_differs_on_another_rank() -> None:
    path = FOLDER / "differs.pt"
    model = nn.Linear(2, 3)
    groups = [{"params": [p]} for p in model.parameters()]
    same = torch.optim.SGD(model.parameters(), lr=0.1)
    hvt.save(path, optimizer=same)
    assert hvt.load(path) == {}
    if SIZE > 1:
        mine = same if RANK == 0 else torch.optim.SGD(groups, lr=0.1)
        refused_alike(
            "build the same optimizer on every rank", lambda: hvt.load(path, optimizer=mine)
        )
        unlike = nn.Linear(2, 3 + RANK)
        refused_alike("built different models", lambda: hvt.load(path, model=unlike))


if __name__ == "__main__":
    run_checks(globals())
