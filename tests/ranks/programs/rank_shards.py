"""Run in every rank: what shard() deals out. Prints {check: "ok" or its traceback}.

Usage: ... [CHECK ...]; all of them where none is named.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import horovod.torch as hvd
import torch
from checking import heard, refused, run_checks
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)

import hvdtools.torch as hvt

TOPOLOGY = hvt.init()
RANK, SIZE = TOPOLOGY.rank, TOPOLOGY.size
ONE_PROCESS = hvt.Topology(0, 1, 0, 1, 0, 1)
MODES = ("drop", "pad", "weighted", "ragged")
LENGTHS = (1, 4, 6 * SIZE + 1, 7 * SIZE - 1)


class Rows(Dataset[Any]):
    """Sample k is the number k."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return index


class ReadyBatches(Rows):
    """Item k is a batch of 1 to 3 samples, in a dict as a collate function may make it."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        rows = torch.arange(3 * index, 3 * index + 1 + index % 3)
        return {"number": index, "rows": [rows]}


class Stream(IterableDataset[Any]):
    """What a map-style dataset holds, one after another, split between workers by itself."""

    def __init__(self, items: Rows) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return (self.items[k] for k in range(first, len(self.items), step))


class Backwards:
    """A sampler of the user's own, without a length of the dataset's."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return reversed(range(self.length))


def rows_of(batch: Any) -> list[int]:
    rows = batch["rows"][0] if isinstance(batch, dict) else batch
    return [int(row) for row in rows]


def epoch(loader: DataLoader[Any], steps: int | None = None) -> list[tuple[float | None, Any]]:
    """(weight, rows) of each batch that this rank gets, of the first `steps` at most."""
    handed_out = []
    for number, batch in enumerate(loader, start=1):
        handed_out.append((hvt.batch_weight(), rows_of(batch)))
        if number == steps:
            break
    assert hvt.batch_weight() is None
    return handed_out


Epoch = list[list[tuple[float | None, list[int]]]]


def everyones(mine: object) -> Any:
    return hvd.allgather_object(mine)


def require_epoch(ranks: Epoch, whole: list[int], mode: str, *, items: bool) -> None:
    """Each rank's batches are what `mode` promises of the samples `whole`.

    With `items` whole batches were dealt: they differ in length, and "drop" and
    "pad" give ranks equally many batches rather than samples.
    """
    steps = [len(batches) for batches in ranks]
    real = [[rows for weight, rows in batches if weight != 0] for batches in ranks]
    dealt = sorted(chain.from_iterable(chain.from_iterable(real)))
    if mode != "ragged":
        assert len(set(steps)) == 1, steps
    for batches in ranks:
        for weight, rows in batches:
            assert rows
            assert weight in ((len(rows), 0) if mode == "weighted" else (None,)), (weight, rows)
    if mode in ("weighted", "ragged"):
        assert dealt == sorted(whole), dealt
    if mode == "weighted":
        for together in zip(*ranks, strict=True):
            assert any(weight for weight, _ in together)
        for batches in ranks:
            weights = [weight for weight, _ in batches]
            assert 0 not in weights[:-1]
            if weights[-1:] == [0] and len(batches) > 1:
                assert batches[-1][1] == batches[-2][1]  # the last batch again
    if mode == "drop":
        assert set(dealt) <= set(whole)
        if len(set(whole)) == len(whole):
            assert len(set(dealt)) == len(dealt)
    if mode == "pad":
        assert set(dealt) == set(whole)
    if mode in ("drop", "pad") and not items:
        assert abs(len(whole) - len(dealt)) < SIZE
        for together in zip(*ranks, strict=True):
            assert len({len(rows) for _, rows in together}) == 1


