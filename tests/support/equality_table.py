"""Print the equality table: `make equality`. With --write keep it in benchmarks/EQUALITY.md."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from equality import (
    CASES,
    DATA,
    DEVICE,
    IMPOSSIBLE,
    OPTIMIZERS,
    PRECISIONS,
    Case,
    OneProcess,
    train,
)
from jobs import start_job
from paths import PROJECT

KEPT = PROJECT / "benchmarks" / "EQUALITY.md"
RANKS = (1, 2, 3) if DEVICE == "cpu" else tuple(range(1, torch.cuda.device_count() + 1))
# Largest |difference| over largest |weight|, tensor by tensor. LBFGS takes the
# rounding of float32 for curvature; in float64 its cases equal to 1e-12 (cases.py).
TOLERANCE = 1e-5
TOLERANCE_OF_LBFGS = 1e-3

HEAD = """# N ranks equal one process

Each figure is the largest difference between the weights that N ranks trained and those of one
process on the joined batch with PyTorch alone, relative to the largest weight of the tensor, over
all weights after {steps} steps: `make equality` prints this table, and the tests hold every cell
below {tolerance:.0e} (LBFGS, which takes the rounding of float32 for curvature, below {loose:.0e};
in float64, other tests hold it below 1e-12). The ranks themselves end bit-equal.

- **even**: every rank has the same number of samples.
- **uneven**: `shard(uneven="weighted")`; in the last step one rank alone has a sample left.
- **weighted**: `hvt.weight(n)`; each rank's loss is a mean over another number of tokens, and
  one rank has none in one step, so that its loss is NaN.
- **GradScaler**: in the first step the last rank's loss alone overflows; all ranks skip it.
- **autocast bf16** rounds differently when the batch changes: there the one process takes the
  ranks' parts one by one.

"""


def tolerance(case: Case) -> float:
    """What the relative error of a case must stay below."""
    return TOLERANCE_OF_LBFGS if case.optimizer == "LBFGS" else TOLERANCE


def train_in_ranks(ranks: int, folder: Path) -> list[dict[str, Any]]:
    """What each rank trained: case -> weights, or the traceback it died of."""
    environ = {"CUDA_VISIBLE_DEVICES": ""} if DEVICE == "cpu" else {}
    job = start_job(ranks, "rank_equality.py", folder, env=environ)
    if job.exit_code:
        raise RuntimeError(job.text)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(ranks)]


def error(of_rank: list[dict[str, Any]], case: Case) -> float:
    """The largest relative difference of rank 0's weights from one process'.

    Raises:
        RuntimeError: A rank failed, or the ranks ended with different weights.
    """
    for rank, trained in enumerate(of_rank):
        if isinstance(trained[str(case)], str):
            raise RuntimeError(f"rank {rank}:\n{trained[str(case)]}")
    first, *others = (trained[str(case)] for trained in of_rank)
    for other in others:
        if not all(torch.equal(a, b) for a, b in zip(first, other, strict=True)):
            raise RuntimeError(f"{case}: the ranks ended with different weights")
    reference = train(OneProcess(len(of_rank)), case)
    return max(
        ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()
        for a, b in zip(first, reference, strict=True)
    )


def table(errors: Mapping[tuple[Case, int], float]) -> str:
    """Markdown: a row for each optimizer and precision, a column for each kind of data and N."""
    columns = [f"{data}, N={ranks}" for data in DATA for ranks in RANKS]
    lines = [
        "| optimizer, precision | " + " | ".join(columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for optimizer in OPTIMIZERS:
        for precision in PRECISIONS:
            why_not = IMPOSSIBLE.get((optimizer, precision))
            if why_not:
                cells = [why_not, *["–"] * (len(columns) - 1)]
            else:
                grid = [Case(optimizer, precision, data) for data in DATA]
                cells = [f"{errors[case, ranks]:.0e}" for case in grid for ranks in RANKS]
            lines.append(f"| {optimizer}, {precision} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    errors: dict[tuple[Case, int], float] = {}
    for ranks in RANKS:
        print(f"{ranks} rank{'s' if ranks > 1 else ''} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            of_rank = train_in_ranks(ranks, Path(folder))
        errors |= {(case, ranks): error(of_rank, case) for case in CASES}
    text = table(errors)
    print(text)
    if "--write" in sys.argv[1:]:
        head = HEAD.format(steps=4, tolerance=TOLERANCE, loose=TOLERANCE_OF_LBFGS)
        KEPT.write_text(head + text + "\n")
    worst = {str(case): value for (case, _), value in errors.items() if value > tolerance(case)}
    if worst:
        sys.exit(f"above the tolerance: {worst}")


if __name__ == "__main__":
    main()
