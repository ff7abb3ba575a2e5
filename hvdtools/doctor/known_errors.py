"""Known error messages of programs that fail: what they mean and what to do."""

from __future__ import annotations

import re

# (pattern, meaning, remedy); the first match counts. The meaning may use groups of the pattern.
_RULES = (
    (
        r"undefined symbol|symbol not found|but found version",
        "it was built for another version of the framework",
        "run `hvdtools build --force`",
    ),
    (
        r"SIGILL|Illegal instruction",
        "it was built for another kind of CPU",
        "run `hvdtools build --force` on this kind of machine",
    ),
    (
        r"SIGSEGV|SIGABRT|Segmentation fault",
        "it crashed, probably in a library that was built for another version",
        "run `hvdtools build --force`",
    ),
    (
        r"SIGKILL|[Oo]ut of memory",
        "it was killed, probably because memory ran out",
        "give it more memory, or start fewer ranks",
    ),
    (
        r"(?P<name>lib(?:mpi|open-pal|open-rte)[\w+-]*\.so[\w.]*): cannot open shared object",
        "the MPI that it was built with is missing ({name})",
        "load that MPI again, or run `pip install 'hvdtools[mpi]'` and then `hvdtools build`",
    ),
    (
        r"(?P<name>libnccl\.so[\w.]*): cannot open shared object",
        "NCCL is missing ({name})",
        "install the NCCL that it was built with, or run `hvdtools build`",
    ),
    (
        r"(?P<name>lib(?:tensorflow|torch|c10)\w*\.so[\w.]*): cannot open shared object",
        "it was built for another version of the framework ({name})",
        "run `hvdtools build --force`",
    ),
    (
        r"(?P<name>lib[\w+-]+\.so[\w.]*): cannot open shared object",
        "a library that it needs is missing ({name})",
        "install it, or name its folder in LD_LIBRARY_PATH",
    ),
    (
        r"(?P<name>(?:GLIBCXX|GLIBC|CXXABI)_[\d.]+)' not found",
        "it was built on a newer system ({name})",
        "run `hvdtools build --force` on this machine, or load a newer compiler's libraries",
    ),
    (
        r"No module named '(?P<name>[\w.]+)'",
        "the module {name} is missing",
        "install it with pip, or run `hvdtools build` if it belongs to Horovod",
    ),
    (
        r"has not been built",
        "Horovod was built without it",
        "run `hvdtools build`",
    ),
    (
        r"not enough slots",
        "mpirun counts fewer slots than ranks",
        "start the job with `hvdtools launch --oversubscribe`",
    ),
    (
        r"built without NCCL",
        "Horovod was built without NCCL",
        "run `hvdtools build --gpu nccl`",
    ),
    (
        r"Unable to find (?:address|interface)|No interface is found",
        "Gloo found no network interface with the address of this host",
        "set HOROVOD_GLOO_IFACE to an interface of the network row",
    ),
    (
        r"No space left on device",
        "a disk or /dev/shm is full",
        "free space; in a container, start it with a larger --shm-size",
    ),
    (
        r"NumPy 1\.x cannot be run in|numpy\.dtype size changed",
        "it was built for another NumPy",
        "install the NumPy that it was built for",
    ),
    (
        r"no answer in",
        "it hangs or the disk is very slow",
        "try again; if it hangs again, run it by hand to see where",
    ),
    (
        r"the job has (?P<found>\d+) ranks, not",
        "the ranks did not find one another ({found} instead of all)",
        "use Horovod and mpirun of one installation: run `hvdtools build`",
    ),
)


def explain(complaint: str) -> tuple[str, str]:
    """(meaning, remedy) of an error message; "" for what is unknown."""
    for pattern, meaning, remedy in _RULES:
        if found := re.search(pattern, complaint):
            return meaning.format(**found.groupdict()), remedy
    return "", ""


def shortened(complaint: str, limit: int = 160) -> str:
    """An error message for one line of the screen: files without their folders, not too long."""
    text = re.sub(r"(?<![\w.])/(?:[^\s/:'\"]+/)+", "", complaint)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
