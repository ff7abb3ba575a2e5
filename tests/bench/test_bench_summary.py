"""The numbers of a run: medians, intervals, ratios, step times, skew, curves, loaders."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from bench_examples import (
    BATCH,
    OPTIONS,
    allreduce_result,
    failed,
    loader_result,
    phases,
    training_result,
)

from hvdtools.bench.analysis.bootstrap import estimate, resample
from hvdtools.bench.analysis.interval import Estimate
from hvdtools.bench.analysis.summary import analyze
from hvdtools.bench.analysis.training import TrainingRow
from hvdtools.bench.results.measured import Point
from hvdtools.bench.results.result_file import Result


def rows_of(results: Sequence[Result]) -> dict[tuple[str, int, int], TrainingRow]:
    return {(row.engine, row.ranks, row.nodes): row for row in training_rows(results)}


def training_rows(results: Sequence[Result]) -> list[TrainingRow]:
    return analyze(results).training_rows


def exactly(value: float) -> Estimate:
    return Estimate(*(pytest.approx(value) for _ in range(3)))


def test_a_rate_is_ranks_times_batch_times_steps_over_time() -> None:
    row = rows_of([training_result("ddp", 2, block_s=(1.0, 0.5, 0.25))])["ddp-gloo", 2, 1]
    assert row.samples_per_s is not None
    assert row.samples_per_s.value == pytest.approx(400)  # 2 ranks x 10 samples x 10 steps / 0.5 s
    assert (row.repeats, row.blocks, row.batch_per_rank) == (1, 3, BATCH)


def test_repeats_have_equal_weight_for_any_number_of_blocks() -> None:
    results = [
        training_result("ddp", 1, 1, (1.0,) * 50),
        training_result("ddp", 1, 2, (4.0,) * 5),
    ]
    (row,) = training_rows(results)
    assert row.samples_per_s is not None and row.samples_per_s.value == pytest.approx(50)
    assert (row.repeats, row.blocks) == (2, 55)


def test_rows_are_in_the_order_of_engines_nodes_and_ranks() -> None:
    results = [
        training_result(engine, ranks, nodes=nodes)
        for engine in ("no_comm", "ddp")
        for ranks, nodes in ((4, 2), (2, 1), (1, 1), (2, 2))
    ]
    found = [(row.engine, row.ranks, row.nodes) for row in training_rows(results)]
    sizes = [(1, 1), (2, 1), (2, 2), (4, 2)]
    assert found == [(engine, *size) for engine in ("no_comm", "ddp-gloo") for size in sizes]


def test_a_slow_repeat_leaves_ratios_alone() -> None:
    # Repeat 2 is twice as slow for everyone.
    results = [
        training_result(engine, ranks, repeat, (seconds * repeat,) * 6)
        for repeat in (1, 2)
        for engine, ranks, seconds in (
            ("ddp", 1, 1.0),
            ("horovod-mpi", 1, 0.5),
            ("ddp", 2, 1.0),
            ("horovod-mpi", 2, 0.625),
        )
    ]
    rows = rows_of(results)
    both = rows["horovod-mpi", 2, 1]
    assert both.efficiency == exactly(0.8)
    assert both.vs_baseline == exactly(1.6)
    assert rows["ddp-gloo", 2, 1].efficiency == exactly(1)
    assert rows["ddp-gloo", 2, 1].vs_baseline is None
    assert both.samples_per_s is not None and both.samples_per_s.half_width > 0.5


def test_interleaved_blocks_are_paired() -> None:
    # The machine becomes slower from block to block, for both engines: the ratio stays.
    drift = np.linspace(1, 2, 12)
    both = ("hvdtools-mpi", "ddp")
    together = [
        training_result("hvdtools-mpi", 2, block_s=0.8 * drift, interleaved=both),
        training_result("ddp", 2, block_s=drift, interleaved=both),
    ]
    apart = [dataclasses.replace(each, interleaved=(each.engine,)) for each in together]
    paired = rows_of(together)["hvdtools-mpi", 2, 1].vs_baseline
    alone = rows_of(apart)["hvdtools-mpi", 2, 1].vs_baseline
    assert paired == exactly(1.25)
    assert alone is not None
    assert alone.value == pytest.approx(1.25) and alone.half_width > 0.2


def test_strong_scaling_has_the_same_efficiency() -> None:
    # 20 samples a step in all: 2 ranks take 0.625 of the time, so 1.6 times the rate.
    results = [
        training_result("ddp", 1, scaling="strong", batch_per_rank=20),
        training_result("ddp", 2, block_s=(0.625,) * 6, scaling="strong", batch_per_rank=10),
    ]
    assert rows_of(results)["ddp-gloo", 2, 1].efficiency == exactly(0.8)


def test_the_baseline_of_nodes_is_a_full_node() -> None:
    seconds = {(1, 1): 1.0, (2, 1): 1.25, (4, 2): 1.5625, (2, 2): 1.6, (3, 2): 2.0}
    rows = rows_of(
        [
            training_result("ddp", ranks, block_s=(each,) * 6, nodes=nodes)
            for (ranks, nodes), each in seconds.items()
        ]
    )
    assert rows["ddp-gloo", 4, 2].efficiency == exactly(0.64)
    assert rows["ddp-gloo", 4, 2].node_efficiency == exactly(0.8)
    assert rows["ddp-gloo", 2, 2].node_efficiency == exactly(0.625)  # one rank on each
    assert rows["ddp-gloo", 2, 1].node_efficiency is None
    assert rows["ddp-gloo", 3, 2].node_efficiency is None  # one node is fuller than the other


def test_swapped_labels_swap_the_rows() -> None:
    seconds = {"hvdtools-mpi": 0.8, "horovod-mpi": 1.3}
    swapped = {"hvdtools-mpi": 1.3, "horovod-mpi": 0.8}
    first, second = (
        {
            row.engine: (row.samples_per_s, row.efficiency, row.vs_baseline)
            for row in training_rows(
                [
                    training_result(
                        engine, ranks, repeat, np.array([1, 1.1, 0.9, 1.05]) * each * repeat
                    )
                    for repeat in (1, 2, 3)
                    for ranks in (1, 2)
                    for engine, each in {**table, "ddp": 1.0}.items()
                ]
            )
        }
        for table in (seconds, swapped)
    )
    assert first["hvdtools-mpi"] == second["horovod-mpi"]
    assert first["horovod-mpi"] == second["hvdtools-mpi"]
    assert first["hvdtools-mpi"] != first["horovod-mpi"]


def test_a_repeat_without_its_pair_gives_no_ratio() -> None:
    results = [
        training_result("ddp", 1, 1),
        failed(training_result("ddp", 2, 1), "no memory"),
        training_result("ddp", 1, 2),
        training_result("ddp", 2, 2, (1.25,) * 6),
        failed(training_result("horovod-mpi", 2, 2), "no mpirun"),
    ]
    rows = rows_of(results)
    pair = rows["ddp-gloo", 2, 1]
    assert pair.efficiency == exactly(0.8) and pair.repeats == 1
    assert pair.failures == ("no memory",)
    horovod = rows["horovod-mpi", 2, 1]
    assert horovod.samples_per_s is None and horovod.failures == ("no mpirun",)
    assert (horovod.efficiency, horovod.step_time, horovod.in_sync) == (None, None, None)
    assert rows["ddp-gloo", 1, 1].failures == ()


def test_a_resumed_case_counts_as_it_ended_last() -> None:
    first = training_result("ddp", 2)
    (row,) = training_rows([failed(first), first])
    assert row.failures == () and row.repeats == 1
    (row,) = training_rows([first, dataclasses.replace(first, run_id="run-2")])
    assert row.repeats == 2  # another run's first repeat is another repeat


def test_one_block_has_no_interval_and_one_repeat_has_that_of_its_blocks() -> None:
    (row,) = training_rows([training_result("ddp", 1, block_s=(1.0,))])
    assert row.samples_per_s is not None
    assert row.samples_per_s.value == pytest.approx(100) and math.isnan(row.samples_per_s.low)
    (row,) = training_rows([training_result("ddp", 1, block_s=np.linspace(0.98, 1.02, 9))])
    assert row.repeats == 1 and row.samples_per_s is not None
    assert 97 < row.samples_per_s.low < 100 < row.samples_per_s.high < 103


def test_intervals_have_their_coverage() -> None:
    random = np.random.default_rng(5)
    for repeats, at_least in ((3, 0.95), (5, 0.95), (12, 0.93)):
        held = 0
        for _ in range(200):
            offsets = 0.02 * random.standard_normal(repeats)
            jobs = [(each + 0.02 * random.standard_normal(8),) for each in offsets]
            found = estimate(jobs)
            held += found.low <= 1 <= found.high
        assert held / 200 >= at_least


@pytest.mark.parametrize("count", [1, 2, 3, 6, 9, 40])
def test_medians_are_resampled_as_if_value_by_value(count: int) -> None:
    random = np.random.default_rng(9)
    values = np.sort(random.standard_normal(count)) ** 3
    drawn = resample([(values,)], random, 40_000)
    wider = math.sqrt(count / (count - 1)) if count > 1 else math.nan
    medians = (drawn.replicates - drawn.value) / wider + drawn.value
    plain = np.median(values[random.integers(count, size=(40_000, count))], axis=1)
    if count == 1:
        assert np.isnan(medians).all()
        return
    # Two samples of one distribution differ nowhere by more than this (Kolmogorov and Smirnov).
    edges = np.unique(plain) + 1e-9
    shares = [np.searchsorted(np.sort(each), edges) / 40_000 for each in (medians, plain)]
    assert np.abs(shares[0] - shares[1]).max() < 0.015


def test_the_same_results_give_the_same_intervals() -> None:
    results = [training_result("ddp", 1, repeat, (1.0, 1.1, 1.3)) for repeat in (1, 2, 3)]
    assert analyze(results) == analyze(results)


def test_communication_is_the_time_beyond_a_step_without_it() -> None:
    results = [
        training_result(
            engine, 2, repeat, phase_s=phases(2, *(repeat * each for each in seconds))
        )
        for repeat in (1, 2, 3)
        for engine, seconds in (
            ("hvdtools-mpi", (0.001, 0.010, 0.024, 0.002)),
            ("ddp", (0.001, 0.010, 0.018, 0.002)),
            ("no_comm", (0.001, 0.010, 0.020, 0.002)),
        )
    ]  # fmt: skip
    rows = rows_of(results)
    parts = rows["hvdtools-mpi", 2, 1].step_time
    assert parts is not None
    assert parts.communication_s == pytest.approx(2 * 0.004)
    assert parts.backward_s == pytest.approx(2 * 0.020)
    assert parts.step_s == pytest.approx(2 * 0.037)
    below = rows["ddp-gloo", 2, 1].step_time
    assert below is not None and below.communication_s == pytest.approx(-2 * 0.002)
    for each in (parts, below):
        drawn = each.by_phase
        assert sum(drawn.values()) == pytest.approx(each.step_s) and min(drawn.values()) >= 0
    assert below.by_phase["forward"] / below.by_phase["backward"] == pytest.approx(0.5)
    ideal = rows["no_comm", 2, 1].step_time
    assert ideal is not None and ideal.communication_s == 0


def test_a_millisecond_of_communication_is_a_millisecond() -> None:
    plain = phases(2, 0.001, 0.010, 0.020, 0.002)
    slower = {**plain, "backward": (0.021, 0.021)}
    results = [
        training_result("no_comm", 2, phase_s=plain),
        training_result("ddp", 2, phase_s=slower),
    ]
    parts = rows_of(results)["ddp-gloo", 2, 1].step_time
    assert parts is not None and parts.communication_s == pytest.approx(0.001)


def test_without_an_ideal_engine_the_backward_pass_includes_communication() -> None:
    phase_s = phases(2, 0.001, 0.010, 0.024, 0.002)
    of_another_size = training_result("no_comm", 1, phase_s=phases(1, 0.001, 0.010, 0.020, 0.002))
    rows = rows_of([training_result("ddp", 2, phase_s=phase_s), of_another_size])
    parts = rows["ddp-gloo", 2, 1].step_time
    assert parts is not None and parts.communication_s is None
    assert parts.communication_share is None and parts.backward_s == 0.024
    (row,) = training_rows([training_result("ddp", 2)])
    assert row.step_time is None and row.input_share is None


def test_a_straggler_shows_as_skew_and_not_as_communication() -> None:
    # Rank 2 computes 5 ms longer; under DDP the others wait for it in their backward pass.
    none_s = {
        "input": (0.001,) * 4,
        "forward": (0.010, 0.010, 0.015, 0.010),
        "backward": (0.020,) * 4,
        "optimizer": (0.002,) * 4,
    }
    ddp_s = {**none_s, "backward": (0.027, 0.027, 0.022, 0.027)}
    alone_s = (0.033, 0.033, 0.038, 0.033)
    results = [
        training_result("no_comm", 4, phase_s=none_s, rank_step_s=alone_s),
        training_result("ddp", 4, phase_s=ddp_s, rank_step_s=(0.040,) * 4),
        training_result("no_comm", 1),
    ]
    rows = rows_of(results)
    ideal, engine = rows["no_comm", 4, 1], rows["ddp-gloo", 4, 1]
    assert ideal.skew is not None and ideal.skew.rank == 2
    assert ideal.skew.over_median == pytest.approx(0.005 / 0.033)
    assert engine.skew is not None and engine.skew.rank == 2
    assert engine.skew.over_median == pytest.approx(0.005 / 0.011)
    assert engine.step_time is not None and engine.step_time.communication_s == pytest.approx(0.002)
    assert rows["no_comm", 1, 1].skew is None


def test_memory_and_accuracy_and_sync_over_repeats() -> None:
    results = [
        training_result(
            "ddp", 2, repeat, peak_memory_bytes=(repeat, 10 - repeat), accuracy=0.9 + repeat / 100,
            in_sync=repeat != 2,
        )
        for repeat in (1, 2, 3)
    ]  # fmt: skip
    (row,) = training_rows(results)
    assert row.peak_memory_bytes == 9 and row.accuracy == pytest.approx(0.92)
    assert row.in_sync is False
    (row,) = training_rows([training_result("no_comm", 2, accuracy=None)])
    assert row.in_sync is None and row.accuracy is None


def test_workloads_are_kept_apart() -> None:
    results = [
        training_result("ddp", 2),
        training_result("ddp", 2, scaling="strong"),
        training_result("ddp", 2, options={"model": "mlp", "data": "digits"}),
        training_result("ddp", 2, options={**OPTIONS, "batch_size": 64}),
        training_result("ddp", 2, options={**OPTIONS, "precision": "bfloat16"}),
        training_result("mwms", 2, family="keras"),
    ]
    run = analyze(results)
    assert len(run.workloads) == len(run.training_rows) == 6
    # How long to measure does not make another workload.
    longer = training_result("ddp", 2, 2, options={**OPTIONS, "steps": 50, "limit_s": 9})
    (row,) = training_rows([results[0], longer])
    assert row.repeats == 2
    assert analyze([allreduce_result("torch", 2), loader_result(1)]).of_kind("training") == []


def test_a_failed_job_is_named_after_a_job_with_the_same_options() -> None:
    # The suite left the model to the program.
    worked = training_result("ddp", 1, options={"data": "digits"}, model="cnn")
    dead = failed(training_result("ddp", 2, options={"data": "digits"}))
    (named,) = analyze([dead, worked]).workloads
    assert named.workload.model == "cnn"
    (named,) = analyze([dead], names_from=[worked]).workloads
    assert named.workload.model == "cnn"
    (unnamed,) = analyze([dead]).workloads
    assert unnamed.workload.model == ""


def test_an_input_bound_training_is_named() -> None:
    waits = training_result(
        "ddp", 2, phase_s={**phases(2, 0.001, 0.01, 0.02, 0.002), "input": (0.001, 0.02)}
    )
    (bound,) = analyze([waits]).input_bound
    assert bound.row.input_share == pytest.approx(0.2)  # of a step of 0.1 s, on rank 1
    assert bound.slow_loaders == ()
    busy = training_result("ddp", 2, phase_s=phases(2, 0.001, 0.01, 0.02, 0.002))
    assert not analyze([busy]).input_bound
    run = analyze([busy, loader_result(2, block_s=(0.95,) * 6)])
    (bound,) = run.input_bound
    assert bound.slow_loaders == tuple(run.loader_rows)
    assert not analyze([busy, loader_result(2, block_s=(0.85,) * 6)]).input_bound
    # Loaders of other data, on other ranks or of another library say nothing about it.
    slow = (9.0,) * 6
    other = [
        loader_result(2, block_s=slow, data="synthetic"),
        loader_result(1, block_s=slow),
        failed(loader_result(2, block_s=slow)),
    ]
    assert not analyze([busy, *other]).input_bound
    keras = training_result("mwms", 2, family="keras")
    assert not analyze([keras, loader_result(2, block_s=slow)]).input_bound


def test_a_loader_row() -> None:
    results = [loader_result(2, workers=3), failed(loader_result(4, workers=3))]
    first, second = analyze(results).loader_rows
    assert first.samples_per_s == exactly(200)
    assert (first.workers, first.workload.data, first.repeats, first.blocks) == (3, "digits", 1, 6)
    assert second.samples_per_s is None and second.failures


def test_a_curve_has_both_bandwidths() -> None:
    results = [
        allreduce_result(
            "horovod-mpi", 4, repeat, {2_000_000: (0.001 * repeat,) * 6, 1024: (1e-5,) * 6}
        )
        for repeat in (1, 2)
    ]
    (curve,) = analyze(results).allreduce_curves
    assert (curve.engine, curve.ranks, curve.dtype, curve.tensors) == (
        "horovod-mpi",
        4,
        "float32",
        1,
    )
    small, large = curve.points
    assert (small.message_bytes, large.message_bytes) == (1024, 2_000_000)
    seconds = 0.001 * math.sqrt(2)
    assert large.op_s.value == pytest.approx(seconds)
    assert large.algbw_gb_per_s == pytest.approx(0.002 / seconds)
    assert large.busbw_gb_per_s.value == pytest.approx(0.002 / seconds * 1.5)
    assert (large.repeats, large.blocks) == (2, 12)


def test_curves_of_types_unsupported_messages_and_failures() -> None:
    points = [
        Point(1024, "float32", 1, 10, (1e-3,) * 6, 0),
        Point(1024, "float32", 8, 10, (2e-3,) * 6, 3),
        Point(1024, "bfloat16", 1, 0, (), 0, "Horovod takes no bfloat16"),
    ]
    results = [
        allreduce_result("horovod-gloo", 2, 1, points=points),
        failed(allreduce_result("horovod-gloo", 2, 2), "no memory"),
        failed(allreduce_result("torch", 2), "no port"),
        allreduce_result("torch", 4, transport="nccl", device="cuda"),
    ]
    made = {
        (each.engine, each.ranks, each.dtype, each.tensors): each
        for each in analyze(results).allreduce_curves
    }
    assert list(made) == [
        ("horovod-gloo", 2, "float32", 1),
        ("horovod-gloo", 2, "float32", 8),
        ("horovod-gloo", 2, "bfloat16", 1),
        ("torch", 2, "", 0),
        ("torch-nccl", 4, "float32", 1),
    ]
    assert made["horovod-gloo", 2, "float32", 8].points[0].wrong_elements == 3
    unsupported = made["horovod-gloo", 2, "bfloat16", 1]
    assert unsupported.points == () and unsupported.unsupported == "Horovod takes no bfloat16"
    assert unsupported.failures == ("no memory",)
    assert made["torch", 2, "", 0].failures == ("no port",)


def test_a_sweep_split_over_two_programs_is_one() -> None:
    results = [
        allreduce_result(
            "torch", 2, repeat, {1024: (0.001,) * 6}, dtype=dtype, options={"dtype": dtype}
        )
        for repeat in (1, 2, 3)
        for dtype in ("float32", "float16")
    ]
    kinds = [(curve.dtype, curve.points[0].repeats) for curve in analyze(results).allreduce_curves]
    assert kinds == [("float32", 3), ("float16", 3)]
