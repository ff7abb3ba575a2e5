"""Train a network of Keras on every rank, and measure it.

By hand, in any launcher:

    hvdtools launch -n 2 -- python benchmarks/keras/train_keras.py --engine hvdtools --epochs 12

What makes it a Horovod job are four calls, all in the class `Hvdtools` of
engines.py: `hvt.init()`, `hvt.prepare(optimizer)`, `hvt.shard(data)` and
`hvt.callbacks(...)`. Beside it are `Horovod`, plain Horovod in a loop of its own;
`Mwms` in strategy.py, TensorFlow's own MultiWorkerMirroredStrategy, the
baseline; and `NoComm`, whose ranks send nothing.

With --epochs a block is an epoch, and the test images are named afterwards;
without, blocks of --steps steps go on until their median is known. Rank 0 prints
a line a block and, with --result, appends one JSON line with what
`hvdtools.bench.results.measured.Training` lists. METHOD.md says what is timed and why.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from hvdtools.bench.programs.keras.color_images import DATA, Images, load
from hvdtools.bench.programs.keras.environment import check_meeting_point, set_environment
from hvdtools.bench.programs.keras.model import MODELS
from hvdtools.bench.results.measured import to_dict
from hvdtools.bench.run import interleave
from hvdtools.bench.suite.engines import FAMILIES, RENAMED_ENGINES
from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.core.renamed import new_name
from hvdtools.core.topology import read_launch_environment

ENGINES = FAMILIES["keras"].program_engines
PRECISIONS = ("float32", "float64", "bfloat16")
STEPS = 10


def one_engine(text: str) -> str:
    """The name of an engine, for argparse."""
    names = [new_name("engine", name, RENAMED_ENGINES) for name in text.split(",")]
    for name in names:
        if name not in ENGINES:
            raise argparse.ArgumentTypeError(str(unknown_name("engine", name, ENGINES)))
    if len(names) > 1:
        raise argparse.ArgumentTypeError(
            f"{text} are several, and TensorFlow's strategies and Horovod cannot share a process: "
            "give one, and start a job for each."
        )
    return names[0]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a Keras network on every rank.")
    parser.add_argument(
        "--engine", type=one_engine, default="hvdtools", help=f"{', '.join(ENGINES)} [hvdtools]"
    )
    parser.add_argument("--model", choices=list(MODELS), default="cnn", help="[cnn]")
    parser.add_argument(
        "--data",
        default="synthetic",
        help="synthetic; for cnn also digits, or the folder of CIFAR-10's binary files [synthetic]",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="samples a rank and a step [64]")
    parser.add_argument("--epochs", type=int, help="of training, warm-up and all; a block is one")
    parser.add_argument("--warmup-epochs", type=int, default=1, help="first ones, not counted [1]")
    parser.add_argument("--steps", type=int, help=f"in a block without --epochs [{STEPS}]")
    interleave.add_options(parser)
    parser.add_argument(
        "--lr", type=float, default=1e-3, help="of one rank; times the ranks [0.001]"
    )
    parser.add_argument("--seed", type=int, default=1, help="[1]")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="[float32]")
    parser.add_argument("--weights", type=Path, help="rank 0 saves the trained weights there, .npz")
    parser.add_argument("--result", type=Path, help="rank 0 appends one JSON line to this file")
    options = parser.parse_args(arguments)
    for name in ("batch_size", "epochs", "steps", "min_blocks", "max_blocks"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value} trains nothing: give at least 1")
    _check_blocks(parser, options)
    _check_data(parser, options)
    return options


def _check_blocks(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.epochs is None:
        options.steps = options.steps or STEPS
    elif options.steps is not None:
        parser.error("--epochs and --steps: a block is an epoch, or so many steps")
    elif not 0 <= options.warmup_epochs < options.epochs:
        parser.error("--warmup-epochs leaves no epoch to count: give more --epochs")


def _check_data(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    model, data = options.model, options.data
    if data not in DATA and not Path(data).is_dir():
        parser.error(f"--data {data} is neither {', '.join(DATA)} nor a folder")
    if MODELS[model].batch is None:
        return
    if data != "synthetic":
        fitting = ", ".join(name for name, known in MODELS.items() if known.batch is None)
        parser.error(f"--data {data} fits {fitting}, and {model} trains on synthetic alone")
    if options.epochs is not None:
        parser.error(f"{model} trains on one batch, which has no epochs: give --steps instead")


def images_for(options: argparse.Namespace) -> tuple[Images, Images] | None:
    """To train on and to test on; None for a network that makes its own batch.

    Raises:
        HvdtoolsError: They cannot be read, or are fewer than the ranks' batches have.
    """
    if MODELS[options.model].batch is not None:
        return None
    training, test = load(options.data)
    ranks = read_launch_environment(os.environ).size
    if len(training) < options.batch_size * ranks:
        raise HvdtoolsError(
            f"{ranks} batches of {options.batch_size} are more than the {len(training)} training "
            "images: give a smaller --batch-size."
        )
    return training, test


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    try:
        if options.engine == "mwms":
            check_meeting_point()
        images = images_for(options)
        threads = set_environment()
        # Imported here, so that neither --help nor a wrong option waits for TensorFlow.
        from hvdtools.bench.programs.keras import engines, measure

        engine = engines.ENGINES[options.engine]()
        measured = measure.measure(engine, options, images, threads)
    except HvdtoolsError as error:
        print(f"train_keras: {error}", file=sys.stderr)
        sys.exit(2)
    if engine.rank == 0 and options.result:
        with options.result.open("a") as file:
            file.write(json.dumps(to_dict(measured)) + "\n")


if __name__ == "__main__":
    main()
