"""Which way the ranks of a job take to hear where rank 0 listens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hvdtools.errors import HvdtoolsError
from hvdtools.rendezvous import known, pmi, pmix
from hvdtools.rendezvous.file import NamesOrFile, SharedFile
from hvdtools.rendezvous.way import Way
from hvdtools.topology import Promise


def choose(promise: Promise, environ: Mapping[str, str], timeout_s: float) -> Way:
    """The first way that this job has; every rank of it chooses the same.

    What the user named comes first, then what carries a message from rank 0 (it needs no
    host names), then a place that every rank can work out.

    Raises:
        HvdtoolsError: There is none.
    """
    token = known.job_token(promise, environ)
    if "HVDTOOLS_RENDEZVOUS" in environ:
        return known.given(environ["HVDTOOLS_RENDEZVOUS"], token)
    if promise.starter == "torchrun":
        return known.torchruns(environ, token)
    if pmi.is_there(environ):
        return pmi.Pmi(promise, environ, timeout_s)
    if "PMIX_NAMESPACE" in environ:
        library = pmix.find_library(environ)
        if library is not None:
            return pmix.Pmix(library, promise, timeout_s)
    if promise.starter == "srun":
        file = SharedFile(Path.cwd(), token)
        return NamesOrFile(known.slurms(environ, token), file, environ.get("SLURMD_NODENAME", ""))
    if not token:
        raise HvdtoolsError(
            f"{promise.starter} started {promise.size} ranks, and a program between it and Python "
            "has closed the connection on which they could hear of each other: set "
            "HVDTOOLS_RENDEZVOUS=host:port, with the host of rank 0."
        )
    if promise.local_size == promise.size:
        return known.here(token)
    return SharedFile(Path.cwd(), token)
