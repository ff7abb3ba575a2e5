"""Which way the ranks of a job take to hear where rank 0 listens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import LaunchEnvironment
from hvdtools.rendezvous import pmi, pmix, static
from hvdtools.rendezvous.discovery import Discovery
from hvdtools.rendezvous.file import NamesOrFile, SharedFile


def choose(
    launch_env: LaunchEnvironment, environ: Mapping[str, str], timeout_s: float
) -> Discovery:
    """The first way that this job has; every rank of it chooses the same.

    What the user named comes first, then what carries a message from rank 0 (it needs no
    host names), then a place that every rank can work out.

    Raises:
        HvdtoolsError: There is none.
    """
    token = static.job_token(launch_env, environ)
    if "HVDTOOLS_RENDEZVOUS" in environ:
        return static.given(environ["HVDTOOLS_RENDEZVOUS"], token)
    if launch_env.launcher == "torchrun":
        return static.torchruns(environ, token)
    if pmi.is_there(environ):
        return pmi.Pmi(launch_env, environ, timeout_s)
    if "PMIX_NAMESPACE" in environ:
        library = pmix.find_library(environ)
        if library is not None:
            return pmix.Pmix(library, launch_env, timeout_s)
    if launch_env.launcher == "srun":
        file = SharedFile(Path.cwd(), token)
        return NamesOrFile(static.slurms(environ, token), file, environ.get("SLURMD_NODENAME", ""))
    if not token:
        raise HvdtoolsError(
            f"{launch_env.launcher} started {launch_env.size} ranks, and a program between it and "
            "Python has closed the connection on which they could hear of each other: set "
            "HVDTOOLS_RENDEZVOUS=host:port, with the host of rank 0."
        )
    if launch_env.local_size == launch_env.size:
        return static.here(token)
    return SharedFile(Path.cwd(), token)
