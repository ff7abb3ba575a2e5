"""Run in every rank: the checks of several programs, one after another, in one Horovod session.

Usage: rank_session.py FOLDER

FOLDER/plan.json lists [program, check, limit in seconds] in the order of running. A program is a
module beside this one; its checks are its `check_*` functions and the entries of its `CHECKS`.
Each rank appends one JSON line for each check to FOLDER/rank<r>.jsonl and keeps files of its
own in FOLDER, which the programs find in CHECK_FOLDER.

A check that fails on a rank ends the session there and then: the ranks may no longer agree on what
comes next. So does one that exceeds its limit, after a traceback of every thread. The checks that
are left are another session's (`rank_sessions.py` starts it).
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from hvdtools.core import preemption
from hvdtools.core.topology import read_launch_environment


class ProcessState:
    """What a check could leave behind for the next one: global settings, not objects."""

    def __init__(self) -> None:
        self.environ = dict(os.environ)
        self.folder = Path.cwd()
        self.log_level = logging.getLogger("hvdtools").level
        self.torch, self.keras = sys.modules.get("torch"), sys.modules.get("keras")
        if self.torch:
            self.default_dtype = self.torch.get_default_dtype()
            self.default_device = self.torch.get_default_device()
            self.threads = self.torch.get_num_threads()
        if self.keras:
            # Not its dtype policy: to ask for that sets it, and set_floatx() no longer changes it.
            self.floatx = self.keras.config.floatx()

    def restore(self) -> None:
        os.environ.clear()
        os.environ.update(self.environ)
        os.chdir(self.folder)
        preemption._received.clear()
        logging.getLogger("hvdtools").setLevel(self.log_level)
        if self.torch:
            self.torch.set_default_dtype(self.default_dtype)
            self.torch.set_default_device(self.default_device)
            self.torch.set_num_threads(self.threads)
        if self.keras:
            self.keras.config.set_floatx(self.floatx)
            self.keras.config.set_dtype_policy(self.floatx)


def checks_of(module: ModuleType) -> dict[str, Callable[[], object]]:
    found = {name: value for name, value in vars(module).items() if name.startswith("check_")}
    return {**found, **getattr(module, "CHECKS", {})}


def run(check: Callable[[], object], limit_s: float) -> dict[str, Any]:
    """What became of the check: {"outcome": "ok" or its traceback, "seconds": how long it took}."""
    faulthandler.dump_traceback_later(limit_s, exit=True)
    began_s = time.perf_counter()
    try:
        check()
        outcome = "ok"
    except Exception:
        outcome = traceback.format_exc()
    finally:
        faulthandler.cancel_dump_traceback_later()
    return {"outcome": outcome, "seconds": time.perf_counter() - began_s}


def main(folder: Path) -> None:
    rank = read_launch_environment(os.environ).rank
    os.environ["CHECK_FOLDER"] = str(folder)
    plan = json.loads((folder / "plan.json").read_text())
    # All of them before the first check: TensorFlow's threads are fixed by its first operation.
    modules, states = {}, {}
    for name in dict.fromkeys(name for name, *_ in plan):
        modules[name] = importlib.import_module(name)
        states[name] = ProcessState()
    with (folder / f"rank{rank}.jsonl").open("a") as results:
        for name, check, limit_s in plan:
            states[name].restore()
            print(f"{name}::{check}", flush=True)  # whose output the next lines are
            result = run(checks_of(modules[name])[check], limit_s)
            results.write(json.dumps({"check": f"{name}::{check}", **result}) + "\n")
            results.flush()
            if result["outcome"] != "ok":
                sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
