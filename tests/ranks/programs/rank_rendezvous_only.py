"""Run in every rank: the rendezvous without a framework, which takes less than a second.

    rank_rendezvous_only.py [twice] [absent] [sleep=SECONDS]

Prints one line of JSON: Horovod's variables, or the error, and the time that it took.
With `absent` the rank does not take part; with `twice` there are two rendezvous, as for a
second framework.
"""

from __future__ import annotations

import json
import os
import sys
import time

from hvdtools import rendezvous
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import read_launch_environment


def run_rendezvous() -> dict[str, object]:
    start = time.monotonic()
    try:
        launch_env = read_launch_environment(os.environ)
        rendezvous.apply_named_interface(os.environ)
        rendezvous.prepare_gloo(launch_env, os.environ)
    except HvdtoolsError as error:
        return {"refused": str(error), "took_s": time.monotonic() - start}
    took_s = time.monotonic() - start
    seen = {name: value for name, value in os.environ.items() if name.startswith("HOROVOD_")}
    # A second start of Horovod, or a child process, must read the same.
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
        seen = run_rendezvous()
        # In one write: launchers interleave the output of ranks.
        sys.stdout.write(f"SEEN {json.dumps(seen)}\n")
        sys.stdout.flush()
    # Horovod would start now, and keep rank 0 here until all have read the membership.
    time.sleep(1)
    if "refused" in seen:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
