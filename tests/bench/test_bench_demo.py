"""The demo: short, and with all that a prediction needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from bench_examples import allreduce_result, phases, training_result
from paths import PROJECT

from hvdtools.bench.analysis.summary import analyze
from hvdtools.bench.predict.network import parse_network
from hvdtools.bench.predict.run_prediction import (
    LARGE_RANKS,
    default_ranks,
    predict_run,
    request_for_report,
)
from hvdtools.bench.report.page import page_of
from hvdtools.bench.report.sections import sections_of
from hvdtools.bench.results.result_file import FILE_NAME, Result, append
from hvdtools.bench.suite.cases import Case, cases
from hvdtools.bench.suite.engines import FAMILIES
from hvdtools.bench.suite.sizes import sizes_in
from hvdtools.bench.suite.suite_file import load
from hvdtools.cli import main

DEMO = load("demo")
WEIGHTS = {"torch": 151_306, "keras": 122_570}  # of the demo's networks
GRADIENT_BYTES = {family: 4 * count for family, count in WEIGHTS.items()}
STEP_S = {1: 0.010, 2: 0.011}  # without communication


def op_s(message_bytes: float) -> float:
    """Of an all-reduce on 2 ranks."""
    return 1e-3 + message_bytes / 1e9


def blocks(seconds: float) -> tuple[float, ...]:
    return tuple(seconds * (1 + 0.01 * place) for place in (-2, -1, 0, 0, 1, 2))


def results_of(case: Case) -> list[Result]:
    """Made-up results of a case: what its engines took, were the model of `predict` right."""
    options = case.program.options_under(case.scaling)
    if case.program.family == "allreduce":
        times = {size: blocks(op_s(size)) for size in sizes_in(str(options["sizes"]))}
        return [
            allreduce_result(engine, case.ranks, case.repeat, times, options=options)
            for engine in case.engines
        ]
    gradient_bytes = GRADIENT_BYTES[case.program.family]
    made = []
    for engine in case.engines:
        sends = engine != "no_comm" and case.ranks > 1
        step_s = STEP_S[case.ranks] + (op_s(gradient_bytes) if sends else 0)
        made.append(
            training_result(
                engine,
                case.ranks,
                case.repeat,
                blocks(10 * step_s),
                family=case.program.family,
                interleaved=case.engines,
                options=options,
                phase_s=phases(case.ranks, 0, 0.3 * step_s, 0.6 * step_s, 0.1 * step_s),
                gradient_bytes=gradient_bytes,
                # TensorFlow's strategy does not say.
                allreduces_per_step=None if engine == "mwms" else int(sends),
            )
        )
    return made


RESULTS = [result for case in cases(DEMO) for result in results_of(case)]
RUN = analyze(RESULTS)


def test_the_demo_is_short() -> None:
    # A job takes 6 to 20 s on two cores, and the demo is to take under three minutes.
    assert len(cases(DEMO)) <= 13 and DEMO.repeats == 1
    assert DEMO.sizes == ((1, 1), (2, 1))


def test_the_demo_trains_under_every_kind_of_engine() -> None:
    found: dict[str, set[str]] = {}
    for program in DEMO.programs:
        assert program.file.samefile(FAMILIES[program.family].file)
        found.setdefault(program.family, set()).update(program.engines)
    assert found["torch"] == {"hvdtools-mpi", "hvdtools-gloo", "ddp", "no_comm"}
    assert found["keras"] == {"hvdtools-mpi", "mwms"}
    assert found["allreduce"] == {"horovod-mpi", "horovod-gloo", "torch"}


def test_horovods_thread_is_in_no_job_of_another_engine() -> None:
    for case in cases(DEMO):
        assert len(case.engines) == 1 or {e.program_engine for e in case.bench_engines} == {
            "ddp",
            "no_comm",
        }


def test_engines_of_one_model_are_in_one_table() -> None:
    named = [(section.title, len(section.rows)) for section in sections_of(RUN)]
    assert named == [
        ("PyTorch: cnn on digits, float32", 8),
        ("Keras: cnn on digits, float32", 4),
        ("All-reduce", 0),
    ]


def test_its_messages_reach_from_below_the_gradients_to_above() -> None:
    (program,) = [each for each in DEMO.programs if each.family == "allreduce"]
    sizes = sizes_in(program.asked("sizes"))
    assert min(sizes) * 8 < min(GRADIENT_BYTES.values())
    assert max(sizes) > max(GRADIENT_BYTES.values())
    assert program.asked("dtype") == "float32" and program.asked("tensors") == "1"


def test_all_of_the_demo_that_can_be_predicted_is() -> None:
    made = predict_run(RUN, request_for_report(RUN))
    assert [(each.workload.family, each.engine) for each in made.engines] == [
        ("torch", "hvdtools-mpi"),
        ("torch", "hvdtools-gloo"),
        ("torch", "ddp-gloo"),
        ("keras", "hvdtools-mpi"),
    ]
    (why,) = made.missing
    assert why.startswith("cnn (Keras), mwms: allreduce.py cannot measure the all-reduces of")
    for each in made.engines:
        two = each.sizes[-1]
        assert two.ranks == 2 and math.isfinite(two.step_s.low + two.step_s.high)
        truth_s = STEP_S[2] + op_s(GRADIENT_BYTES[each.workload.family])
        assert two.step_s.value == pytest.approx(truth_s, rel=0.02)
        (held,) = each.hold_outs
        assert (held.ranks, held.nodes) == (2, 1)
        # Keras runs nothing without communication: that 2 ranks compute longer is not known.
        assert held.error == pytest.approx(
            0 if each.workload.family == "torch" else -0.08, abs=0.02
        )
        assert each.not_held_out is not None
        assert each.not_held_out.startswith("Of 2 ranks only the training was held out")
        assert any("Measured in one repeat" in note for note in each.notes)


def test_every_number_of_the_demo_has_an_interval_and_says_of_what() -> None:
    for section in sections_of(RUN):
        assert [note.split(":")[0] for note in section.notes] == ["One repeat"]
        assert "the blocks of a single job" in section.notes[0]
        for row in section.rows:
            for span in (row.samples_per_s, row.efficiency, row.vs_baseline):
                assert span is None or math.isfinite(span.low + span.high)
    page = page_of(RUN, predict_run(RUN, request_for_report(RUN)))
    assert "No prediction of cnn (Keras), mwms" in page


def _predict(
    arguments: Sequence[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    monkeypatch.setattr("sys.argv", ["hvdtools", "bench", "predict", str(folder), *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    return said.out


def test_predict_reads_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for result in RESULTS:
        append(tmp_path / FILE_NAME, result)
    monkeypatch.setattr(
        "hvdtools.bench.report.console.write_page", lambda *_: "a page"
    )  # takes seconds
    said = _predict((), tmp_path, monkeypatch, capsys)
    assert said.count("held out: a step on 2 ranks is predicted to take") == 4
    assert "Keras: cnn on digits, float32, weak scaling, hvdtools-mpi" in said
    assert "no prediction of cnn (Keras), mwms" in said
    assert "to predict more ranks, describe it as in --network 100Gbit,5us" in said
    said = _predict(("--network", "10Gbit,30us"), tmp_path, monkeypatch, capsys)
    assert "to predict more ranks" not in said
    assert said.count("\n512 ") == 4


def test_large_jobs_are_predicted_where_their_network_is_known() -> None:
    results = [training_result("ddp", ranks) for ranks in (1, 2)]
    one_node = analyze(results)
    several = analyze([*results, training_result("ddp", 4, nodes=2)])
    network = parse_network("10Gbit")
    assert default_ranks(one_node, None, None) == (1, 2)
    assert default_ranks(one_node, network, None) == LARGE_RANKS
    assert default_ranks(one_node, None, 512) == LARGE_RANKS
    assert default_ranks(several, None, None) == LARGE_RANKS


def test_the_models_have_the_weights_that_their_documentation_says() -> None:
    method = (PROJECT / "docs" / "pages" / "programs.md").read_text()
    assert all(f"{count:,}".replace(",", " ") in method for count in WEIGHTS.values())
