"""Sum messages of many sizes over all ranks, check every element, and time it.

By hand, in any launcher:

    hvdtools launch -n 2 --launcher mpirun -- python benchmarks/allreduce/allreduce.py \\
        --engine horovod,mpi4py --sizes 1KiB:1GiB --dtype float32,float16 --tensors 1,16

Rank 0 prints a line for each message and engine and, with --result, appends one
JSON line for each engine with the raw times. The exit code is 1 if an element
of a sum was wrong. METHOD.md says what is timed and why.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from pathlib import Path

from hvdtools.bench.run.interleave import add_options
from hvdtools.bench.suite.engines import FAMILIES
from hvdtools.bench.suite.sizes import sizes_in
from hvdtools.core.errors import HvdtoolsError, unknown_name

ENGINES = FAMILIES["allreduce"].program_engines
# As PyTorch names them.
DTYPES = ("float32", "float16", "bfloat16")


def listed(kind: str, text: str, known: Collection[str]) -> tuple[str, ...]:
    """The names in "a,b".

    Raises:
        HvdtoolsError: One is unknown.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, tuple(known))
    return names


def counts(text: str) -> tuple[int, ...]:
    """The numbers in "1,16".

    Raises:
        HvdtoolsError: One is no whole number from 1.
    """
    parts = [part.strip() for part in text.split(",")]
    if any(not part.isdecimal() or int(part) == 0 for part in parts):
        raise HvdtoolsError(f"--tensors {text!r} are no whole numbers from 1, as in 1,16.")
    return tuple(dict.fromkeys(map(int, parts)))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Time all-reduces of many sizes, and check them.",
        epilog="--limit-s is 2 unless given, and counts for each message.",
    )
    parser.add_argument("--engine", default="horovod", help=f"of {','.join(ENGINES)} [horovod]")
    parser.add_argument("--sizes", default="1KiB:1GiB", help="small:large, or a list [1KiB:1GiB]")
    parser.add_argument("--factor", type=int, default=2, help="from a size to the next [2]")
    parser.add_argument("--dtype", default="float32", help=f"of {','.join(DTYPES)} [float32]")
    parser.add_argument("--tensors", default="1", help="how many a message consists of [1]")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="[the GPU, where there is one]")
    parser.add_argument("--result", type=Path, help="rank 0 appends JSON lines to this file")
    add_options(parser)
    parser.set_defaults(limit_s=2.0)
    options = parser.parse_args(arguments)
    try:
        options.engine = listed("engine", options.engine, ENGINES)
        options.dtype = listed("dtype", options.dtype, DTYPES)
        options.tensors = counts(options.tensors)
        options.sizes = sizes_in(options.sizes, options.factor)
        if options.result and not options.result.parent.is_dir():
            raise HvdtoolsError(f"There is no folder {options.result.parent}: make it first.")
    except HvdtoolsError as error:
        parser.error(str(error))
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    # Imported here, so that neither --help nor a wrong option waits for PyTorch.
    from hvdtools.bench.programs.allreduce.measure import measure_all

    try:
        wrong = measure_all(options)
    except HvdtoolsError as error:
        print(f"allreduce: {error}", file=sys.stderr)
        return 2
    # A result file says so itself, and the job that wrote it did what it was asked.
    return 1 if wrong and not options.result else 0


if __name__ == "__main__":
    sys.exit(main())
