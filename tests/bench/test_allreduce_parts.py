"""The parts of allreduce.py: numbers with exact sums, lengths of blocks, bandwidths."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hvdtools.bench.analysis.bandwidth import algbw_gb_per_s, busbw_gb_per_s
from hvdtools.bench.suite.sizes import parse_size, sizes_in
from hvdtools.core.errors import HvdtoolsError


@pytest.fixture(name="modules")
def _modules(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The program's parts, as it imports them."""
    from hvdtools.bench.programs.allreduce import memory as allreduce_memory
    from hvdtools.bench.programs.allreduce import timing as allreduce_timing
    from hvdtools.bench.programs.allreduce import values as allreduce_values

    monkeypatch.setattr(allreduce_values, "TILE", 97)
    return SimpleNamespace(
        values=allreduce_values, timing=allreduce_timing, memory=allreduce_memory
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 100, 512])
def test_sums_are_exact_in_whatever_order(dtype: str, ranks: int, modules: SimpleNamespace) -> None:
    cpu = torch.device("cpu")
    every = [modules.values.Values(dtype, rank, ranks, cpu) for rank in range(ranks)]
    flats = torch.empty(ranks, 1000, dtype=modules.values.dtype_of(dtype))
    for values, flat in zip(every, flats, strict=True):
        values.fill(flat)
    for order in (range(ranks), range(ranks)[::-1], torch.randperm(ranks).tolist()):
        total = torch.zeros_like(flats[0])
        for rank in order:
            total += flats[rank]  # rounded to the type after each
        assert every[0].count_wrong(total) == 0
    # Every two ranks' numbers differ, so that one taken twice for another shows.
    assert len({tuple(flat.tolist()) for flat in flats}) == ranks
    # Nor are sums the same everywhere.
    assert every[0].count_wrong(total.roll(1)) > 100
    total[5] = float("nan")
    total[900] -= 1
    assert every[-1].count_wrong(total) == 2


@pytest.mark.parametrize(("dtype", "ranks"), [("bfloat16", 513), ("float16", 4097)])
def test_what_cannot_be_exact_is_refused(dtype: str, ranks: int, modules: SimpleNamespace) -> None:
    with pytest.raises(HvdtoolsError, match=f"{dtype} holds .* sums of {ranks} ranks go beyond"):
        modules.values.Values(dtype, 0, ranks, torch.device("cpu"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("ranks", [2, 3, 8, 512])
def test_what_is_timed_is_never_denormal_nor_infinite(
    dtype: str, ranks: int, modules: SimpleNamespace
) -> None:
    values = modules.values.Values(dtype, 0, ranks, torch.device("cpu"))
    flat = torch.empty(300, dtype=modules.values.dtype_of(dtype))
    values.fill_to_time(flat)
    assert len(flat.unique()) == 8
    for _ in range(values.ops):
        assert (flat >= torch.finfo(flat.dtype).tiny).all() and flat.isfinite().all()
        flat *= ranks
    assert flat.isfinite().all() and values.ops >= 3


def test_a_block_is_long_enough_and_no_longer_than_it_need_be(modules: SimpleNamespace) -> None:
    def agreed(op_s: float) -> int:
        return int(modules.timing.agree_on_ops(lambda ops: ops * op_s, lambda mine: [mine, [0.0]]))

    for op_s in (3e-6, 1e-4, 1.9e-2):
        assert modules.timing.BLOCK_S <= agreed(op_s) * op_s < 2.1 * modules.timing.BLOCK_S
    assert agreed(0.5) == 1
    assert agreed(0.0) == modules.timing.MAX_OPS


def test_a_single_slow_block_does_not_end_the_search(modules: SimpleNamespace) -> None:
    hiccups = [0.5]

    def seconds(ops: int) -> float:
        return ops * 1e-4 + (hiccups.pop() if hiccups else 0)

    assert modules.timing.agree_on_ops(seconds, lambda mine: [mine]) >= 200


def test_bandwidth_by_hand() -> None:
    # 1e9 bytes in half a second.
    assert algbw_gb_per_s(10**9, 0.5) == 2.0
    # A ring of 2 sends half the message twice; of 4, a quarter 6 times; of 1, nothing.
    assert busbw_gb_per_s(10**9, 0.5, 2) == 2.0
    assert busbw_gb_per_s(10**9, 0.5, 4) == pytest.approx(1.5 * 2.0)
    assert busbw_gb_per_s(10**9, 0.5, 1) == 0.0


def test_sizes_are_read() -> None:
    assert [parse_size(text) for text in ("512", "512B", "4KiB", " 1 GiB ")] == [
        *(512, 512, 4096, 2**30)
    ]
    assert sizes_in("1KiB:8KiB") == (1024, 2048, 4096, 8192)
    assert sizes_in("1KiB:60KiB", 4) == (1024, 4096, 16384)
    assert sizes_in("4KiB,1KiB:4KiB") == (4096, 1024, 2048)
    for text in ("", "KiB", "-1KiB", "1.5KiB", "0KiB", "1TiB", "1KiB:", ":1KiB", "1KiB:2KiB:4KiB"):
        with pytest.raises(HvdtoolsError, match="Unknown size"):
            sizes_in(text)


def test_a_container_limits_the_memory(modules: SimpleNamespace, tmp_path: Path) -> None:
    left = modules.memory._left_in_container
    assert left(tmp_path) is None
    (tmp_path / "memory.stat").write_text("anon 300\nfile 500\nshmem 100\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert left(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert left(tmp_path) == 600
