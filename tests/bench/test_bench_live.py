"""What is said while a suite runs: a line for each engine that ended, counted by jobs."""

from __future__ import annotations

import dataclasses
import io

import pytest
from bench_examples import allreduce_result, failed, loader_result, training_result
from rich.console import Console

from hvdtools.bench.results.measured import Point
from hvdtools.bench.run.progress import Watcher, outcome, watching
from hvdtools.bench.suite.cases import cases
from hvdtools.bench.suite.suite_file import load


def lines_of(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def a_log() -> Console:
    return Console(file=io.StringIO(), width=40)


def test_a_training_says_its_rate_and_how_surely() -> None:
    said = outcome(training_result("ddp", 2, block_s=(1.0, 1.0, 1.0, 1.0, 1.0, 1.25)))
    assert said == (
        "cnn, ddp-gloo, 2 ranks, repeat 1, weak scaling: 200 samples/s ±20.0\u00a0%, "
        "accuracy 97.5 %, replicas in sync (5.0 s)"
    )
    alone = outcome(training_result("ddp", 1, block_s=(0.5,), accuracy=None))
    assert "1 rank, repeat 1, weak scaling: 200 samples/s (5.0 s)" in alone
    assert "REPLICAS DIFFER" in outcome(training_result("ddp", 2, in_sync=False))
    assert "16 ranks on 2 nodes" in outcome(training_result("ddp", 16, nodes=2))


def test_an_all_reduce_says_its_best_bandwidth_and_wrong_sums() -> None:
    # On 4 ranks the bus sees 1.5 times the algorithm's: 1.5 GB/s of 2**30 bytes in 2**30/1e9 s.
    sizes = {1024: (1e-4,) * 6, 2**30: (2**30 / 1e9,) * 6}
    said = outcome(allreduce_result("torch", 4, op_s=sizes))
    assert (
        "torch-gloo, 4 ranks, repeat 1: best bus bandwidth 1.5 GB/s (1\u00a0GiB of float32)" in said
    )
    wrong = outcome(allreduce_result("torch", 4, op_s=sizes, wrong_elements=3))
    assert "6 WRONG ELEMENTS" in wrong and "WRONG" not in said
    refused = (Point(1024, "float16", 1, 10, (), 0, "it has no such type"),)
    assert "no all-reduce that it does" in outcome(allreduce_result("mpi4py", 2, points=refused))


def test_a_loader_says_its_rate_and_a_failure_why() -> None:
    assert (
        outcome(loader_result(2)) == "loader, 2 ranks, repeat 1: 200 samples/s ±0.0\u00a0% (5.0 s)"
    )
    why = failed(training_result("ddp", 2), "no [bold]mpirun[/bold]")
    assert outcome(why).endswith("FAILED, no [bold]mpirun[/bold]")


def test_interleaved_engines_count_as_one_job() -> None:
    console, together = a_log(), ("hvdtools-mpi", "ddp")
    with watching(console, 3) as watcher:
        for turn in (1, 2):
            for engine in together:
                watcher.ended(training_result(engine, 2, turn, interleaved=together))
        watcher.ended(failed(allreduce_result("torch", 2), "no [bold]mpirun[/bold]"))
    counts = [line.split()[0] for line in lines_of(console)]
    assert counts == ["1/3", "1/3", "2/3", "2/3", "3/3"]
    assert "[bold]" in lines_of(console)[-1] and "\x1b[" not in "".join(lines_of(console))


def test_a_log_gets_few_lines_of_the_job_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    case = dataclasses.replace(cases(load("demo"))[0], engines=("ddp", "no_comm"), ranks=8, nodes=2)
    console = a_log()
    with watching(console, 1) as watcher:
        assert isinstance(watcher, Watcher)
        for step in range(48):
            watcher.say(case, f"step {step}")
            now_s[0] += 0.125
    assert lines_of(console) == [
        "  ddp and no_comm, 8 ranks on 2 nodes, repeat 1: step 16",
        "  ddp and no_comm, 8 ranks on 2 nodes, repeat 1: step 32",
    ]
