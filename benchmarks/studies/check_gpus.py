"""Train the digits on the CPU and on 1 and 2 GPUs, and compare the weights.

    python benchmarks/studies/check_gpus.py

The global batch is 90 images in every run, so all of them do the same sums in
another order: in float64 the weights must agree to rounding. Prints a line for
each run and exits with 1 if one differs by more than LIMIT.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

PROGRAM = Path(__file__).parents[1] / "torch" / "train_torch.py"
GLOBAL_BATCH = 90
LR = 0.06  # of the job, whatever its size
EPOCHS = 5
# Sums of float64 in another order differ by 1e-16; 80 steps of training enlarge that.
LIMIT = 1e-9


@dataclass(frozen=True)
class Run:
    name: str
    ranks: int
    variables: tuple[tuple[str, str], ...] = ()


CPU = Run("CPU, 1 rank", 1, (("CUDA_VISIBLE_DEVICES", ""),))
RUNS = (
    Run("CPU, 2 ranks", 2, (("CUDA_VISIBLE_DEVICES", ""),)),
    Run("1 GPU", 1),
    Run("2 GPUs", 2),
    Run("2 GPUs, asynchronous completion", 2, (("HOROVOD_ENABLE_ASYNC_COMPLETION", "1"),)),
)


def train(run: Run, file: Path) -> tuple[list[torch.Tensor], str]:
    """The trained weights, and the last line that the job printed."""
    command = [
        *(sys.executable, "-m", "hvdtools", "launch", "-n", str(run.ranks), "--oversubscribe"),
        *("--", "python", str(PROGRAM), "--engine", "hvdtools", "--data", "digits"),
        *("--precision", "float64", "--epochs", str(EPOCHS), "--weights", str(file)),
        *("--batch-size", str(GLOBAL_BATCH // run.ranks), "--lr", str(LR / run.ranks)),
    ]
    environ = {**os.environ, **dict(run.variables)}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{run.name} failed:\n{ended.stdout}{ended.stderr}")
    return torch.load(file)["hvdtools"], ended.stdout.strip().splitlines()[-1]


def largest_difference(weights: list[torch.Tensor], reference: list[torch.Tensor]) -> float:
    """max |a - b| / max |b| over each tensor, the largest of all."""
    pairs = zip(weights, reference, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def main() -> None:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"torch {torch.__version__}; GPUs: {', '.join(gpus) or 'none'}")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        reference, said = train(CPU, Path(folder) / "cpu.pt")
        print(f"{CPU.name}: the reference; {said}")
        for number, run in enumerate(RUNS):
            if "GPU" in run.name and len(gpus) < run.ranks:
                print(f"{run.name}: skipped, {len(gpus)} here")
                continue
            weights, said = train(run, Path(folder) / f"{number}.pt")
            difference = largest_difference(weights, reference)
            worst = max(worst, difference)
            print(f"{run.name}: differs by {difference:.1e} relative; {said}", flush=True)
    print(f"limit {LIMIT:.0e}: {'all equal to rounding' if worst <= LIMIT else 'DIFFERENT'}")
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
