"""Rank sessions: one Horovod job for all checks of a framework on a number of ranks.

A launch and a framework's start cost seconds and most checks cost milliseconds, so checks of many
programs share a job (`rank_session.py` runs in it). A test names its check by the parameter
`rank_check` and asks `run_rank_check` for it. The session begins with the first such test and runs
the checks of all the tests that were selected, so a test can be run alone.

With `--reverse-checks` they run in reversed order, since a shared process can hide state.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jobs import check_names, start_job

LIMIT_S = 180.0  # of one check, on cores that others use, too
# A session that a failed check ended is followed by another with the rest, but not for ever.
MAX_SESSIONS = 6


@dataclass(frozen=True)
class RankCheck:
    """A check, and the session it runs in.

    Attributes:
        framework: "torch" or "tensorflow"; a session has one.
        ranks: How many.
        program: A module in ranks/programs.
        check: The name of a `check_*` function in it, or a key of its `CHECKS`.
    """

    framework: str
    ranks: int
    program: str
    check: str

    @property
    def session(self) -> tuple[str, int]:
        return self.framework, self.ranks

    @property
    def key(self) -> str:
        return f"{self.program}::{self.check}"

    def __str__(self) -> str:
        program, check = self.program.removeprefix("rank_"), self.check.removeprefix("check_")
        return f"{self.framework}-{self.ranks}-{program}-{check}"


def rank_checks(framework: str, ranks: int, program: str) -> list[RankCheck]:
    """Every `check_*` function of a program, in a session of that many ranks."""
    return [RankCheck(framework, ranks, program, name) for name in check_names(f"{program}.py")]


@dataclass(frozen=True)
class Outcome:
    """What became of a check.

    Attributes:
        failure: What went wrong, rank by rank; empty if nothing did.
        seconds: How long the slowest rank took; the first check has the session's start as well.
        folder: Where the check's program kept its files.
    """

    failure: str
    seconds: float
    folder: Path


class RankSessions:
    """Runs sessions as they are asked for, and keeps what came of their checks."""

    def __init__(self, selected: list[RankCheck], make_folder: Callable[[str], Path]) -> None:
        self.selected = selected
        self.make_folder = make_folder
        self.outcomes: dict[RankCheck, Outcome] = {}

    def outcome(self, check: RankCheck) -> Outcome:
        if check not in self.outcomes:
            self._run([other for other in self.selected if other.session == check.session])
        return self.outcomes[check]

    def _run(self, checks: list[RankCheck]) -> None:
        """Run these of one session, the rest anew after each that failed."""
        for _ in range(MAX_SESSIONS):
            checks = self._run_until_a_failure(checks)
            if not checks:
                return
        for check in checks:
            why = f"not run: {MAX_SESSIONS} sessions were ended by checks that failed"
            self.outcomes[check] = Outcome(why, 0.0, Path())

    def _run_until_a_failure(self, checks: list[RankCheck]) -> list[RankCheck]:
        """The checks that are left."""
        framework, ranks = checks[0].session
        folder = self.make_folder(f"{framework}-{ranks}")
        plan = [(check.program, check.check, LIMIT_S) for check in checks]
        (folder / "plan.json").write_text(json.dumps(plan))
        began_s = time.monotonic()
        job = start_job(
            ranks,
            "rank_session.py",
            folder,
            launcher="mpirun",
            timeout_s=60 + LIMIT_S * len(checks),
        )
        start_s = time.monotonic() - began_s
        results = [_results(folder / f"rank{rank}.jsonl") for rank in range(ranks)]
        for number, check in enumerate(checks):
            found = [of_rank.get(check.key) for of_rank in results]
            failure = "\n".join(
                f"rank {rank}: {'did not finish it' if one is None else one['outcome']}"
                for rank, one in enumerate(found)
                if one is None or one["outcome"] != "ok"
            )
            if failure:
                failure += f"\nexit code {job.exit_code}; the session's last lines:\n"
                failure += "\n".join(job.text.splitlines()[-60:])
            seconds = max((one["seconds"] for one in found if one), default=0.0)
            self.outcomes[check] = Outcome(failure, seconds, folder)
            start_s -= seconds
            if failure and checks[0].key not in job.text:
                return self._never_began(checks, failure)
            if failure:
                return checks[number + 1 :]
        first = self.outcomes[checks[0]]
        self.outcomes[checks[0]] = Outcome(first.failure, first.seconds + start_s, folder)
        if job.exit_code:
            last = self.outcomes[checks[-1]]
            failure = f"every check was right, and then:\n{job.text}"
            self.outcomes[checks[-1]] = Outcome(failure, last.seconds, last.folder)
        return []

    def _never_began(self, checks: list[RankCheck], failure: str) -> list[RankCheck]:
        self.outcomes |= {check: Outcome(failure, 0.0, Path()) for check in checks}
        return []


def _results(file: Path) -> dict[str, Any]:
    lines = file.read_text().splitlines() if file.exists() else []
    return {record["check"]: record for record in map(json.loads, lines)}


@pytest.fixture(scope="session")
def _rank_sessions(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> RankSessions:
    selected = [
        item.callspec.params["rank_check"]
        for item in request.session.items
        if "rank_check" in getattr(getattr(item, "callspec", None), "params", {})
    ]
    if request.config.getoption("--reverse-checks"):
        selected.reverse()
    return RankSessions(selected, lambda name: tmp_path_factory.mktemp(name))


@pytest.fixture
def run_rank_check(
    request: pytest.FixtureRequest, _rank_sessions: RankSessions
) -> Callable[[RankCheck], Outcome]:
    """Run a check in its session; fails the test if the check did."""

    def run(check: RankCheck) -> Outcome:
        outcome = _rank_sessions.outcome(check)
        request.node.user_properties.append(("duration_s", outcome.seconds))
        if outcome.failure:
            pytest.fail(outcome.failure, pytrace=False)
        return outcome

    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--reverse-checks",
        action="store_true",
        help="run the checks of each rank session in reversed order",
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show among `--durations` what a check took in its ranks, not which test came first."""
    result = yield
    report = result.get_result()  # type: ignore[attr-defined]
    duration_s = dict(item.user_properties).get("duration_s")
    if report.when == "call" and duration_s is not None:
        report.duration = duration_s
