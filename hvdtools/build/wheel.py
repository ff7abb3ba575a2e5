"""Carry a plan out: build the wheel if none is kept, and install it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtools.build.diagnose import diagnose
from hvdtools.build.plan import BuildPlan, Step
from hvdtools.build.progress import shown
from hvdtools.build.run_logged import run_logged, scrubbed
from hvdtools.build.sdist import Sdist, sha256
from hvdtools.core.errors import HvdtoolsError

if TYPE_CHECKING:
    from rich.console import Console


def prepare_wheel(plan: BuildPlan, sdist: Sdist, *, force: bool, console: Console) -> None:
    """Leave the plan's wheel at `plan.wheel`; nothing installed is touched but build tools.

    A kept wheel is taken as it is, unless `force` asks for a new one.

    Raises:
        HvdtoolsError: A step failed; the telling lines of the log are printed first.
    """
    with _alone(plan):
        build = force or not plan.wheel.exists()
        for step in plan.steps[:-1]:
            if step.when == "build" and not build:
                continue
            _run(step, plan, console)
            if step.downloads and sha256(sdist.path) != sdist.sha256:
                sdist.path.unlink()
                raise HvdtoolsError(
                    f"The download of Horovod {sdist.version} is not the file that was released: "
                    "try again, or give the archive with --sdist."
                )


@contextlib.contextmanager
def keep_only_if_it_works(plan: BuildPlan) -> Iterator[None]:
    """If what follows fails, the wheel leaves the store: the next run builds anew.

    It goes back to where it was built, beside the log, for whoever looks into it.
    """
    try:
        yield
    except HvdtoolsError:
        plan.built.parent.mkdir(parents=True, exist_ok=True)
        plan.wheel.replace(plan.built)
        raise


def install_wheel(plan: BuildPlan, console: Console) -> None:
    """Install the plan's wheel over whatever Horovod is there.

    Raises:
        HvdtoolsError: pip failed.
    """
    _run(plan.steps[-1], plan, console)


def _run(step: Step, plan: BuildPlan, console: Console) -> None:
    environment = {**scrubbed(os.environ, ("HOROVOD_",)), **plan.environment}
    begin = plan.log.stat().st_size if plan.log.exists() else 0
    with shown(console, step.title[0].upper() + step.title[1:]) as feed:
        status = run_logged(step.argv, environment, plan.log, feed)
    if status == 0:
        return
    with plan.log.open(errors="replace") as log:
        log.seek(begin)
        found = diagnose(log.read())
    for line in found.lines:
        console.print(f"  {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise HvdtoolsError(
        f"Could not {step.title.split(':')[0]}. {found.advice} The full log is {plan.log}."
    )


@contextlib.contextmanager
def _alone(plan: BuildPlan) -> Iterator[None]:
    """Two builds of one wheel at a time would write over each other: the second waits."""
    try:
        plan.log.parent.mkdir(parents=True, exist_ok=True)
        with (plan.log.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            plan.log.write_text("")
            yield
    except PermissionError as error:
        raise HvdtoolsError(
            f"{error.filename} cannot be written: point XDG_CACHE_HOME at a folder of yours."
        ) from None


def cache_folder() -> Path:
    """Where wheels and logs are kept: $XDG_CACHE_HOME/hvdtools, else ~/.cache/hvdtools."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hvdtools"
