"""Run in every rank: meet the others, without a framework and so within a second.

    python tests/rank_rendezvous_alone.py [twice] [absent] [sleep=SECONDS] [train]

Prints one line of JSON: Horovod's variables, or what was refused, and how long it took.
`absent` never comes to the meeting; `twice` meets once more, as for a second framework.
"""

from __future__ import annotations

import json
import os
import sys
import time

from hvdtools import rendezvous
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import read_launch_environment


def meet() -> dict[str, object]:
    start = time.monotonic()
    try:
        launch_env = read_launch_environment(os.environ)
        rendezvous.apply_named_interface(os.environ)
        rendezvous.prepare_gloo(launch_env, os.environ)
    except HvdtoolsError as error:
        return {"refused": str(error), "took_s": time.monotonic() - start}
    took_s = time.monotonic() - start
    seen = {name: value for name, value in os.environ.items() if name.startswith("HOROVOD_")}
    # What a second start of Horovod, or a child, would take itself for.
    after = read_launch_environment(os.environ)
    assert after == launch_env, (after, launch_env)
    return {"launcher": launch_env.launcher, "took_s": took_s, **seen}


def main(arguments: list[str]) -> None:
    for argument in arguments:
        if argument.startswith("sleep="):
            time.sleep(float(argument.removeprefix("sleep=")))
    if "absent" in arguments:
        time.sleep(5)
        return
    for _ in range(1 + ("twice" in arguments)):
        seen = meet()
        # In one piece: launchers mix the lines of ranks.
        sys.stdout.write(f"SEEN {json.dumps(seen)}\n")
        sys.stdout.flush()
    # Horovod would start now and keep rank 0 here until all have read the book.
    time.sleep(1)
    if "refused" in seen:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
