"""What train_torch.py can be told."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch_data import names
from torch_engines import ENGINES
from torch_models import MODELS

from hvdtools.bench.turns import add_options
from hvdtools.errors import HvdtoolsError, unknown_name

# Weights and inputs; under bfloat16 autocast casts what gains by it.
PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}


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
    parser.add_argument(
        "--precision", choices=sorted(PRECISIONS), default="float32", help="[float32]"
    )
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
    options.engine = options.engine.split(",")
    for name in options.engine:
        if name not in ENGINES:
            raise unknown_name("engine", name, tuple(ENGINES))
    if len(set(options.engine)) < len(options.engine):
        raise HvdtoolsError("--engine lists an engine twice: list each once.")
    if options.model not in MODELS:
        raise unknown_name("model", options.model, tuple(MODELS))
    reads = MODELS[options.model].reads
    options.data = options.data or names(reads)[0]
    if options.data not in names(reads) and not Path(options.data).exists():
        raise unknown_name("data", options.data, (*names(reads), "the path of what it reads"))
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
