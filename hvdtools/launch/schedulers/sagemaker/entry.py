"""The entry point of a SageMaker container: starts this host's ranks and waits for them.

Run on every host: `python -m hvdtools.launch.schedulers.sagemaker.entry --ranks-per-node N
[--interface NAME] -- PROGRAM ...`. There is no ssh between the hosts: each starts its own
ranks, and hvdtools' init() brings all of them together by the variables that torchrun would
set. Its exit code is that of the rank that failed first; SageMaker then ends the other hosts.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.schedulers.sagemaker.host import read_host, variables, wait_for_names
from hvdtools.launch.schedulers.sagemaker.local_ranks import run_ranks

ML = Path("/opt/ml")
# CreateTrainingJob's FailureReason shows so many characters of the file.
_REASON_LENGTH = 1024


def main(words: Sequence[str], ml: Path = ML) -> int:
    """Start the ranks and return the exit code.

    Args:
        words: The command line.
        ml: The folder through which SageMaker and a container speak.
    """
    split = list(words).index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(prog="python -m hvdtools.launch.schedulers.sagemaker.entry")
    parser.add_argument("--ranks-per-node", type=int, required=True)
    parser.add_argument("--interface")
    asked = parser.parse_args(words[:split])
    command = list(words[split + 1 :])
    if not command or asked.ranks_per_node < 1:
        parser.error("say how many ranks, and behind -- what they run.")
    try:
        host = read_host(ml / "input" / "config" / "resourceconfig.json")
        if asked.interface is not None:
            host = replace(host, interface=asked.interface)
        wait_for_names(host)
        # What the job's Environment says wins.
        environments = [
            {**variables(host, asked.ranks_per_node, local_rank), **os.environ}
            for local_rank in range(asked.ranks_per_node)
        ]
        code, reason = run_ranks(command, environments)
    except HvdtoolsError as error:
        code, reason = 2, str(error)
    if code != 0:
        print(f"hvdtools: {reason}", file=sys.stderr, flush=True)
        _write_failure(ml / "output" / "failure", reason)
    return code


def _write_failure(file: Path, reason: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(reason[-_REASON_LENGTH:], encoding="utf-8", errors="replace")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
