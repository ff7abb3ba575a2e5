"""A made-up run with everything that a report can show: for tests of the page and of the CSV."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from bench_examples import allreduce_result, failed, loader_result, training_result

from hvdtools.bench.analysis.summary import analyze
from hvdtools.bench.predict.engine_prediction import PredictionRequest
from hvdtools.bench.predict.network import parse_network
from hvdtools.bench.predict.run_prediction import RunPrediction, predict_run
from hvdtools.bench.results.measured import Point
from hvdtools.bench.results.result_file import Result

ENGINES = ("hvdtools-mpi", "hvdtools-gloo", "horovod-mpi", "horovod-gloo", "ddp", "no_comm")
MODEL = {"model": "resnet50", "data": "synthetic", "precision": "bfloat16"}
HOSTILE = '<script>alert("1")</script> & more'
WRONG = 7


def trainings(
    engines: Sequence[str] = ENGINES,
    sizes: Sequence[tuple[int, int]] = ((1, 1), (2, 1), (4, 1)),
    *,
    family: str = "torch",
    scaling: str = "weak",
    options: dict[str, str | int | float] | None = None,
    repeats: int = 2,
    input_s: float = 0.001,
    accuracy: float | None = None,
) -> list[Result]:
    """Results of each engine on each (ranks, nodes); no two cases are equal."""
    made = []
    for turn in range(1, repeats + 1):
        for ranks, nodes in sizes:
            for number, engine in enumerate(engines):
                alone_s = 0.05 / (ranks if scaling == "strong" else 1)
                sent_s = 0.002 * (number + 1) * math.log2(ranks) * nodes
                step_s = alone_s + (0 if engine == "no_comm" else sent_s)
                block_s = [10 * step_s * (1 + 0.01 * math.sin(7 * n + number)) for n in range(8)]
                made.append(
                    training_result(
                        engine,
                        ranks,
                        turn,
                        [seconds * (1 + 0.02 * turn) for seconds in block_s],
                        nodes=nodes,
                        family=family,
                        scaling=scaling,
                        options=MODEL if options is None else options,
                        interleaved=engines if nodes > 1 else None,
                        rank_step_s=[step_s] * ranks,
                        phase_s={
                            "input": [input_s] * ranks,
                            "forward": [0.3 * alone_s * (1 + 0.01 * r) for r in range(ranks)],
                            "backward": [step_s - 0.36 * alone_s] * ranks,
                            "optimizer": [0.05 * alone_s] * ranks,
                        },
                        peak_memory_bytes=(int(3e9) + number * 10**8,) * ranks,
                        accuracy=accuracy,
                        batch_per_rank=64 // ranks if scaling == "strong" else 10,
                        gradient_bytes=100_000_000,
                    )
                )
    return made


def allreduces(ranks: int) -> list[Result]:
    """Three engines; one does not support float16, one has wrong sums on four ranks."""
    made = []
    for number, engine in enumerate(("horovod-mpi", "torch", "mpi4py")):
        points = []
        for dtype, tensors in (("float32", 1), ("float32", 16), ("float16", 1)):
            if (engine, dtype) == ("mpi4py", "float16"):
                points.append(Point(1024, dtype, tensors, 10, (), 0, "it has no such type"))
                continue
            for power in range(10, 27, 4):
                sent_s = (1 + number) * (2e-5 * ranks + 2**power * (ranks - 1) / ranks / 1e9)
                wrong = WRONG if (engine, power, ranks) == ("torch", 18, 4) else 0
                op_s = tuple(sent_s * (1 + 0.01 * n) for n in range(7))
                points.append(Point(2**power, dtype, tensors, 10, op_s, wrong))
        made.append(allreduce_result(engine, ranks, points=points))
    return made


def whole_run() -> list[Result]:
    """Two frameworks, weak and strong, several nodes, failures, all-reduces, a loader."""
    results = [
        *trainings(),
        *trainings(("hvdtools-mpi", "ddp", "no_comm"), scaling="strong"),
        *trainings(
            ("hvdtools-gloo", "ddp", "no_comm"),
            ((1, 1), (4, 1), (8, 2), (16, 4)),
            options={"model": "gpt-124m", "data": "synthetic"},
            repeats=1,
        ),
        *trainings(
            ("hvdtools-mpi", "mwms"),
            ((1, 1), (2, 1)),
            family="keras",
            options={"model": "cnn", "data": "digits"},
            input_s=0.02,
            accuracy=0.983,
        ),
        failed(training_result("horovod-mpi", 8, options=MODEL), HOSTILE),
        failed(training_result("ddp", 8, options=MODEL)),
        *allreduces(2),
        *allreduces(4),
        failed(allreduce_result("torch", 8)),
        loader_result(1),
        loader_result(2, block_s=(1.0, 1.1, 0.9, 1.2, 1.02, 1.01)),
    ]
    return [
        dataclasses.replace(
            result,
            command=f"{result.command} --ranks {result.ranks} --env MASTER_PORT={29500 + number}",
        )
        for number, result in enumerate(results)
    ]


def prediction(results: Sequence[Result]) -> RunPrediction:
    """Of one model, on a network given by the user."""
    network = parse_network("100Gbit,5us")
    request = PredictionRequest((1, 2, 4, 8, 32), network, model="resnet50")
    return predict_run(analyze(results), request)
