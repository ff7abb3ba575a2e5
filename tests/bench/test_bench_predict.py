"""Predictions recover a cluster that follows the model; any other shows in the hold-out error."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from bench_examples import allreduce_result, phases, training_result

from hvdtools.bench.analysis.summary import analyze
from hvdtools.bench.predict.alpha_beta import AlphaBeta, TimedAllreduce, fit
from hvdtools.bench.predict.engine_prediction import (
    EnginePrediction,
    PredictionRequest,
    predict_engine,
)
from hvdtools.bench.predict.network import parse_network
from hvdtools.bench.results.result_file import Result
from hvdtools.core.errors import HvdtoolsError

MIB = 2**20
SIZES = tuple(4**power * 1024 for power in range(9))  # 1 KiB to 64 MiB
STEPS = 10


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A cluster and a training that follow the model, with noise."""

    constant_s: float = 1e-3
    alpha_s: float = 4e-4
    bytes_per_s: float = 1e9
    overlap: float = 0.6
    backward_s: float = 0.06
    other_s: float = 0.04
    gradient_bytes: int = 100_000_000
    allreduces_per_step: int = 4
    noise: float = 0.005
    scaling: str = "weak"
    batch: int = 64
    fixed_s: float = 0.02  # of a step's compute, for any batch: strong scaling only
    engine_s: float = 0.0  # added by the engine on one rank

    def op_s(self, ranks: int, message_bytes: float) -> float:
        steps = 2 * (ranks - 1)
        moved_s = steps / ranks * message_bytes / self.bytes_per_s
        return self.constant_s + steps * self.alpha_s + moved_s if ranks > 1 else 0.0

    def compute_s(self, ranks: int) -> float:
        whole_s = self.backward_s + self.other_s
        if self.scaling == "weak":
            return whole_s
        return self.fixed_s + (whole_s - self.fixed_s) / ranks

    def step_s(self, ranks: int) -> float:
        compute_s = self.compute_s(ranks)
        if ranks == 1:
            return compute_s + self.engine_s
        last_s = self.op_s(ranks, self.gradient_bytes / self.allreduces_per_step)
        all_s = self.allreduces_per_step * (last_s - self.constant_s) + self.constant_s
        share = self.backward_s / (self.backward_s + self.other_s)
        hidden_s = self.overlap * share * compute_s
        return compute_s + self.engine_s + max(last_s, all_s - hidden_s)


def measure(
    cluster: Cluster,
    counts: Sequence[int] = (1, 2, 4, 8),
    *,
    nodes_of: Callable[[int], int] = lambda ranks: 1,
    reduced_on: Sequence[int] | None = None,
    step_s: Callable[[int], float] | None = None,
    repeats: int = 3,
    engine: str = "hvdtools-gloo",
    with_none: bool = True,
    **measured: object,
) -> list[Result]:
    """The results that a suite would measure."""
    random = np.random.default_rng(3)

    def noisy(seconds: float) -> tuple[float, ...]:
        job = 1 + cluster.noise * random.standard_normal()
        blocks = 1 + cluster.noise * random.standard_normal(8)
        return tuple(float(seconds * job * each) for each in blocks)

    results = []
    for repeat in range(1, repeats + 1):
        for ranks in counts:
            batch = cluster.batch if cluster.scaling == "weak" else cluster.batch // ranks
            compute_s = cluster.compute_s(ranks)
            shares = np.array(
                [0, 0.3, cluster.backward_s / (cluster.backward_s + cluster.other_s), 0]
            )
            shares[3] = 1 - shares.sum()
            for name, seconds in (
                (engine, (step_s or cluster.step_s)(ranks)),
                *((("no_comm", compute_s),) if with_none else ()),
            ):
                results.append(
                    training_result(
                        name,
                        ranks,
                        repeat,
                        noisy(seconds * STEPS),
                        nodes=nodes_of(ranks),
                        scaling=cluster.scaling,
                        phase_s=phases(ranks, *(shares * compute_s)),
                        batch_per_rank=batch,
                        gradient_bytes=cluster.gradient_bytes,
                        **{
                            "allreduces_per_step": (
                                0 if ranks == 1 else cluster.allreduces_per_step
                            ),
                            **({} if name == "no_comm" else measured),
                        },
                    )
                )
            if ranks > 1 and (reduced_on is None or ranks in reduced_on):
                ops = {size: noisy(cluster.op_s(ranks, size)) for size in SIZES}
                results.append(
                    allreduce_result("horovod-gloo", ranks, repeat, ops, nodes=nodes_of(ranks))
                )
    return results


