"""Findings about what should be the same on all hosts: the odd one out is named."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hvdtools.doctor.cluster.compare import NONE, Comparison, compare, difference_in_words, listed
from hvdtools.doctor.cluster.facts import Cluster
from hvdtools.doctor.finding import Finding, error, ok, warning

FRAMEWORKS = ("torch", "tensorflow")
# In the order of the screen.
SUBJECTS = (
    *("hvdtools", "Python", *FRAMEWORKS, "Horovod", "MPI", "NCCL"),
    *("GPUs", "driver", "InfiniBand", "CPU", "kernel"),
)
# Patch releases of these go together: Python's ABI is that of 3.11, Open MPI's that of 5.
_NUMBERS_THAT_COUNT = {"Python": 2, "MPI": 1}
# Of the host, not of what is installed: ranks work together all the same.
_OF_THE_HOST = ("GPUs", "driver", "InfiniBand", "CPU", "kernel")


def compared(cluster: Cluster) -> dict[str, Comparison]:
    """Subject -> its texts on all hosts that answered."""
    return {
        subject: compare(
            {name: facts.versions.get(subject, NONE) for name, facts in cluster.facts.items()}
        )
        for subject in SUBJECTS
    }


def examine_versions(cluster: Cluster) -> Iterator[Finding]:
    """One finding for each subject that differs, and for each that some host has."""
    if not cluster.facts:
        return
    for subject, found in compared(cluster).items():
        if found.agree:
            yield from _same(subject, found, cluster)
        else:
            yield _different(subject, found, cluster)


def _same(subject: str, found: Comparison, cluster: Cluster) -> Iterator[Finding]:
    text = found.groups[0][0]
    here = cluster.versions_here.get(subject, NONE)
    starts = subject in ("hvdtools", "Python", "MPI")
    if starts and not _fit(subject, {here, text}):
        yield error(
            subject,
            f"this machine ({cluster.here}), which starts the ranks, has {subject} {here}, the "
            f"hosts {text}",
            f"install {subject} {text} here, or start from one of the hosts",
        )
    elif text != NONE:
        yield ok(subject, f"the same on {_all(cluster)}")


def _all(cluster: Cluster) -> str:
    return f"all {len(cluster.facts)} hosts"


def _different(subject: str, found: Comparison, cluster: Cluster) -> Finding:
    said = difference_in_words(subject, found)
    if subject == "GPUs" and len({_count(text) for text, _ in found.groups}) > 1:
        remedy = f"look at `nvidia-smi -L` and at `dmesg` on {listed(found.odd_hosts)}"
        return warning(subject, said, remedy)
    if subject in _OF_THE_HOST:
        return warning(subject, said)
    if _fit(subject, {text for text, _ in found.groups}):
        return warning(subject, said)
    if subject == "NCCL" and not any(facts.nccl for facts in cluster.facts.values()):
        return warning(subject, said)
    return error(subject, said, _remedy(subject, found))


def _fit(subject: str, texts: set[str]) -> bool:
    """True if programs with these texts go together."""
    if subject not in _NUMBERS_THAT_COUNT or NONE in texts:
        return len(texts) == 1
    count = _NUMBERS_THAT_COUNT[subject]
    return len({_short(text, count) for text in texts}) == 1


def _short(text: str, count: int) -> str:
    """The first `count` numbers of a version, with what stands before: "Open MPI 5"."""
    found = re.match(rf"\D*\d+(\.\d+){{{count - 1}}}", text)
    return found[0] if found else text


def _count(text: str) -> int:
    return sum(int(number) for number in re.findall(r"(?:^|, )(\d+) x ", text))


def _remedy(subject: str, found: Comparison) -> str:
    where = listed(found.odd_hosts) if found.usual is not None else "all hosts"
    if subject == "Horovod":
        return f"run `hvdtools build` on {where}"
    version = found.usual if found.usual not in (None, NONE) else "of one version"
    again = ", then run `hvdtools build` there" if subject in FRAMEWORKS else ""
    return f"install {subject} {version} on {where}{again}"
