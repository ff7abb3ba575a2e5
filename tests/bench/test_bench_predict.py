"""Predictions: a truth that the model can say is found again, one that it cannot shows as error."""

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
class Truth:
    """A cluster and a training that behave as the model says, but for noise."""

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
    fixed_s: float = 0.02  # of a step's computing, whatever its batch: strong scaling only
    engine_s: float = 0.0  # what the engine takes on one rank already

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
        computing_s = self.compute_s(ranks)
        if ranks == 1:
            return computing_s + self.engine_s
        last_s = self.op_s(ranks, self.gradient_bytes / self.allreduces_per_step)
        all_s = self.allreduces_per_step * (last_s - self.constant_s) + self.constant_s
        share = self.backward_s / (self.backward_s + self.other_s)
        hidden_s = self.overlap * share * computing_s
        return computing_s + self.engine_s + max(last_s, all_s - hidden_s)


def measure(
    truth: Truth,
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
    """What a suite would find of it."""
    random = np.random.default_rng(3)

    def noisy(seconds: float) -> tuple[float, ...]:
        job = 1 + truth.noise * random.standard_normal()
        blocks = 1 + truth.noise * random.standard_normal(8)
        return tuple(float(seconds * job * each) for each in blocks)

    results = []
    for repeat in range(1, repeats + 1):
        for ranks in counts:
            batch = truth.batch if truth.scaling == "weak" else truth.batch // ranks
            computing_s = truth.compute_s(ranks)
            shares = np.array([0, 0.3, truth.backward_s / (truth.backward_s + truth.other_s), 0])
            shares[3] = 1 - shares.sum()
            for name, seconds in (
                (engine, (step_s or truth.step_s)(ranks)),
                *((("no_comm", computing_s),) if with_none else ()),
            ):
                results.append(
                    training_result(
                        name,
                        ranks,
                        repeat,
                        noisy(seconds * STEPS),
                        nodes=nodes_of(ranks),
                        scaling=truth.scaling,
                        phase_s=phases(ranks, *(shares * computing_s)),
                        batch_per_rank=batch,
                        gradient_bytes=truth.gradient_bytes,
                        **{
                            "allreduces_per_step": (0 if ranks == 1 else truth.allreduces_per_step),
                            **({} if name == "no_comm" else measured),
                        },
                    )
                )
            if ranks > 1 and (reduced_on is None or ranks in reduced_on):
                ops = {size: noisy(truth.op_s(ranks, size)) for size in SIZES}
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


def near(value: float, truth: float, share: float = 0.1) -> bool:
    return abs(value / truth - 1) < share


def test_the_truth_is_found_again_and_carries_further() -> None:
    truth = Truth()
    made = predict(measure(truth), (1, 8, 16, 64), ranks_per_node=64)
    cost = made.model.in_node
    assert cost is not None and made.model.between_nodes is None
    assert near(cost.constant_s, truth.constant_s)
    assert near(cost.alpha_s, truth.alpha_s)
    assert near(cost.bytes_per_s, truth.bytes_per_s)
    assert near(made.model.overlap.share, truth.overlap) and not made.model.overlap.is_lower_bound
    assert cost.fit_error is not None and cost.fit_error < 0.02
    for each in made.sizes:
        assert near(each.step_s.value, truth.step_s(each.ranks), 0.03)
        assert each.step_s.low <= each.step_s.value <= each.step_s.high
        assert each.samples_per_s.value == pytest.approx(each.ranks * 64 / each.step_s.value)
        assert near(each.efficiency.value, truth.step_s(1) / truth.step_s(each.ranks), 0.03)
    assert all(each.step_s.low < truth.step_s(each.ranks) < each.step_s.high
               for each in made.sizes)  # fmt: skip
    assert made.sizes[0].step_s.value == pytest.approx(truth.step_s(1), rel=0.01)


def test_what_an_engine_costs_on_one_rank_is_no_communication() -> None:
    truth = Truth(engine_s=0.02)
    made = predict(measure(truth), (1, 8, 32), ranks_per_node=32)
    assert near(made.model.overlap.share, truth.overlap)
    for each in made.sizes:
        assert near(each.step_s.value, truth.step_s(each.ranks), 0.03)
    assert near(made.sizes[-1].parts.overhead_s, 0.02)
    assert near(made.sizes[-1].parts.step_s, made.sizes[-1].step_s.value, 1e-9)


def test_what_messages_do_not_explain_is_kept() -> None:
    # Every step on several ranks takes 50 ms that no message takes: with none of it hidden
    # (there is less communication than that), the prediction must not lose it.
    truth = Truth(gradient_bytes=4_000_000, overlap=0.0)
    results = measure(truth, step_s=lambda n: truth.step_s(n) + 0.05 * (n > 1))
    made = predict(results, (8, 16), ranks_per_node=16)
    for each in made.sizes:
        assert near(each.step_s.value, truth.step_s(each.ranks) + 0.05, 0.03)
    assert any("slower during training" in note for note in made.notes)


def test_many_messages_wait_for_one_cycle_together() -> None:
    # 150 gradients of their own and 1 ms for the cycle: 150 ms would be more than the whole step.
    truth = Truth(allreduces_per_step=150, alpha_s=1e-5, bytes_per_s=2e9)
    made = predict(measure(truth), (8,))
    assert near(made.sizes[0].step_s.value, truth.step_s(8), 0.03)
    assert near(made.model.overlap.share, truth.overlap)


def test_what_is_held_out_is_predicted_by_the_others() -> None:
    truth = Truth()
    made = predict(measure(truth), (8,))
    assert [each.ranks for each in made.hold_outs] == [2, 4, 8]
    assert made.not_held_out is None
    for each in made.hold_outs:
        assert near(each.measured_s, truth.step_s(each.ranks), 0.02)
        assert each.error == pytest.approx(each.predicted_s / each.measured_s - 1)
        assert abs(each.error) < 0.03


def test_a_truth_that_the_model_cannot_say_shows_as_error() -> None:
    # From 8 ranks on something else is full, which 2 and 4 ranks know nothing of.
    truth = Truth()
    results = measure(truth, step_s=lambda ranks: truth.step_s(ranks) * (2 if ranks == 8 else 1))
    made = predict(results, (8,))
    errors = {each.ranks: each.error for each in made.hold_outs}
    assert errors[8] < -0.45
    assert any("slower during training" in note for note in made.notes)


def test_what_is_held_out_is_not_seen() -> None:
    # 8 ranks measured ten times slower, all-reduces too: the prediction of 8 must not move.
    results = measure(Truth())
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
    made = predict(measure(Truth(), (1, 2)), (2,))
    assert made.hold_outs == ()
    assert made.not_held_out is not None and "Nothing could be held out" in made.not_held_out


def test_of_one_message_the_training_is_held_out_where_nothing_else_can_be() -> None:
    truth = Truth(allreduces_per_step=1, engine_s=0.01)
    results = measure(truth, (1, 2))
    made = predict(results, (2,))
    (held,) = made.hold_outs
    assert near(held.predicted_s, truth.step_s(2), 0.02) and abs(held.error) < 0.03
    assert made.not_held_out is not None and "only the training was held out" in made.not_held_out
    # The training on 2 ranks ten times slower: what is predicted of it must not move.
    spoiled = [
        dataclasses.replace(each, measured=slower(each))
        if each.training is not None and each.ranks == 2 and each.engine != "no_comm"
        else each
        for each in results
    ]
    (other,) = predict(spoiled, (2,)).hold_outs
    assert other.predicted_s == held.predicted_s and other.error < -0.85
    # Of several all-reduces nobody says how much is hidden; the user may say that it is one.
    assert not predict(measure(Truth(), (1, 2)), (2,)).hold_outs
    assert not predict(results, (2,), allreduces_per_step=4).hold_outs


def test_one_round_is_said() -> None:
    for repeats in (1, 2):
        made = predict(measure(Truth(), repeats=repeats), (2,))
        assert any("Measured in one repeat" in note for note in made.notes) == (repeats == 1)


def test_the_users_network_takes_the_place_of_latency_and_bandwidth() -> None:
    truth = Truth()
    made = predict(measure(truth), (8, 64, 512), "4Gbit,50us")
    assert [each.nodes for each in made.sizes] == [1, 8, 64]
    cost = made.model.between_nodes
    assert cost is not None
    assert (cost.alpha_s, cost.bytes_per_s) == (pytest.approx(50e-6), 0.5e9)
    assert near(cost.constant_s, truth.constant_s)
    given = dataclasses.replace(truth, alpha_s=50e-6, bytes_per_s=0.5e9)
    for each in made.sizes[1:]:
        assert near(each.step_s.value, given.step_s(each.ranks), 0.03)
    # Nodes are joined by more than the ring within one carries: that is the slowest hop then.
    fast = predict(measure(truth), (64,), "100Gbit,1us").model.between_nodes
    assert fast is not None and near(fast.bytes_per_s, truth.bytes_per_s)
    alone = predict(measure(truth), (64,), "100Gbit,1us", ranks_per_node=1).model.between_nodes
    assert alone is not None and alone.bytes_per_s == 12.5e9


def test_without_a_latency_the_measured_one_stays() -> None:
    made = predict(measure(Truth()), (64,), "4Gbit")
    assert made.model.between_nodes is not None and made.model.in_node is not None
    assert made.model.between_nodes.alpha_s == made.model.in_node.alpha_s > 0
    assert not any("one number of ranks only" in note for note in made.notes)
    # Of one number of ranks no latency of a hop can be told: that is said.
    two = predict(measure(Truth(), (1, 2)), (64,), "4Gbit")
    assert two.model.between_nodes is not None and two.model.between_nodes.alpha_s == 0
    assert any("one number of ranks only" in note for note in two.notes)


def test_a_measured_network_is_told_from_what_is_within_a_node() -> None:
    truth = Truth()
    results = measure(truth, nodes_of=lambda ranks: max(ranks // 2, 1))
    made = predict(results, (2, 16, 32))
    assert made.ranks_per_node == 2
    assert [each.nodes for each in made.sizes] == [1, 8, 16]
    assert made.model.between_nodes is not None
    assert near(made.model.between_nodes.bytes_per_s, truth.bytes_per_s)
    assert near(made.sizes[-1].step_s.value, truth.step_s(32), 0.05)
    # The only runs within a node are those on 2 ranks: without them nothing says what that costs.
    assert made.not_held_out is not None and "2 ranks could not be held out" in made.not_held_out
    assert [each.ranks for each in made.hold_outs] == [4, 8]


def test_all_hidden_says_so_and_leaves_room() -> None:
    # 2 ms of communication beside 60 ms of backward: that it hides 3 % of it is all that was seen.
    truth = Truth(gradient_bytes=4_000_000, bytes_per_s=10e9, alpha_s=1e-6, constant_s=2e-4)
    made = predict(measure(truth), (512,), "1Gbit,10us")
    assert made.model.overlap.is_lower_bound and made.model.overlap.share < 0.1
    (each,) = made.sizes
    given = dataclasses.replace(truth, alpha_s=10e-6, bytes_per_s=0.125e9)
    assert each.step_s.low < given.step_s(512) < each.step_s.high
    assert any("might hide more" in note for note in made.notes)


def test_the_last_message_has_nothing_to_hide_behind() -> None:
    # 8 ranks send for longer than the backward pass, so its overlap is seen whole; 2 ranks do not.
    truth = Truth(overlap=1.0, bytes_per_s=5e9, alpha_s=1.2e-3, allreduces_per_step=8)
    made = predict(measure(truth), (2, 8))
    assert not made.model.overlap.is_lower_bound and near(made.model.overlap.share, 1.0)
    few, many = made.sizes
    assert few.parts.communication_s < truth.backward_s < many.parts.communication_s
    message_s = truth.op_s(2, truth.gradient_bytes / 8)
    assert near(few.parts.exposed_s, message_s)


def test_one_message_hides_nothing() -> None:
    truth = Truth(allreduces_per_step=1)
    made = predict(measure(truth), (16,), ranks_per_node=16)
    (each,) = made.sizes
    assert each.parts.exposed_s == pytest.approx(each.parts.communication_s)
    assert each.parts.hidden_s == 0 and not made.model.overlap.is_lower_bound
    assert near(each.step_s.value, truth.step_s(16), 0.03)


def test_strong_scaling_shrinks_the_computing() -> None:
    truth = Truth(scaling="strong")
    made = predict(measure(truth), (4, 16), ranks_per_node=16)
    measured, beyond = made.sizes
    assert (measured.batch_per_rank, beyond.batch_per_rank) == (16, 4)
    assert near(measured.parts.compute_s, truth.compute_s(4), 0.02)
    assert near(beyond.parts.compute_s, truth.compute_s(16), 0.1)  # with its fixed cost
    assert near(beyond.step_s.value, truth.step_s(16), 0.05)
    efficiency = truth.step_s(1) / (16 * truth.step_s(16))
    assert near(beyond.efficiency.value, efficiency, 0.05)
    assert any("fewer than 8 samples a rank" in note for note in made.notes)
    with pytest.raises(HvdtoolsError, match="128 ranks cannot share the 64 samples"):
        predict(measure(truth), (128,), ranks_per_node=128)
    made = predict(measure(truth), (16, 128), ranks_per_node=128)
    assert [each.ranks for each in made.sizes] == [16]
    assert "128 ranks cannot share the 64 samples" in made.notes[0]


def test_strong_scaling_from_one_batch_is_proportional_and_says_so() -> None:
    truth = Truth(scaling="strong", fixed_s=0.0)
    made = predict(measure(truth, with_none=False), (8,))
    assert near(made.sizes[0].parts.compute_s, truth.compute_s(8), 0.02)
    assert any("proportional" in note for note in made.notes)
    assert any("Nothing was run without communication" in note for note in made.notes)


def test_without_phases_the_whole_step_may_hide() -> None:
    results = [
        dataclasses.replace(each, measured=dataclasses.replace(each.training, phase_s={}))
        if each.training is not None
        else each
        for each in measure(Truth())
    ]
    made = predict(results, (16,), ranks_per_node=16)
    assert near(made.model.overlap.share, 0.6 * 0.6)
    assert near(made.sizes[0].step_s.value, Truth().step_s(16), 0.03)
    assert any("share of the whole step" in note for note in made.notes)


def test_one_block_leaves_the_interval_open() -> None:
    results = [
        dataclasses.replace(
            each, measured=dataclasses.replace(each.training, block_s=each.training.block_s[:1])
        )
        if each.training is not None
        else each
        for each in measure(Truth(), repeats=1)
    ]
    (each,) = predict(results, (8,)).sizes
    assert math.isnan(each.step_s.low) and math.isnan(each.efficiency.high)
    assert near(each.step_s.value, Truth().step_s(8), 0.05)


def test_plain_horovod_is_counted_message_by_message() -> None:
    made = predict(measure(Truth(), engine="horovod-gloo"), engine="horovod-gloo",
                    ranks_per_node=16)  # fmt: skip
    assert any("Plain Horovod" in note for note in made.notes)


def test_what_cannot_be_predicted_says_what_to_run() -> None:
    truth = Truth()
    with pytest.raises(HvdtoolsError, match="No all-reduce of horovod-gloo was measured"):
        predict([each for each in measure(truth) if each.training is not None])
    with pytest.raises(HvdtoolsError, match="did not train on one rank"):
        predict(measure(truth, (2, 4)))
    with pytest.raises(HvdtoolsError, match="trained on one rank only"):
        predict(measure(truth, (1,)))
    with pytest.raises(HvdtoolsError, match=r"16 ranks are on 2 nodes.*--network 100Gbit,5us"):
        predict(measure(truth), (16,))
    with pytest.raises(HvdtoolsError, match="Unknown engine of this workload 'ddp': choose one of"):
        predict(measure(truth), engine="ddp")
    with pytest.raises(HvdtoolsError, match="does not communicate"):
        predict(measure(truth), engine="no_comm")
    with pytest.raises(HvdtoolsError, match="does not record how many all-reduces"):
        predict(measure(truth, allreduces_per_step=None))
    assert predict(measure(truth, allreduces_per_step=None), (8,), allreduces_per_step=4).sizes
    for none in (0, -1):
        with pytest.raises(
            HvdtoolsError, match=rf"--allreduces-per-step must be 1 or more \(got {none}\)"
        ):
            predict(measure(truth), (8,), allreduces_per_step=none)
    with pytest.raises(HvdtoolsError, match=r"--ranks must be 1 or more \(got 0\)"):
        predict(measure(truth), (0,))
    nccl = measure(truth, transport="nccl", device="cuda")
    with pytest.raises(HvdtoolsError, match="over nccl on cuda"):
        predict(nccl)
    with pytest.raises(HvdtoolsError, match="between nodes only"):
        results = measure(truth, nodes_of=lambda ranks: ranks)
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


def test_a_cost_by_hand() -> None:
    cost = AlphaBeta(constant_s=1.0, alpha_s=0.1, bytes_per_s=10.0, fit_error=None)
    assert cost.seconds(1, 100) == 0
    assert cost.seconds(2, 100) == pytest.approx(1 + 2 * 0.1 + 10)
    assert cost.seconds(4, 100) == pytest.approx(1 + 6 * 0.1 + 15)
    assert cost.step_seconds(4, 100, 1) == cost.seconds(4, 100)
    assert cost.step_seconds(4, 100, 5) == pytest.approx(1 + 5 * 6 * 0.1 + 15)
    assert cost.step_seconds(1, 100, 5) == 0


def test_no_part_of_a_fitted_cost_is_negative() -> None:
    # Larger messages faster than small ones: no time grows with the bytes.
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


def test_the_fit_minds_small_messages_as_much_as_large_ones() -> None:
    cost = AlphaBeta(1e-4, 1e-5, 1e9, None)
    timed = [TimedAllreduce(n, size, cost.seconds(n, size)) for n in (2, 4, 8) for size in SIZES]
    found = fit(timed)
    assert found.constant_s == pytest.approx(1e-4, rel=1e-6)
    assert found.alpha_s == pytest.approx(1e-5, rel=1e-6)
    assert found.bytes_per_s == pytest.approx(1e9, rel=1e-6)
