"""Run in every rank: says where it was started, without a framework and so within a second.

    rank_place.py [FAILING_RANK EXIT_CODE]

Each rank prints one JSON object: its host, and what its launcher promises about its place.
"""

from __future__ import annotations

import json
import os
import socket
import sys

from hvdtools.topology import promised


def main(failing: int = -1, code: int = 0) -> None:
    promise = promised(os.environ)
    place = {
        "host": socket.gethostname(),
        "rank": promise.rank,
        "size": promise.size,
        "local_rank": promise.local_rank,
        "local_size": promise.local_size,
    }
    print(json.dumps(place), flush=True)
    if promise.rank == failing:
        print("these are my last words", file=sys.stderr, flush=True)
        os._exit(code)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