def kinds(length: int) -> dict[str, tuple[Callable[..., DataLoader[Any]], list[int], bool]]:
    """name -> (how to make the loader, all samples of an epoch, True if whole batches are dealt)"""
    rows, ready = Rows(length), ReadyBatches(length)
    all_rows = list(range(length))
    all_ready = list(chain.from_iterable(rows_of(ready[k]) for k in range(length)))
    batches = [all_rows[k : k + 4] for k in range(0, length, 4)]

    def made(dataset: Any, **fixed: Any) -> Callable[..., DataLoader[Any]]:
        return lambda **more: DataLoader(dataset, **fixed, **more)

    return {
        "in order": (made(rows, batch_size=3), all_rows, False),
        "shuffled": (made(rows, batch_size=2, shuffle=True), all_rows, False),
        "subset": (
            made(rows, batch_size=2, sampler=SubsetRandomSampler(all_rows)),
            all_rows,
            False,
        ),
        "own sampler": (made(rows, batch_size=2, sampler=Backwards(length)), all_rows, False),
        "own batches": (made(rows, batch_sampler=batches), all_rows, True),
        "ready batches": (made(ready, batch_size=None, shuffle=True), all_ready, True),
        "stream": (made(Stream(rows), batch_size=2), all_rows, False),
        "stream of ready batches": (made(Stream(ready), batch_size=None), all_ready, True),
    }


def check_every_kind_in_every_mode() -> None:
    mine, promises = [], []
    for length in LENGTHS:
        for kind, (make, whole, items) in kinds(length).items():
            for mode in MODES:
                dealt = len(make().batch_sampler) if kind == "own batches" else length
                if mode == "drop" and dealt < SIZE and "stream" not in kind:
                    refused(f"for {SIZE} ranks", lambda make=make: next(iter(hvt.shard(make()))))
                    continue
                loader = hvt.shard(make(), uneven=mode)
                mine.append(epoch(loader))
                promises.append((whole, mode, items))
                if "stream" not in kind:
                    assert len(loader) == len(mine[-1]), (kind, mode, length)
    # One exchange for all of them: each costs time, and there are many.
    for ranks, (whole, mode, items) in zip(
        zip(*everyones(mine), strict=True), promises, strict=True
    ):
        require_epoch(list(ranks), whole, mode, items=items)


def check_workers() -> None:
    """Every kind again, in two workers that live for two epochs, the first one cut short."""
    for kind, (make, whole, items) in kinds(5 * SIZE + 1).items():
        for mode in ("drop", "weighted"):
            keep = kind in ("shuffled", "stream", "own batches")
            loader = hvt.shard(make(num_workers=2, persistent_workers=keep), uneven=mode)
            assert loader.num_workers == 2
            assert loader.persistent_workers == keep
            assert len(epoch(loader, steps=1)) == 1
            ranks = everyones(epoch(loader))
            if "stream" in kind:
                require_stream_in_workers(ranks, whole, mode)
            else:
                require_epoch(ranks, whole, mode, items=items)


def require_stream_in_workers(ranks: Epoch, whole: list[int], mode: str) -> None:
    """Each worker's part has an end of its own, with stand-ins there."""
    real = [rows for batches in ranks for weight, rows in batches if weight != 0]
    dealt = sorted(chain.from_iterable(real))
    assert len({len(batches) for batches in ranks}) == 1
    if mode == "weighted":
        assert dealt == sorted(whole), dealt
        for together in zip(*ranks, strict=True):
            assert all(weight in (0, len(rows)) for weight, rows in together)
            assert any(weight for weight, _ in together)
    else:
        assert len(set(dealt)) == len(dealt) > 0


def check_ranks_batches_together_are_one_process_batch() -> None:
    """On the same order, in every mode that repeats nothing; drop_last too."""
    length, batch_size, seed = 6 * SIZE + 1, 2, 5
    for mode in ("drop", "weighted", "ragged"):
        for drop_last in (False, True):
            for shuffle in (False, True):
                plain = DataLoader(Rows(length), batch_size, shuffle=shuffle, drop_last=drop_last)
                loader = hvt.shard(plain, uneven=mode, seed=seed)
                ranks = everyones([rows for weight, rows in epoch(loader) if weight != 0])
                order = hvt.ShardSampler(length, ONE_PROCESS, shuffle=shuffle, seed=seed)
                kept = list(order)[: length - length % SIZE if mode == "drop" else length]
                joined = list(BatchSampler(kept, SIZE * batch_size, drop_last))
                for number, batch in enumerate(joined):
                    parts = [rows[number] for rows in ranks if number < len(rows)]
                    assert sorted(chain.from_iterable(parts)) == sorted(batch)
                assert max(len(rows) for rows in ranks) == len(joined)


