"""Load batches on every rank and do nothing with them: how fast could training be fed?

By hand, in any launcher (more ranks than one meet at MASTER_ADDR:MASTER_PORT):

    python benchmarks/torch/input_pipeline.py --make photos --images 2000 --size 500
    python benchmarks/torch/input_pipeline.py --model resnet50 --data photos --workers 8

Each rank loads its own part of the data, as in training, and copies it to its
device, as in training. Rank 0 prints the rates and, with --result, appends one
JSON line, a `measured.Loader`. METHOD.md says what is timed and why.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from hvdtools.bench.programs.common.made_images import make_images
from hvdtools.bench.programs.common.rank_exit import leave
from hvdtools.bench.programs.torch.models import MODELS, check_data
from hvdtools.bench.results import measured
from hvdtools.bench.run import interleave
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import read_launch_environment


def tell(loader: measured.Loader) -> None:
    """Print the rates of each rank and of all."""
    for rank, step_s in enumerate(loader.rank_step_s):
        print(
            f"rank {rank}: {loader.batch_per_rank / step_s:.0f} samples/s, {step_s:.6f} s a batch"
        )
    whole = statistics.median(loader.block_rates)
    print(
        f"{len(loader.rank_step_s)} rank(s) with {loader.workers} worker(s) each: {whole:.0f} "
        f"samples/s (median of {len(loader.block_s)} blocks, stopped by {loader.stopped_by})"
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Load batches on every rank, and nothing else.")
    parser.add_argument("--engine", choices=["loader"], default="loader", help="there is one")
    parser.add_argument("--model", choices=sorted(MODELS), default="resnet50", help="who reads")
    parser.add_argument("--data", default="synthetic", help="a name, or the path of files")
    parser.add_argument("--batch-size", type=int, default=128, help="samples a rank and a step")
    parser.add_argument("--workers", type=int, default=4, help="loading processes a rank")
    parser.add_argument("--sequence", type=int, help="tokens of a text")
    parser.add_argument("--steps", type=int, default=20, help="batches in a block")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--result", type=Path, help="rank 0 appends one JSON line to this file")
    interleave.add_options(parser)
    made = parser.add_argument_group("instead of loading, once and in one process")
    made.add_argument("--make", type=Path, metavar="FOLDER", help="write image files there")
    made.add_argument("--images", type=int, default=2000, help="so many")
    made.add_argument("--size", type=int, default=500, help="so wide and high, in pixels")
    options = parser.parse_args(arguments)
    for name, least in (("batch_size", 1), ("steps", 1), ("workers", 0), ("max_blocks", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}")
    return options


def check_meeting_point() -> None:
    """See that several ranks know where to meet.

    Raises:
        HvdtoolsError: Nobody said where.
    """
    size = read_launch_environment(os.environ).size
    if size > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise HvdtoolsError(
            f"{size} ranks meet at MASTER_ADDR:MASTER_PORT: set both, the same on every rank."
        )


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    try:
        if options.make:
            written_bytes = make_images(options.make, options.images, options.size)
            print(f"{options.images} images, {written_bytes / 1e6:.1f} MB, in {options.make}")
            return
        check_data(MODELS[options.model].reads, options.data)
        check_meeting_point()
        # Imported here, so that neither --help nor a wrong option waits for PyTorch.
        from hvdtools.bench.programs.torch.input_measure import joined, measure

        with joined() as job:
            loader = measure(job, options)
    except HvdtoolsError as error:
        print(f"input_pipeline: {error}", file=sys.stderr)
        leave(2)
        sys.exit(2)
    if job.rank == 0:
        tell(loader)
        if options.result:
            with options.result.open("a") as file:
                file.write(json.dumps(measured.to_dict(loader)) + "\n")


if __name__ == "__main__":
    main()
