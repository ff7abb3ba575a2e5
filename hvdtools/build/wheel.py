"""Carries out a plan: builds the wheel unless it is kept, installs it and records its key."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtools.build.console import show_progress
from hvdtools.build.diagnose import diagnose
from hvdtools.build.plan import BuildPlan, Step
from hvdtools.build.programs import run_logged, scrubbed
from hvdtools.build.sdist import Sdist, sha256
from hvdtools.core import installed
from hvdtools.core.errors import HvdtoolsError

if TYPE_CHECKING:
    from rich.console import Console


def prepare_wheel(plan: BuildPlan, sdist: Sdist, *, force: bool, console: Console) -> None:
    """Make sure that `plan.wheel` exists; installs only requirements and build tools.

    A kept wheel is used unchanged, unless `force` requests a new one.

    Raises:
        HvdtoolsError: A step failed; the lines of the log that say why are printed first.
    """
    with _locked(plan):
        build = force or not plan.wheel.exists()
        for step in plan.steps[:-1]:
            if step.when == "build" and not build:
                continue
            _run(step, plan, console)
            if step.downloads and sha256(sdist.path) != sdist.sha256:
                sdist.path.unlink()
                raise HvdtoolsError(
                    f"The download of Horovod {sdist.version} does not have the SHA-256 of the "
                    "release: try again, or give the archive with --sdist."
                )


@contextlib.contextmanager
def keep_only_if_it_works(plan: BuildPlan) -> Iterator[None]:
    """On failure, remove the wheel from the cache, so that the next run builds it again.

    It moves back to where it was built, next to the log, for inspection.
    """
    try:
        yield
    except HvdtoolsError:
        plan.built.parent.mkdir(parents=True, exist_ok=True)
        plan.wheel.replace(plan.built)
        raise


def install_wheel(plan: BuildPlan, console: Console) -> None:
    """Install the wheel of the plan, in place of any installed Horovod.

    Raises:
        HvdtoolsError: pip failed.
    """
    _run(plan.steps[-1], plan, console)


def _run(step: Step, plan: BuildPlan, console: Console) -> None:
    environment = {**scrubbed(os.environ, ("HOROVOD_",)), **plan.environment}
    begin = plan.log.stat().st_size if plan.log.exists() else 0
    with show_progress(console, step.title[0].upper() + step.title[1:]) as feed:
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
def _locked(plan: BuildPlan) -> Iterator[None]:
    """Lets the second of two simultaneous builds of one wheel wait for the first."""
    try:
        plan.log.parent.mkdir(parents=True, exist_ok=True)
        with (plan.log.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            plan.log.write_text("")
            yield
    except PermissionError as error:
        raise HvdtoolsError(
            f"{error.filename} cannot be written: set XDG_CACHE_HOME to a writable folder."
        ) from None


def cache_folder() -> Path:
    """Where wheels and logs are kept: $XDG_CACHE_HOME/hvdtools, else ~/.cache/hvdtools."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hvdtools"


def installed_key() -> str | None:
    """The key of the wheel of the installed Horovod; None if another tool built it."""
    key = installed.note().get("key")
    return str(key) if key else None


def record(plan: BuildPlan, site: Path) -> None:
    """Record the key and facts of the plan in the Horovod that is installed in `site`.

    The RECORD file of pip lists this note, so that it is removed together with this Horovod.
    """
    (distribution,) = importlib.metadata.distributions(name="horovod", path=[str(site)])
    note = {"key": plan.key, "facts": plan.facts}
    (site / "horovod" / installed.NOTE).write_text(json.dumps(note, indent=2) + "\n")
    record = site / f"horovod-{distribution.version}.dist-info" / "RECORD"
    with record.open("a") as file:
        file.write(f"horovod/{installed.NOTE},,\n")
    refresh()


def refresh() -> None:
    """Drop what is cached about the installed Horovod: an install has changed it."""
    installed.find.cache_clear()
    importlib.invalidate_caches()


def _own_paths(site: Path) -> list[Path]:
    """Top folders and scripts of the Horovod in `site`; [] if there is none.

    pip does not replace a Horovod that is visible from outside, as in the base of a virtual
    environment, and neither do we.
    """
    found = importlib.metadata.distributions(name="horovod", path=[str(site)])
    files = [Path(str(file)) for each in found for file in each.files or ()]
    tops = {file if file.parts[0] == ".." else Path(file.parts[0]) for file in files}
    return [path for path in {(site / top).resolve() for top in tops} if path.exists()]


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


@contextlib.contextmanager
def restore_on_failure(site: Path) -> Iterator[None]:
    """On failure, restore the Horovod that was in `site` before; leave none if there was none."""
    before = _own_paths(site)
    with tempfile.TemporaryDirectory(prefix="hvdtools-") as folder:
        copies = [(path, Path(folder) / str(number)) for number, path in enumerate(before)]
        for path, copy in copies:
            _copy(path, copy)
        try:
            yield
        except BaseException:
            refresh()
            for path in _own_paths(site):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path, copy in copies:
                _copy(copy, path)
            refresh()
            raise
