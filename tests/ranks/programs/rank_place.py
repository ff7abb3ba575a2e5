"""Run in every rank: says where it was started, without a framework and so within a second.

    rank_place.py [FAILING_RANK EXIT_CODE]

Each rank prints one JSON object: its host, and what its launcher promises about its place.
"""

from __future__ import annotations

import json
import os
import socket
import sys

from hvdtools.core.topology import read_launch_environment


def main(failing: int = -1, code: int = 0) -> None:
    launch_env = read_launch_environment(os.environ)
    place = {
        "host": socket.gethostname(),
        "rank": launch_env.rank,
        "size": launch_env.size,
        "local_rank": launch_env.local_rank,
        "local_size": launch_env.local_size,
    }
    print(json.dumps(place), flush=True)
    if launch_env.rank == failing:
        print("these are my last words", file=sys.stderr, flush=True)
        os._exit(code)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
