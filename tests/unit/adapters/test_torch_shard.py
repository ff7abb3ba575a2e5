"""What shard() deals out: the arithmetic here, the rest with real ranks over Gloo."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import chain, product
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, TensorDataset

import hvdtools.torch as hvt
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.sharding import UNEVEN, Sharding
from hvdtools.torch.data.stream import CountingCollate, StandIn, StreamPart
from hvdtools.torch.data.weighted_loaders import samples_in


class Numbers(IterableDataset[int]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.length))

    def __len__(self) -> int:
        return self.length


def place(rank: int, size: int) -> hvt.Topology:
    return hvt.Topology(rank, size, rank, size, 0, 1)


def real(part: StreamPart) -> list[int]:
    return [sample for sample in part if not isinstance(sample, StandIn)]


@pytest.mark.parametrize("size", (1, 2, 3, 5))
@pytest.mark.parametrize("uneven", UNEVEN)
def test_a_stream_is_dealt_as_numbers_are(size: int, uneven: str) -> None:
    """Both against the promise of each mode, and against each other."""
    for whole, batch in product(range(23), (1, 2, 3)):
        deals = [Sharding(rank, size, uneven, batch) for rank in range(size)]
        streams = [StreamPart(Numbers(whole), deal) for deal in deals]
        parts = [real(stream) for stream in streams]
        steps = [len(DataLoader(s, batch, collate_fn=CountingCollate(list, True))) for s in streams]
        batches = [
            list(DataLoader(s, batch, collate_fn=CountingCollate(list, True))) for s in streams
        ]
        assert [len(b) for b in batches] == steps
        dealt = sorted(chain.from_iterable(parts))
        if uneven in ("weighted", "ragged"):
            assert dealt == list(range(whole))
            assert parts == [list(range(rank, whole, size)) for rank in range(size)]
        if uneven == "drop":
            assert dealt == list(range(whole - whole % size))
        if uneven == "pad" and whole:
            fill = [k % whole for k in range(whole, -(-whole // size) * size)]
            assert dealt == sorted([*range(whole), *fill])
        if uneven != "ragged":
            assert len(set(steps)) == 1
        if uneven == "drop" and whole < size:
            continue  # refused where the number is known
        for rank, stream in enumerate(batches):
            sampler = hvt.ShardSampler(
                whole,
                place(rank, size),
                shuffle=False,
                seed=0,
                uneven=uneven,
                batch_size=batch,
            )
            assert list(sampler) == list(chain.from_iterable(rows for _, rows in stream))
            assert len(sampler) == sum(len(rows) for _, rows in stream)
            assert sampler.part.own == len(parts[rank])


def test_a_stream_part_is_the_stream_to_others() -> None:
    stream = Numbers(10)
    part = StreamPart(stream, Sharding(1, 2, "drop", 1))
    part.length = 7  # as a worker_init_fn does
    assert stream.length == part.length == 7
    assert list(part) == [1, 3, 5]
    assert list(pickle.loads(pickle.dumps(part))) == [1, 3, 5]
    with pytest.raises(AttributeError, match="missing"):
        part.missing  # noqa: B018


def test_samples_in_a_ready_batch() -> None:
    rows = torch.zeros(4, 2)
    for batch in (rows, rows.numpy(), [rows], {"scalar": torch.tensor(1), "x": (None, rows)}):
        assert samples_in(batch) == 4
    with pytest.raises(
        HvdtoolsError, match=r"no tensor or array in a ready dict.*hvt\.weight\(n\)"
    ):
        samples_in({"text": ["a", "b"]})


# -- alone: a job of one rank ----------------------------------------------


@pytest.fixture(scope="module")
def _started() -> None:
    hvt.init()


class Endless(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1


class Piped(IterDataPipe[int]):
    def __iter__(self) -> Iterator[int]:
        yield 1


class OwnLoader(DataLoader[Any]):
    def __iter__(self) -> Any:
        return super().__iter__()


DATA = TensorDataset(torch.arange(8))


@pytest.mark.usefixtures("_started")
@pytest.mark.parametrize(
    ("loader", "options", "sentence"),
    [
        ([1, 2], {}, "got a list: give it a torch.utils.data.DataLoader"),
        (OwnLoader(DATA), {}, "lose what OwnLoader.__iter__ does"),
        (DataLoader(Piped()), {}, "cannot split a data pipe"),
        (
            DataLoader(DATA),
            {"uneven": "even"},
            "Unknown uneven mode 'even': choose one of drop, pad, ragged, weighted",
        ),
        (DataLoader(DATA), {"seed": -1}, "seed=-1: it must be a whole number from 0 to"),
        (DataLoader(DATA), {"seed": 1.5}, "seed=1.5: it must be a whole number"),
        (DataLoader(TensorDataset(torch.arange(0))), {}, "0 samples for 1 ranks"),
        (
            DataLoader(DATA, num_workers=1, in_order=False),
            {"uneven": "weighted"},
            "knows a batch by its place in the order: use in_order=True",
        ),
    ],
)
def test_loaders_that_cannot_be_sharded(loader: Any, options: Any, sentence: str) -> None:
    with pytest.raises(HvdtoolsError, match=sentence):
        hvt.shard(loader, **options)


@pytest.mark.usefixtures("_started")
def test_lengths_are_as_in_pytorch() -> None:
    assert len(hvt.shard(DataLoader(Numbers(10), batch_size=4))) == 3
    endless = hvt.shard(DataLoader(Endless(), batch_size=4))
    with pytest.raises(TypeError, match="has no len"):
        len(endless)
    for number, _ in enumerate(endless):
        if number == 3:
            break


def collate(rows: list[Any]) -> Any:
    return torch.stack([row for (row,) in rows])


def start_worker(worker: int) -> None:
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_started")
@pytest.mark.parametrize("dataset", [DATA, Numbers(8)], ids=["map", "stream"])
def test_what_a_loader_was_told_is_kept(dataset: Any) -> None:
    told = {
        "batch_size": 3,
        "num_workers": 2,
        "timeout": 50,
        "worker_init_fn": start_worker,
        "prefetch_factor": 3,
        "persistent_workers": True,
        "pin_memory": True,
        "drop_last": True,
        "collate_fn": collate,
        "in_order": False,
    }
    plain = DataLoader(dataset, multiprocessing_context="spawn", **told)
    loader = hvt.shard(plain)
    assert {name: getattr(loader, name) for name in told} == told
    assert loader.multiprocessing_context.get_start_method() == "spawn"


@pytest.mark.usefixtures("_started")
def test_the_loaders_generator_seeds_the_order() -> None:
    def order(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(DATA, batch_size=8, shuffle=True, generator=generator)
        ((rows,),) = hvt.shard(loader)
        ordered: list[int] = rows.tolist()
        return ordered

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.usefixtures("_started")
def test_stand_ins_and_counts_survive_a_spawned_worker() -> None:
    plain = DataLoader(
        Numbers(5), batch_size=2, num_workers=1, multiprocessing_context="spawn", pin_memory=True
    )
    weights = [hvt.batch_weight() for _ in hvt.shard(plain, uneven="weighted")]
    assert weights == [2, 2, 1]