def predict(
    results: Sequence[Result],
    ranks: Sequence[int] = (16,),
    network: str | None = None,
    engine: str = "hvdtools-gloo",
    **options: int | None,
) -> EnginePrediction:
    run = analyze(results)
    (trained,) = run.of_kind("training")
    given = None if network is None else parse_network(network)
    request = PredictionRequest(tuple(ranks), given, **options)
    return predict_engine(run, trained.workload, engine, request)


def near(value: float, cluster: float, share: float = 0.1) -> bool:
    return abs(value / cluster - 1) < share


def test_the_model_is_recovered_and_extrapolates() -> None:
    cluster = Cluster()
    made = predict(measure(cluster), (1, 8, 16, 64), ranks_per_node=64)
    cost = made.model.in_node
    assert cost is not None and made.model.between_nodes is None
    assert near(cost.constant_s, cluster.constant_s)
    assert near(cost.alpha_s, cluster.alpha_s)
    assert near(cost.bytes_per_s, cluster.bytes_per_s)
    assert near(made.model.overlap.share, cluster.overlap) and not made.model.overlap.is_lower_bound
    assert cost.fit_error is not None and cost.fit_error < 0.02
    for each in made.sizes:
        assert near(each.step_s.value, cluster.step_s(each.ranks), 0.03)
        assert each.step_s.low <= each.step_s.value <= each.step_s.high
        assert each.samples_per_s.value == pytest.approx(each.ranks * 64 / each.step_s.value)
        assert near(each.efficiency.value, cluster.step_s(1) / cluster.step_s(each.ranks), 0.03)
    assert all(each.step_s.low < cluster.step_s(each.ranks) < each.step_s.high
               for each in made.sizes)  # fmt: skip
    assert made.sizes[0].step_s.value == pytest.approx(cluster.step_s(1), rel=0.01)


def test_the_overhead_of_an_engine_on_one_rank_is_not_communication() -> None:
    cluster = Cluster(engine_s=0.02)
    made = predict(measure(cluster), (1, 8, 32), ranks_per_node=32)
    assert near(made.model.overlap.share, cluster.overlap)
    for each in made.sizes:
        assert near(each.step_s.value, cluster.step_s(each.ranks), 0.03)
    assert near(made.sizes[-1].parts.overhead_s, 0.02)
    assert near(made.sizes[-1].parts.step_s, made.sizes[-1].step_s.value, 1e-9)


def test_unexplained_time_is_included() -> None:
    # Every step on several ranks takes 50 ms more than its messages explain, which is more than
    # all communication: the prediction must include it.
    cluster = Cluster(gradient_bytes=4_000_000, overlap=0.0)
    results = measure(cluster, step_s=lambda n: cluster.step_s(n) + 0.05 * (n > 1))
    made = predict(results, (8, 16), ranks_per_node=16)
    for each in made.sizes:
        assert near(each.step_s.value, cluster.step_s(each.ranks) + 0.05, 0.03)
    assert any("slower during training" in note for note in made.notes)


def test_many_messages_share_one_cycle() -> None:
    # 150 separate gradients and a cycle of 1 ms: 150 ms would be more than the whole step.
    cluster = Cluster(allreduces_per_step=150, alpha_s=1e-5, bytes_per_s=2e9)
    made = predict(measure(cluster), (8,))
    assert near(made.sizes[0].step_s.value, cluster.step_s(8), 0.03)
    assert near(made.model.overlap.share, cluster.overlap)


