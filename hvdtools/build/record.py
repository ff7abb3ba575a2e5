"""Which wheel the installed Horovod came from, and a way back to it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hvdtools.build.plan import BuildPlan
from hvdtools.core import installed


def installed_key() -> str | None:
    """The key of the wheel that the installed Horovod came from; None if not from one of ours."""
    key = installed.note().get("key")
    return str(key) if key else None


def write(plan: BuildPlan, site: Path) -> None:
    """Note the plan's key and facts in the Horovod that lies in the folder `site`.

    pip's RECORD names the note too, so that it goes when Horovod is
    uninstalled or another build of it takes its place.
    """
    (distribution,) = importlib.metadata.distributions(name="horovod", path=[str(site)])
    note = {"key": plan.key, "facts": plan.facts}
    (site / "horovod" / installed.NOTE).write_text(json.dumps(note, indent=2) + "\n")
    record = site / f"horovod-{distribution.version}.dist-info" / "RECORD"
    with record.open("a") as file:
        file.write(f"horovod/{installed.NOTE},,\n")
    forget()


def forget() -> None:
    """Look at the files again: an install has changed them."""
    installed.find.cache_clear()
    importlib.invalidate_caches()


def _own_paths(site: Path) -> list[Path]:
    """Top folders and scripts of the Horovod in `site`, [] where there is none.

    One that shows through from outside (a virtual environment's base) is
    neither replaced by pip nor ours to move.
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
def put_back_on_failure(site: Path) -> Iterator[None]:
    """Keep a copy of the Horovod in `site`; if what follows fails, put it back.

    Where none was installed, a failure leaves none.
    """
    before = _own_paths(site)
    with tempfile.TemporaryDirectory(prefix="hvdtools-") as folder:
        copies = [(path, Path(folder) / str(number)) for number, path in enumerate(before)]
        for path, copy in copies:
            _copy(path, copy)
        try:
            yield
        except BaseException:
            forget()
            for path in _own_paths(site):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path, copy in copies:
                _copy(copy, path)
            forget()
            raise
