"""Versions that should be the same on all hosts: the outlier is named."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hvdtools.doctor.compare import NONE, Comparison, compare, difference, listed
from hvdtools.doctor.facts import ClusterFacts
from hvdtools.doctor.findings import Finding, error, ok, warning

FRAMEWORKS = ("torch", "tensorflow")
# In the order of the screen.
SUBJECTS = (
    *("hvdtools", "Python", *FRAMEWORKS, "Horovod", "MPI", "NCCL"),
    *("GPUs", "driver", "InfiniBand", "CPU", "kernel"),
)
# Leading version numbers that must agree: 3.11 for the ABI of Python, 5 for that of Open MPI.
_ABI_NUMBERS = {"Python": 2, "MPI": 1}
# Properties of the host: ranks work together even if they differ.
_HOST_PROPERTIES = ("GPUs", "driver", "InfiniBand", "CPU", "kernel")


def compared(cluster: ClusterFacts) -> dict[str, Comparison]:
    """Subject -> its versions, compared between all hosts that answered."""
    return {
        subject: compare(
            {name: facts.versions.get(subject, NONE) for name, facts in cluster.facts.items()}
        )
        for subject in SUBJECTS
    }


def versions(cluster: ClusterFacts) -> Iterator[Finding]:
    """Software and hardware are the same on all hosts, and fit what starts the ranks."""
    if not cluster.facts:
        return
    for subject, found in compared(cluster).items():
        if found.agree:
            yield from _same(subject, found, cluster)
        else:
            yield _different(subject, found, cluster)


def _same(subject: str, found: Comparison, cluster: ClusterFacts) -> Iterator[Finding]:
    text = found.groups[0][0]
    here = cluster.versions_here.get(subject, NONE)
    starts = subject in ("hvdtools", "Python", "MPI")
    if starts and not _compatible(subject, {here, text}):
        yield error(
            subject,
            f"this machine ({cluster.here}), which starts the ranks, has {subject} {here}, the "
            f"hosts {text}",
            f"install {subject} {text} here, or start from one of the hosts",
        )
    elif text != NONE:
        yield ok(subject, f"the same on all {len(cluster.facts)} hosts")


def _different(subject: str, found: Comparison, cluster: ClusterFacts) -> Finding:
    said = difference(subject, found)
    if subject == "GPUs" and len({_count(text) for text, _ in found.groups}) > 1:
        remedy = f"check `nvidia-smi -L` and `dmesg` on {listed(found.outlier_hosts)}"
        return warning(subject, said, remedy)
    if subject in _HOST_PROPERTIES:
        return warning(subject, said)
    if _compatible(subject, {text for text, _ in found.groups}):
        return warning(subject, said)
    if subject == "NCCL" and not any(facts.has_nccl for facts in cluster.facts.values()):
        return warning(subject, said)
    return error(subject, said, _remedy(subject, found))


def _compatible(subject: str, texts: set[str]) -> bool:
    """True if programs of these versions work together."""
    if subject not in _ABI_NUMBERS or NONE in texts:
        return len(texts) == 1
    count = _ABI_NUMBERS[subject]
    return len({_short(text, count) for text in texts}) == 1


def _short(text: str, count: int) -> str:
    """A version up to its number `count`, with the name before it: "Open MPI 5"."""
    found = re.match(rf"\D*\d+(\.\d+){{{count - 1}}}", text)
    return found[0] if found else text


def _count(text: str) -> int:
    return sum(int(number) for number in re.findall(r"(?:^|, )(\d+) x ", text))


def _remedy(subject: str, found: Comparison) -> str:
    where = listed(found.outlier_hosts) if found.usual is not None else "all hosts"
    if subject == "Horovod":
        return f"run `hvdtools build` on {where}"
    known = found.usual not in (None, NONE)
    what = f"{subject} {found.usual}" if known else f"the same version of {subject}"
    again = ", then run `hvdtools build` there" if subject in FRAMEWORKS else ""
    return f"install {what} on {where}{again}"


RULES = (versions,)
