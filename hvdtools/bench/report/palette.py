"""The colors of the page, of engines and of phases, for a light and a dark scheme.

No two that occur in one plot look the same to a color-blind reader, and markers (engines)
or hatches (phases) differ as well. Text has a contrast of at least 4.5 to 1 and a mark one
of 3 to 1, as WCAG 2.2 requires (1.4.3 and 1.4.11). `tests/bench/test_bench_palette.py`
computes all three.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvdtools.bench.suite.engines import look_of

# Name of the CSS variable -> (light, dark).
PAGE = {
    "paper": ("#f8f8f6", "#14161a"),
    "panel": ("#ffffff", "#1c1f24"),
    "ink": ("#1d2127", "#e6e8eb"),
    "soft": ("#5b626d", "#a2a9b4"),
    "line": ("#d9dbde", "#363b43"),
    "accent": ("#0058a3", "#7fb2ff"),
    "alarm": ("#b3261e", "#ff8a80"),
}
MARKS = {
    "hvdtools-mpi": ("#0058a3", "#5b9bff"),
    "hvdtools-gloo": ("#2a97dd", "#8fd3ff"),
    "horovod-mpi": ("#b83a00", "#ff7a45"),
    "horovod-gloo": ("#c48100", "#f2c14e"),
    "framework": ("#007a5a", "#2fbf93"),
    "no_comm": ("#5c6470", "#9aa3af"),
    "other": ("#c2479f", "#e08fd8"),
}
PHASES = {
    "input": ("#c48100", "#f2c14e"),
    "forward": ("#8a94a3", "#6b7482"),
    "backward": ("#636c7a", "#9aa3b0"),
    "communication": ("#c2255c", "#ff6b9d"),
    "optimizer": ("#3a414d", "#d3d9e0"),
}
HATCHES = {"input": "..", "communication": "///"}


@dataclass(frozen=True)
class Mark:
    """How every plot draws an engine.

    Attributes:
        name: Of its color, a key of `MARKS`.
        shape: A matplotlib marker.
        hollow: True where NCCL carries the data.
    """

    name: str
    shape: str
    hollow: bool = False

    @property
    def number(self) -> int:
        """The position of its color in `MARKS`."""
        return list(MARKS).index(self.name)


def mark_of(engine: str) -> Mark:
    """The mark of an engine as it ran: "ddp-gloo" and "ddp-nccl" are both "ddp"."""
    look = look_of(engine)
    return Mark(look.color, look.marker, hollow="nccl" in engine)


def css_variables(dark: bool) -> dict[str, str]:
    """Every color of the page by the name of its CSS variable."""
    marks = {f"mark-{number}": colors for number, colors in enumerate(MARKS.values())}
    phases = {f"phase-{name}": colors for name, colors in PHASES.items()}
    return {name: pair[dark] for name, pair in (PAGE | marks | phases).items()}
