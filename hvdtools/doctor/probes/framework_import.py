"""Imports a framework, and Horovod for it, in a separate Python process, which may crash."""

from __future__ import annotations

import os
import re
import signal
import sys

from hvdtools.build.programs import Answer, query
from hvdtools.core.errors import TIMED_OUT
from hvdtools.doctor.facts import FrameworkImport

# A framework on a network disk can take a minute the first time.
LIMIT_S = 120

# `horovod.torch` hides the error of a missing library; its `mpi_ops` does not. The working folder
# is not on the path, so that a file in it is not imported as the framework. `os._exit` saves the
# time that frameworks take to unload.
_CHILD = """
import os, sys
sys.path[:] = [folder for folder in sys.path if folder]
framework, *modules = sys.argv[1:]
for module in (framework, *modules):
    print("hvdtools-import", module, flush=True)
    __import__(module)
root = sys.modules[framework]
if framework == "torch":
    count = root.cuda.device_count()
else:
    count = len(root.config.list_physical_devices("GPU"))
print("hvdtools-gpus", count, flush=True)
os._exit(0)
"""
_ERROR = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Za-z_]\w*(?:Error|Exception|Exit)\b.*")


def try_import(framework: str, *, with_horovod: bool) -> FrameworkImport:
    """Import the framework and, if requested, Horovod for it."""
    modules = [f"horovod.{framework}.mpi_ops"] if with_horovod else []
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    argv = [sys.executable, "-c", _CHILD, framework, *modules]
    answer = query(argv, LIMIT_S, environment)
    assert answer is not None, f"{sys.executable} does not start"
    return read(framework, answer)


def read(framework: str, answer: Answer) -> FrameworkImport:
    """The output of the process that imported them, as a value."""
    lines = [line.strip() for line in answer.text.splitlines() if line.strip()]
    reached = [line.split()[1] for line in lines if line.startswith("hvdtools-import ")]
    counted = [line.split()[1] for line in lines if line.startswith("hvdtools-gpus ")]
    if answer.status == 0 and counted:
        return FrameworkImport(framework, gpus=int(counted[0]))
    module = reached[-1].removesuffix(".mpi_ops") if reached else framework
    return FrameworkImport(framework, module, _complaint(answer.status, lines), gpus=None)


def _complaint(status: int, lines: list[str]) -> str:
    if status == TIMED_OUT:
        return f"no answer in {LIMIT_S} s"
    if status < 0:
        return f"it was ended by signal {-status} ({signal.Signals(-status).name})"
    errors = [line for line in lines if _ERROR.match(line)]
    said = [line for line in lines if not line.startswith("hvdtools-")]
    return (errors or said or [f"it ended with exit status {status}"])[-1]
