"""Real jobs for the tests: ranks over Gloo on this machine's cores."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from paths import PROGRAMS

from hvdtools.launch import JobSpec, detect_host, make_plan, run


@dataclass(frozen=True)
class Job:
    """How a job of several ranks ended.

    Attributes:
        exit_code: 0, or that of the first rank that failed.
        lines: (rank, or None for the launcher; line) of both streams, in order of arrival.
    """

    exit_code: int
    lines: tuple[tuple[int | None, str], ...]

    @property
    def text(self) -> str:
        return "\n".join(f"[{'' if rank is None else rank}] {line}" for rank, line in self.lines)

    def of(self, rank: int) -> list[str]:
        return [line for whose, line in self.lines if whose == rank]


StartJob = Callable[..., Job]


def start_job(
    ranks: int,
    program: str,
    *arguments: object,
    env: Mapping[str, str] = MappingProxyType({}),
    launcher: str = "mpirun",
    timeout_s: float = 300,
) -> Job:
    """Run `ranks/programs/<program>` in `ranks` ranks over Gloo and wait for its end."""
    lines: list[tuple[int | None, str]] = []
    spec = JobSpec(
        command=(sys.executable, str(PROGRAMS / program), *map(str, arguments)),
        ranks=ranks,
        launcher=launcher,
        # One thread a rank: these machines have fewer cores than the tests have ranks.
        env=(("OMP_NUM_THREADS", "1"), ("HOROVOD_CONTROLLER", "gloo"), *env.items()),
        oversubscribe=True,
    )
    outcome = run(
        make_plan(spec, detect_host()),
        on_line=lambda rank, stream, line: lines.append((rank, line)),
        timeout_s=timeout_s,
    )
    return Job(outcome.exit_code, tuple(lines))


def check_names(program: str) -> list[str]:
    """The `check_*` functions of `ranks/programs/<program>`, without running it."""
    return re.findall(r"^def (check_\w+)", (PROGRAMS / program).read_text(), re.MULTILINE)
