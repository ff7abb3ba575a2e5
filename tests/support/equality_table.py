"""Print the equality table: `make equality`. With --write keep it in docs/."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from equality_cases import CASES, TABLE_IDS, TABLE_TOLERANCE, TABLE_TOLERANCE_OF_LBFGS
from equality_grid import DATA, IMPOSSIBLE, OPTIMIZERS, PRECISIONS
from equality_loops import STEPS
from jobs import Job, start_job
from paths import PROJECT
from torch import Tensor
from worlds import OneProcess

KEPT = PROJECT / "docs" / "pages" / "equality.md"

HEAD = """# Equality

N ranks train what one process trains on the joined batch.

Each figure is the largest difference between the weights that N ranks trained and those of one
process on the joined batch with PyTorch alone, relative to the largest weight of the tensor, over
all weights after {steps} steps. `make equality` prints this table. Tests hold every cell below
{tolerance:.0e} (LBFGS, which takes the rounding of float32 for curvature, below {loose:.0e}). In
float64, other tests hold it below 1e-12. The ranks themselves end bit-equal.

- **even**: every rank has the same number of samples.
- **uneven**: `shard(uneven="weighted")`; in the last step only one rank has a sample left.
- **weighted**: `hvt.weight(n)`; each rank's loss is a mean over a different number of tokens, and
  one rank has none in one step, so its loss is NaN.
- **GradScaler**: in the first step only the last rank's loss overflows; all ranks skip the step.
- **autocast bf16** rounds differently when the batch changes, so the one process takes the ranks'
  parts one by one.

"""


def train_in_ranks(
    ranks: int,
    folder: Path,
    device: str = "cpu",
    *arguments: str,
    env: Mapping[str, str] = MappingProxyType({}),
) -> Job:
    """Let each rank of a job save in the folder what it trained, case by case."""
    environ = {"CHECK_FOLDER": str(folder), "TEST_DEVICE": device, **env}
    if device == "cpu":
        # init() gives each GPU to one rank; these need none.
        environ["CUDA_VISIBLE_DEVICES"] = ""
    return start_job(ranks, "rank_equality.py", *arguments, env=environ)


def error(case_id: str, folder: Path, ranks: int, device: str = "cpu") -> float:
    """The largest relative difference of what the ranks saved from one process' tensors.

    Raises:
        AssertionError: The ranks ended with different tensors.
    """
    first, *others = (torch.load(folder / f"{case_id}.rank{rank}.pt") for rank in range(ranks))
    for rank, other in enumerate(others, 1):
        if not all(torch.equal(a, b) for a, b in zip(first, other, strict=True)):
            raise AssertionError(f"{case_id}: rank {rank} ended with other tensors than rank 0")
    return largest_error(first, train_in_one_process(case_id, ranks, device))


def train_in_one_process(case_id: str, ranks: int, device: str = "cpu") -> list[Tensor]:
    """Train on the joined batch of `ranks` ranks, with PyTorch alone and one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.device(device):
            return CASES[case_id].train(OneProcess(ranks))
    finally:
        torch.set_num_threads(threads)


def largest_error(tensors: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """max |a - b| / max |b| over each tensor, the largest of all; NaN if any is."""
    errors = [
        (a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-30)
        for a, b in zip(tensors, reference, strict=True)
    ]
    return torch.stack(errors).max().item()


def table(errors: Mapping[tuple[str, int], float]) -> str:
    """Markdown: a row for each optimizer and precision, a column for each kind of data and N.

    Args:
        errors: (case id, ranks) -> the relative error.
    """
    numbers = sorted({ranks for _, ranks in errors})
    columns = [f"{data}, N={ranks}" for data in DATA for ranks in numbers]
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
                ids = [TABLE_IDS[optimizer, precision, data] for data in DATA]
                cells = [f"{errors[case_id, ranks]:.0e}" for case_id in ids for ranks in numbers]
            lines.append(f"| {optimizer}, {precision} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    # By hand, TEST_DEVICE=cuda trains on GPUs.
    device = os.environ.get("TEST_DEVICE", "cpu")
    errors: dict[tuple[str, int], float] = {}
    for ranks in range(1, 1 + (3 if device == "cpu" else torch.cuda.device_count())):
        print(f"{ranks} rank{'s' if ranks > 1 else ''} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            job = train_in_ranks(ranks, Path(folder), device)
            if job.exit_code:
                sys.exit(job.text)
            for case_id in TABLE_IDS.values():
                errors[case_id, ranks] = error(case_id, Path(folder), ranks, device)
    text = table(errors)
    print(text)
    if "--write" in sys.argv[1:]:
        head = HEAD.format(steps=STEPS, tolerance=TABLE_TOLERANCE, loose=TABLE_TOLERANCE_OF_LBFGS)
        KEPT.write_text(head + text + "\n")
    worst = {
        case_id: value
        for (case_id, _), value in errors.items()
        if not value <= CASES[case_id].tolerance
    }
    if worst:
        sys.exit(f"above the tolerance: {worst}")


if __name__ == "__main__":
    main()