def test_held_out_sizes_are_predicted_from_the_others() -> None:
    cluster = Cluster()
    made = predict(measure(cluster), (8,))
    assert [each.ranks for each in made.hold_outs] == [2, 4, 8]
    assert made.not_held_out is None
    for each in made.hold_outs:
        assert near(each.measured_s, cluster.step_s(each.ranks), 0.02)
        assert each.error == pytest.approx(each.predicted_s / each.measured_s - 1)
        assert abs(each.error) < 0.03


def test_a_cluster_that_does_not_follow_the_model_has_a_hold_out_error() -> None:
    # From 8 ranks on another resource saturates, which 2 and 4 ranks do not show.
    cluster = Cluster()
    results = measure(
        cluster, step_s=lambda ranks: cluster.step_s(ranks) * (2 if ranks == 8 else 1)
    )
    made = predict(results, (8,))
    errors = {each.ranks: each.error for each in made.hold_outs}
    assert errors[8] < -0.45
    assert any("slower during training" in note for note in made.notes)


def test_held_out_results_do_not_change_their_prediction() -> None:
    # 8 ranks measured ten times slower, all-reduces too: the prediction of 8 must not change.
    results = measure(Cluster())
    spoiled = [
        dataclasses.replace(each, measured=slower(each)) if each.ranks == 8 else each
        for each in results
    ]
    plain, other = (
        {held.ranks: held.predicted_s for held in predict(each, (2,)).hold_outs}
        for each in (results, spoiled)
    )
    assert plain[8] == other[8] and plain[4] != other[4]


def slower(result: Result) -> object:
    if result.training is not None:
        block_s = tuple(10 * each for each in result.training.block_s)
        return dataclasses.replace(result.training, block_s=block_s)
    assert result.allreduce is not None
    points = tuple(
        dataclasses.replace(point, op_s=tuple(10 * each for each in point.op_s))
        for point in result.allreduce.points
    )
    return dataclasses.replace(result.allreduce, points=points)


def test_nothing_can_be_held_out_of_one_and_two_ranks() -> None:
    made = predict(measure(Cluster(), (1, 2)), (2,))
    assert made.hold_outs == ()
    assert made.not_held_out is not None and "Nothing could be held out" in made.not_held_out


def test_with_one_message_a_step_only_the_training_is_held_out() -> None:
    cluster = Cluster(allreduces_per_step=1, engine_s=0.01)
    results = measure(cluster, (1, 2))
    made = predict(results, (2,))
    (held,) = made.hold_outs
    assert near(held.predicted_s, cluster.step_s(2), 0.02) and abs(held.error) < 0.03
    assert made.not_held_out is not None and "only the training was held out" in made.not_held_out
    # The training on 2 ranks ten times slower: its prediction must not change.
    spoiled = [
        dataclasses.replace(each, measured=slower(each))
        if each.training is not None and each.ranks == 2 and each.engine != "no_comm"
        else each
        for each in results
    ]
    (other,) = predict(spoiled, (2,)).hold_outs
    assert other.predicted_s == held.predicted_s and other.error < -0.85
    # The overlap of several all-reduces is not known; the user can state their number.
    assert not predict(measure(Cluster(), (1, 2)), (2,)).hold_outs
    assert not predict(results, (2,), allreduces_per_step=4).hold_outs


def test_a_single_repeat_has_a_note() -> None:
    for repeats in (1, 2):
        made = predict(measure(Cluster(), repeats=repeats), (2,))
        assert any("Measured in one repeat" in note for note in made.notes) == (repeats == 1)


def test_a_given_network_replaces_latency_and_bandwidth() -> None:
    cluster = Cluster()
    made = predict(measure(cluster), (8, 64, 512), "4Gbit,50us")
    assert [each.nodes for each in made.sizes] == [1, 8, 64]
    cost = made.model.between_nodes
    assert cost is not None
    assert (cost.alpha_s, cost.bytes_per_s) == (pytest.approx(50e-6), 0.5e9)
    assert near(cost.constant_s, cluster.constant_s)
    given = dataclasses.replace(cluster, alpha_s=50e-6, bytes_per_s=0.5e9)
    for each in made.sizes[1:]:
        assert near(each.step_s.value, given.step_s(each.ranks), 0.03)
    # A network faster than the ring within a node: the slowest hop is then within a node.
    fast = predict(measure(cluster), (64,), "100Gbit,1us").model.between_nodes
    assert fast is not None and near(fast.bytes_per_s, cluster.bytes_per_s)
    alone = predict(measure(cluster), (64,), "100Gbit,1us", ranks_per_node=1).model.between_nodes
    assert alone is not None and alone.bytes_per_s == 12.5e9


