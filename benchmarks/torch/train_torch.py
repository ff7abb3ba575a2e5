"""Train a network on every rank, and measure where the time goes.

By hand, in any launcher:

    hvdtools launch -n 2 -- python benchmarks/torch/train_torch.py --model cnn --epochs 12

What makes a script a Horovod job are three calls, all in the class `Hvdtools`
of engines.py: `hvt.init()`, `hvt.prepare(model, optimizer)` and
`hvt.shard(loader)`. The classes beside it do the same with plain Horovod and
with PyTorch's own DistributedDataParallel, the baseline, and `NoComm` averages
nothing. The training step in steps.py knows none of them.

Several engines of one job (--engine hvdtools,ddp,no_comm) train one model each and
take turns, block by block. With --epochs a block is an epoch; without, it is so
many --steps, and blocks go on until their median is known. Rank 0 prints how it
goes and, with --result, appends one JSON line for each engine. METHOD.md says
what is timed and why.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hvdtools.bench.programs.common.rank_exit import leave
from hvdtools.bench.programs.torch.models import MODELS, check_data, names
from hvdtools.bench.run.interleave import add_options
from hvdtools.bench.suite.engines import FAMILIES, RENAMED_ENGINES
from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.core.renamed import new_name
from hvdtools.core.topology import read_launch_environment

ENGINES = FAMILIES["torch"].program_engines
PRECISIONS = ("float32", "float64", "bfloat16")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options; ends with exit code 2 and a sentence for those that cannot be."""
    parser = argparse.ArgumentParser(description="Train a network on every rank, and measure it.")
    known = ", ".join(ENGINES)
    parser.add_argument(
        "--engine", default="hvdtools", help=f"one or, by commas, several: {known} [hvdtools]"
    )
    parser.add_argument("--model", default="cnn", help=f"{', '.join(MODELS)} [cnn]")
    parser.add_argument("--data", help="a name or a path [digits for cnn, else synthetic]")
    parser.add_argument("--batch-size", type=int, default=45, help="samples a rank and a step [45]")
    parser.add_argument("--steps", type=int, default=10, help="in a block [10]")
    parser.add_argument("--epochs", type=int, help="so many, a block each, warm-up and all")
    parser.add_argument("--warmup-epochs", type=int, help="first ones, not counted [at most 2]")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="[float32]")
    parser.add_argument("--workers", type=int, default=0, help="loading processes a rank [0]")
    parser.add_argument("--lr", type=float, help="of one rank; times the ranks")
    parser.add_argument("--seed", type=int, default=1, help="[1]")
    parser.add_argument("--weights", type=Path, help="rank 0 saves {engine: trained weights} there")
    parser.add_argument("--result", type=Path, help="rank 0 appends a JSON line for each engine")
    add_options(parser)
    options = parser.parse_args(arguments)
    try:
        check(options)
    except HvdtoolsError as problem:
        parser.error(str(problem))
    return options


def check(options: argparse.Namespace) -> None:
    """Raise for what cannot be trained; makes a list of the engines and settles the data."""
    options.engine = [new_name("engine", n, RENAMED_ENGINES) for n in options.engine.split(",")]
    for name in options.engine:
        if name not in ENGINES:
            raise unknown_name("engine", name, ENGINES)
    if len(set(options.engine)) < len(options.engine):
        raise HvdtoolsError("--engine lists an engine twice: list each once.")
    if options.model not in MODELS:
        raise unknown_name("model", options.model, tuple(MODELS))
    reads = MODELS[options.model].reads
    options.data = options.data or names(reads)[0]
    check_data(reads, options.data)
    for option in ("batch_size", "steps", "min_blocks", "max_blocks"):
        if getattr(options, option) < 1:
            raise HvdtoolsError(f"--{option.replace('_', '-')} trains nothing: give at least 1.")
    if options.workers < 0:
        raise HvdtoolsError("--workers is a number of processes: give 0 or more.")
    if options.epochs is None and options.warmup_epochs is not None:
        raise HvdtoolsError("--warmup-epochs goes with --epochs: give --warmup-blocks without.")
    if options.epochs is not None:
        if options.warmup_epochs is None:
            options.warmup_epochs = max(0, min(2, options.epochs - 1))
        if not 0 <= options.warmup_epochs < options.epochs:
            raise HvdtoolsError("--warmup-epochs leaves no epoch to count: give more --epochs.")
        if options.data == "synthetic" and reads != "digits":
            raise HvdtoolsError("This data has no epochs: leave out --epochs, or give --data.")


def check_meeting_point(engines: Sequence[str]) -> None:
    """See that engines which meet through torch.distributed know where.

    Raises:
        HvdtoolsError: Nobody said where.
    """
    needed = "ddp" in engines or (
        list(engines) == ["no_comm"] and read_launch_environment(os.environ).size > 1
    )
    if needed and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise HvdtoolsError(
            "ddp, and no_comm on several ranks without a Horovod engine alongside, meet at "
            "MASTER_ADDR:MASTER_PORT: set both, the same on every rank."
        )


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    try:
        check_meeting_point(options.engine)
        # Imported here, so that neither --help nor a wrong option waits for PyTorch.
        from hvdtools.bench.programs.torch.measure import measure
        from hvdtools.bench.programs.torch.process_group import part

        measure(options)
    except HvdtoolsError as problem:
        print(f"train_torch: {problem}", file=sys.stderr)
        leave(2)
        sys.exit(2)
    part()


if __name__ == "__main__":
    main()
    leave()