def check_an_epoch_has_its_own_order() -> None:
    torch.manual_seed(RANK)
    loader = hvt.shard(DataLoader(Rows(8 * SIZE), batch_size=4, shuffle=True))
    first, second = (everyones(epoch(loader)) for _ in range(2))
    assert first != second
    for ranks in (first, second):
        require_epoch(ranks, list(range(8 * SIZE)), "drop", items=False)
    loader.sampler.set_epoch(0)  # type: ignore[union-attr]
    assert everyones(epoch(loader)) == first


def check_rank_0_draws_the_order() -> None:
    """Samplers that would draw something else on each rank."""
    torch.manual_seed(RANK)
    rows = Rows(50)
    for sampler in (
        WeightedRandomSampler([1.0] * 50, 9 * SIZE),
        RandomSampler(rows, replacement=True, num_samples=9 * SIZE),
        RandomSampler(rows, num_samples=9 * SIZE),
    ):
        loader = hvt.shard(DataLoader(rows, batch_size=4, sampler=sampler), uneven="weighted")
        assert len(loader) == 3
        torch.manual_seed(100 + RANK)
        first, second = (everyones(epoch(loader)) for _ in range(2))
        torch.manual_seed(100)
        drawn = [list(sampler) for _ in range(2)]
        # All seeds but rank 0's went unused, and the draws are those of one process.
        firsts = [list(chain.from_iterable(rows for _, rows in rank)) for rank in first]
        assert firsts == [drawn[0][rank::SIZE] for rank in range(SIZE)]
        assert first != second


class Remembering(Backwards):
    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def check_set_epoch_reaches_a_sampler_of_ones_own() -> None:
    own = Remembering(4 * SIZE)
    loader = hvt.shard(DataLoader(Rows(4 * SIZE), sampler=own))
    loader.sampler.set_epoch(7)  # type: ignore[union-attr]
    assert own.epoch == 7
    hvt.shard(DataLoader(Rows(4), sampler=Backwards(4)), uneven="pad").sampler.set_epoch(1)  # type: ignore[union-attr]


def check_validation_within_an_epoch() -> None:
    """Loops that nest, end early or take turns leave the right weight behind."""
    training = hvt.shard(DataLoader(Rows(6 * SIZE), batch_size=3), uneven="weighted")
    validation = hvt.shard(DataLoader(Rows(2 * SIZE), batch_size=2), uneven="weighted")
    stream = hvt.shard(DataLoader(Stream(Rows(2 * SIZE))), uneven="weighted")
    for _ in training:
        assert hvt.batch_weight() == 3
        for _ in validation:
            assert hvt.batch_weight() == 2
        assert hvt.batch_weight() == 3
        for _ in stream:
            assert hvt.batch_weight() == 1
            break
        assert hvt.batch_weight() == 3
    assert hvt.batch_weight() is None
    for _ in zip(training, validation, strict=False):
        assert hvt.batch_weight() == 2
    assert hvt.batch_weight() is None
    try:
        for _ in training:
            raise KeyError
    except KeyError:
        pass
    assert hvt.batch_weight() is None


