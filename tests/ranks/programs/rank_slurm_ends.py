"""Run in every rank: ends as it is told, with no framework to load.

rank_slurm_ends.py words FOLDER ...     writes what it sees to FOLDER/RANK.json
rank_slurm_ends.py fails RANK CODE      RANK ends with CODE, the others before it with 1
rank_slurm_ends.py dies FOLDER          knows no signal; is done when started again
rank_slurm_ends.py in-turn FOLDER ...   ends with the first code, when started again with the
                                        second, and so on
rank_slurm_ends.py stays                ignores SIGTERM, as its child does
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from hvdtools.core.topology import read_launch_environment

RANK = read_launch_environment(os.environ).rank
SEEN = ("CUDA_VISIBLE_DEVICES", "HVDTOOLS_SIZE", "HVDTOOLS_NODES", "HVDTOOLS_SIGNAL", "HOSTILE")


def words(folder: str, *others: str) -> None:
    found = {name: os.environ.get(name) for name in SEEN}
    found |= {"host": socket.gethostname(), "words": others}
    print(f"rank {RANK} is here", flush=True)
    print(f"rank {RANK} complains", file=sys.stderr, flush=True)
    Path(folder, f"{RANK}.json").write_text(json.dumps(found))


def fails(rank: str, code: str) -> None:
    if int(rank) == RANK:
        time.sleep(1)
        if int(code) > 128:
            os.kill(os.getpid(), int(code) - 128)
        sys.exit(int(code))
    if RANK != 0:
        raise ConnectionError("a peer went away")
    time.sleep(60)


def dies(folder: str) -> None:
    been_here = Path(folder, f"{RANK}.started")
    if not been_here.exists():
        subprocess.Popen(["sleep", "600"])  # holds the rank's output
        been_here.touch()
        time.sleep(60)


def in_turn(*codes: str) -> None:
    sys.exit(int(codes[int(os.environ.get("SLURM_RESTART_COUNT", "0"))]))


def stays() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"])
    print("stays", flush=True)
    child.wait()


if __name__ == "__main__":
    globals()[sys.argv[1].replace("-", "_")](*sys.argv[2:])