def test_without_a_latency_the_measured_one_is_used() -> None:
    made = predict(measure(Cluster()), (64,), "4Gbit")
    assert made.model.between_nodes is not None and made.model.in_node is not None
    assert made.model.between_nodes.alpha_s == made.model.in_node.alpha_s > 0
    assert not any("one number of ranks only" in note for note in made.notes)
    # One number of ranks does not show the latency of a hop: a note says so.
    two = predict(measure(Cluster(), (1, 2)), (64,), "4Gbit")
    assert two.model.between_nodes is not None and two.model.between_nodes.alpha_s == 0
    assert any("one number of ranks only" in note for note in two.notes)


def test_a_measured_network_differs_from_the_cost_within_a_node() -> None:
    cluster = Cluster()
    results = measure(cluster, nodes_of=lambda ranks: max(ranks // 2, 1))
    made = predict(results, (2, 16, 32))
    assert made.ranks_per_node == 2
    assert [each.nodes for each in made.sizes] == [1, 8, 16]
    assert made.model.between_nodes is not None
    assert near(made.model.between_nodes.bytes_per_s, cluster.bytes_per_s)
    assert near(made.sizes[-1].step_s.value, cluster.step_s(32), 0.05)
    # Only the runs on 2 ranks are within a node: without them that cost is not known.
    assert made.not_held_out is not None and "2 ranks could not be held out" in made.not_held_out
    assert [each.ranks for each in made.hold_outs] == [4, 8]


def test_fully_hidden_communication_is_a_lower_bound_of_the_overlap() -> None:
    # 2 ms of communication next to 60 ms of backward: a share of 3 % is all that can be seen.
    cluster = Cluster(gradient_bytes=4_000_000, bytes_per_s=10e9, alpha_s=1e-6, constant_s=2e-4)
    made = predict(measure(cluster), (512,), "1Gbit,10us")
    assert made.model.overlap.is_lower_bound and made.model.overlap.share < 0.1
    (each,) = made.sizes
    given = dataclasses.replace(cluster, alpha_s=10e-6, bytes_per_s=0.125e9)
    assert each.step_s.low < given.step_s(512) < each.step_s.high
    assert any("might hide more" in note for note in made.notes)


def test_the_last_message_is_always_exposed() -> None:
    # 8 ranks communicate for longer than the backward pass, which shows the whole overlap.
    cluster = Cluster(overlap=1.0, bytes_per_s=5e9, alpha_s=1.2e-3, allreduces_per_step=8)
    made = predict(measure(cluster), (2, 8))
    assert not made.model.overlap.is_lower_bound and near(made.model.overlap.share, 1.0)
    few, many = made.sizes
    assert few.parts.communication_s < cluster.backward_s < many.parts.communication_s
    message_s = cluster.op_s(2, cluster.gradient_bytes / 8)
    assert near(few.parts.exposed_s, message_s)


def test_a_single_message_is_not_hidden() -> None:
    cluster = Cluster(allreduces_per_step=1)
    made = predict(measure(cluster), (16,), ranks_per_node=16)
    (each,) = made.sizes
    assert each.parts.exposed_s == pytest.approx(each.parts.communication_s)
    assert each.parts.hidden_s == 0 and not made.model.overlap.is_lower_bound
    assert near(each.step_s.value, cluster.step_s(16), 0.03)


def test_strong_scaling_reduces_the_compute() -> None:
    cluster = Cluster(scaling="strong")
    made = predict(measure(cluster), (4, 16), ranks_per_node=16)
    measured, beyond = made.sizes
    assert (measured.batch_per_rank, beyond.batch_per_rank) == (16, 4)
    assert near(measured.parts.compute_s, cluster.compute_s(4), 0.02)
    assert near(beyond.parts.compute_s, cluster.compute_s(16), 0.1)  # with its fixed cost
    assert near(beyond.step_s.value, cluster.step_s(16), 0.05)
    efficiency = cluster.step_s(1) / (16 * cluster.step_s(16))
    assert near(beyond.efficiency.value, efficiency, 0.05)
    assert any("fewer than 8 samples a rank" in note for note in made.notes)
    with pytest.raises(HvdtoolsError, match="128 ranks cannot share the 64 samples"):
        predict(measure(cluster), (128,), ranks_per_node=128)
    made = predict(measure(cluster), (16, 128), ranks_per_node=128)
    assert [each.ranks for each in made.sizes] == [16]
    assert "128 ranks cannot share the 64 samples" in made.notes[0]


def test_strong_scaling_from_one_batch_is_proportional_with_a_note() -> None:
    cluster = Cluster(scaling="strong", fixed_s=0.0)
    made = predict(measure(cluster, with_none=False), (8,))
    assert near(made.sizes[0].parts.compute_s, cluster.compute_s(8), 0.02)
    assert any("proportional" in note for note in made.notes)
    assert any("Nothing was run without communication" in note for note in made.notes)


def test_without_phases_the_whole_step_may_overlap() -> None:
    results = [
        dataclasses.replace(each, measured=dataclasses.replace(each.training, phase_s={}))
        if each.training is not None
        else each
        for each in measure(Cluster())
    ]
    made = predict(results, (16,), ranks_per_node=16)
    assert near(made.model.overlap.share, 0.6 * 0.6)
    assert near(made.sizes[0].step_s.value, Cluster().step_s(16), 0.03)
    assert any("share of the whole step" in note for note in made.notes)


def test_a_single_block_has_no_interval() -> None:
    results = [
        dataclasses.replace(
            each, measured=dataclasses.replace(each.training, block_s=each.training.block_s[:1])
        )
        if each.training is not None
        else each
        for each in measure(Cluster(), repeats=1)
    ]
    (each,) = predict(results, (8,)).sizes
    assert math.isnan(each.step_s.low) and math.isnan(each.efficiency.high)
    assert near(each.step_s.value, Cluster().step_s(8), 0.05)


def test_plain_horovod_is_counted_message_by_message() -> None:
    made = predict(measure(Cluster(), engine="horovod-gloo"), engine="horovod-gloo",
                    ranks_per_node=16)  # fmt: skip
    assert any("Plain Horovod" in note for note in made.notes)


def test_errors_say_what_to_run() -> None:
    cluster = Cluster()
    with pytest.raises(HvdtoolsError, match="No all-reduce of horovod-gloo was measured"):
        predict([each for each in measure(cluster) if each.training is not None])
    with pytest.raises(HvdtoolsError, match="did not train on one rank"):
        predict(measure(cluster, (2, 4)))
    with pytest.raises(HvdtoolsError, match="trained on one rank only"):
        predict(measure(cluster, (1,)))
    with pytest.raises(HvdtoolsError, match=r"16 ranks are on 2 nodes.*--network 100Gbit,5us"):
        predict(measure(cluster), (16,))
    with pytest.raises(HvdtoolsError, match="Unknown engine of this workload 'ddp': choose one of"):
        predict(measure(cluster), engine="ddp")
    with pytest.raises(HvdtoolsError, match="does not communicate"):
        predict(measure(cluster), engine="no_comm")
    with pytest.raises(HvdtoolsError, match="does not record how many all-reduces"):
        predict(measure(cluster, allreduces_per_step=None))
    assert predict(measure(cluster, allreduces_per_step=None), (8,), allreduces_per_step=4).sizes
    for none in (0, -1):
        with pytest.raises(
            HvdtoolsError, match=rf"--allreduces-per-step must be 1 or more \(got {none}\)"
        ):
            predict(measure(cluster), (8,), allreduces_per_step=none)
    with pytest.raises(HvdtoolsError, match=r"--ranks must be 1 or more \(got 0\)"):
        predict(measure(cluster), (0,))
    nccl = measure(cluster, transport="nccl", device="cuda")
    with pytest.raises(HvdtoolsError, match="over nccl on cuda"):
        predict(nccl)
    with pytest.raises(HvdtoolsError, match="between nodes only"):
        results = measure(cluster, nodes_of=lambda ranks: ranks)
        predict(results, (4,), ranks_per_node=4)


def test_mwms_has_no_all_reduce_to_measure() -> None:
    results = [
        training_result("mwms", ranks, family="keras", allreduces_per_step=2 * (ranks > 1))
        for ranks in (1, 2)
    ]
    with pytest.raises(
        HvdtoolsError, match=r"allreduce\.py cannot measure the all-reduces of mwms"
    ):
        predict([*results, allreduce_result("torch", 2)], engine="mwms")


@pytest.mark.parametrize(
    ("text", "bytes_per_s", "latency_s"),
    [
        ("100Gbit", 12.5e9, None),
        ("100Gbit,5us", 12.5e9, 5e-6),
        ("100Gbit/s, 5 µs", 12.5e9, 5e-6),
        ("12.5GB,5us", 12.5e9, 5e-6),
        ("12.5GB/s,0.005ms", 12.5e9, 5e-6),
        ("1 Tbit,900ns", 125e9, 9e-7),
        ("200Mbit,0s", 25e6, 0.0),
        (".5GB", 0.5e9, None),
    ],
)
def test_networks_that_are_parsed(text: str, bytes_per_s: float, latency_s: float | None) -> None:
    network = parse_network(text)
    assert network.bytes_per_s == pytest.approx(bytes_per_s)
    assert network.latency_s == (None if latency_s is None else pytest.approx(latency_s))
    assert network.text == text


@pytest.mark.parametrize(
    "text", ["", "fast", "100", "100Gb", "-1Gbit", "0Gbit", "100Gbit,", "100Gbit,5", "5us,100Gbit",
             "1Gbit,1us,2", "nanGbit", "1e3Gbit"]
)  # fmt: skip
def test_networks_that_are_refused(text: str) -> None:
    with pytest.raises(HvdtoolsError, match="is not valid: give the bandwidth"):
        parse_network(text)


def test_costs_computed_by_hand() -> None:
    cost = AlphaBeta(constant_s=1.0, alpha_s=0.1, bytes_per_s=10.0, fit_error=None)
    assert cost.seconds(1, 100) == 0
    assert cost.seconds(2, 100) == pytest.approx(1 + 2 * 0.1 + 10)
    assert cost.seconds(4, 100) == pytest.approx(1 + 6 * 0.1 + 15)
    assert cost.step_seconds(4, 100, 1) == cost.seconds(4, 100)
    assert cost.step_seconds(4, 100, 5) == pytest.approx(1 + 5 * 6 * 0.1 + 15)
    assert cost.step_seconds(1, 100, 5) == 0


def test_no_part_of_a_fitted_cost_is_negative() -> None:
    # Larger messages are faster than small ones: no time grows with the bytes.
    odd = fit(
        [
            TimedAllreduce(2, 1000, 2.0),
            TimedAllreduce(2, 1_000_000, 1.0),
            TimedAllreduce(4, 1000, 2.0),
        ]
    )
    assert odd.bytes_per_s == math.inf and odd.constant_s > 0 and odd.alpha_s >= 0
    assert odd.fit_error is not None and odd.fit_error > 0.1
    with pytest.raises(ValueError, match="at least one timed"):
        fit([])


def test_small_and_large_messages_have_equal_weight_in_the_fit() -> None:
    cost = AlphaBeta(1e-4, 1e-5, 1e9, None)
    timed = [TimedAllreduce(n, size, cost.seconds(n, size)) for n in (2, 4, 8) for size in SIZES]
    found = fit(timed)
    assert found.constant_s == pytest.approx(1e-4, rel=1e-6)
    assert found.alpha_s == pytest.approx(1e-5, rel=1e-6)
    assert found.bytes_per_s == pytest.approx(1e9, rel=1e-6)
