"""What is asked of Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass

from hvdtools.launch.option import Option

_ON = ("kubernetes",)


@dataclass(frozen=True)
class Kubernetes:
    """An MPIJob. Field by field as in `OPTIONS`; None leaves it out."""

    namespace: str | None = None


OPTIONS = (Option("namespace", str, "The namespace of the job.", "Kubernetes", "NAME", _ON),)