def told(action: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What `action` returns, and what hvdtools logs meanwhile."""
    logger = logging.getLogger("hvdtools")
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with heard() as messages:
            return action(), messages
    finally:
        logger.setLevel(level)


def check_what_is_split_already_stays() -> None:
    rows = Rows(4 * SIZE)
    distributed = DistributedSampler(rows, num_replicas=SIZE, rank=RANK)
    for loader, by in (
        (DataLoader(rows, sampler=distributed), "DistributedSampler"),
        (
            DataLoader(rows, batch_sampler=BatchSampler(distributed, 2, drop_last=False)),
            "DistributedSampler",
        ),
        (hvt.shard(DataLoader(rows), uneven="pad"), "ShardSampler"),
        (hvt.shard(DataLoader(Stream(rows)), uneven="pad"), "StreamPart"),
        (hvt.shard(DataLoader(rows, batch_sampler=[[0], [1]]), uneven="pad"), "DrawnSampler"),
    ):
        for uneven in (None, "pad"):
            kept, messages = told(
                lambda loader=loader, uneven=uneven: hvt.shard(loader, uneven=uneven)
            )
            assert kept is loader
            assert len(messages) == 1
            assert f"a {by} splits the loader already" in messages[0]
        refused(
            f'split already by a {by}, with uneven="pad"',
            lambda loader=loader: hvt.shard(loader, uneven="weighted"),
        )
    stranger = DistributedSampler(rows, num_replicas=SIZE + 1, rank=RANK)
    refused(
        f"splits for rank {RANK} of {SIZE + 1}, but this is rank {RANK} of {SIZE}",
        lambda: hvt.shard(DataLoader(rows, sampler=stranger)),
    )
    dropping = DistributedSampler(rows, num_replicas=SIZE, rank=RANK, drop_last=True)
    hvt.shard(DataLoader(rows, sampler=dropping), uneven="drop")


def check_different_loaders_are_refused() -> None:
    refused("different loaders (rank 0: 10 samples", lambda: hvt.shard(DataLoader(Rows(10 + RANK))))


def check_streams_of_different_lengths_are_refused() -> None:
    longer = SIZE if RANK == 0 else 0
    for workers in (0, 1):
        plain = DataLoader(Stream(Rows(4 * SIZE + longer)), num_workers=workers)
        loader = hvt.shard(plain, uneven="weighted")
        refused(
            f"After 4 batches the stream has ended on {SIZE - 1} of {SIZE} ranks",
            lambda loader=loader: list(loader),
        )
        assert hvt.batch_weight() is None


def check_a_stream_too_short_for_a_batch_is_logged() -> None:
    loader = hvt.shard(DataLoader(Stream(Rows(SIZE - 1))))
    batches, messages = told(lambda: list(loader))
    assert batches == []
    assert ["too short for a single batch" in message for message in messages] == [True] * (
        RANK == 0
    )


class Shuffling(Stream):
    """A stream that its worker shuffles by the worker's own random numbers."""

    def __iter__(self) -> Iterator[Any]:
        return iter(torch.randperm(len(self.items)).tolist())


def check_workers_shuffle_a_stream_alike() -> None:
    torch.manual_seed(RANK)
    loader = hvt.shard(DataLoader(Shuffling(Rows(20)), num_workers=1), uneven="ragged")
    orders = []
    for _ in range(2):
        ranks = everyones(epoch(loader))
        require_epoch(ranks, list(range(20)), "ragged", items=False)
        orders.append(ranks)
    assert orders[0] != orders[1]


def samples(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(length, 4, generator=generator).double().split([3, 1], 1))  # type: ignore[return-value]


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    return model, torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)


def train(loader: Any, inputs: torch.Tensor, targets: torch.Tensor, *, ranks: bool) -> list[Any]:
    """Weights after two epochs, and the mean losses of all samples, step by step."""
    model, optimizer = network()
    if ranks:
        hvt.prepare(model, optimizer, bucket_mib=1e-4)
    losses = []
    for _ in range(2):
        for rows in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(inputs[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            losses.append(
                hvt.average(loss.item(), count=hvt.batch_weight()) if ranks else loss.item()
            )
    return [*(p.detach() for p in model.parameters()), torch.tensor(losses, dtype=torch.float64)]


def check_weighted_training_equals_one_process() -> None:
    """On the joined batch; the last global batch is short, and leaves some ranks without any."""
    batch_size, seed = 2, 11
    for length in (1, 4 * SIZE + 1, 6 * SIZE - 1, 3 * SIZE + 1):
        inputs, targets = samples(length)
        in_order = hvt.ShardSampler(length, ONE_PROCESS, shuffle=False, seed=seed)
        shuffled = hvt.ShardSampler(length, ONE_PROCESS, shuffle=True, seed=seed)
        for plain, order in (
            (DataLoader(Rows(length), batch_size, shuffle=True), shuffled),
            (DataLoader(Rows(length), batch_size, sampler=Backwards(length)), Backwards(length)),
            (DataLoader(Stream(Rows(length)), batch_size), in_order),
        ):
            loader = hvt.shard(plain, uneven="weighted", seed=seed)
            joined = DataLoader(Rows(length), SIZE * batch_size, sampler=order)
            mine = train(loader, inputs, targets, ranks=True)
            reference = train(joined, inputs, targets, ranks=False)
            for got, expected in zip(mine, reference, strict=True):
                assert torch.allclose(got, expected, rtol=1e-12, atol=1e-14), (
                    length,
                    got - expected,
                )


if __name__ == "__main__":
    run_checks(globals(), sys.argv[1:])
