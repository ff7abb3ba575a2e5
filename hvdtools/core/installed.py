"""The installed Horovod's build: versions and features, read without importing it.

Loading a Horovod that was built for another PyTorch fails with an undefined
symbol or worse, so everything is read from its files: the versions from the
``metadata.json`` that its build writes, the controllers from the symbols in its
library.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hvdtools.core.errors import HvdtoolsError

# framework -> (its name in Horovod's metadata.json, Horovod's library for it)
FRAMEWORKS: dict[str, tuple[str, str]] = {
    "torch": ("pytorch", "torch/mpi_lib_v2"),
    "tensorflow": ("tensorflow", "tensorflow/mpi_lib"),
}
_TENSORFLOW_DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tensorflow-gpu")

# Written by `hvdtools build` into the Horovod that it installs.
NOTE = "hvdtools.json"

_SYMBOLS = {"mpi": b"MPI_Init_thread", "gloo": b"GlooController", "nccl": b"ncclAllReduce"}


@dataclass(frozen=True)
class InstalledHorovod:
    """A Horovod found in this Python environment.

    Attributes:
        version: "0.28.1".
        folder: The installed package.
        built_for: Framework -> its version at build time, {"torch": "2.13.0+cpu"}.
        controllers: What can coordinate its ranks: "mpi", "gloo" or both.
        nccl: True if it moves GPU tensors through NCCL.
    """

    version: str
    folder: Path
    built_for: dict[str, str]
    controllers: tuple[str, ...]
    nccl: bool


def framework_version(framework: str) -> str | None:
    """The version of the installed "torch" or "tensorflow", without importing it; None if absent.

    PyTorch's version.py is more exact than its package metadata ("2.11.0+cu130", not
    "2.11.0"), and it is what Horovod's build records.
    """
    if framework == "torch":
        spec = importlib.util.find_spec("torch")
        text = _text(Path(spec.origin).parent / "version.py") if spec and spec.origin else ""
        found = re.search(r"^__version__ = ['\"]([^'\"]+)", text, re.MULTILINE)
        return found[1] if found else None
    for distribution in _TENSORFLOW_DISTRIBUTIONS:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


@functools.cache
def find() -> InstalledHorovod | None:
    """The Horovod in this environment, or None without one.

    Raises:
        HvdtoolsError: Python finds a folder of Horovod's source instead.
    """
    spec = importlib.util.find_spec("horovod")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    metadata = folder / "metadata.json"
    recorded = json.loads(metadata.read_text()) if metadata.exists() else {}
    libraries = libraries_in(folder)
    features = names_in(next(iter(libraries.values())), _SYMBOLS) if libraries else ()
    try:
        version = importlib.metadata.version("horovod")
    except importlib.metadata.PackageNotFoundError:
        raise HvdtoolsError(
            f"{folder} is a folder of Horovod's source, not an installed Horovod: remove it from "
            "PYTHONPATH, or run in another folder."
        ) from None
    return InstalledHorovod(
        version=version,
        folder=folder,
        built_for={name: recorded.get(FRAMEWORKS[name][0], "unknown") for name in libraries},
        controllers=tuple(name for name in ("mpi", "gloo") if name in features),
        nccl="nccl" in features,
    )


def note() -> dict[str, object]:
    """What `hvdtools build` recorded; {} if Horovod is absent or was built in another way."""
    horovod = find()
    if horovod is None or not (horovod.folder / NOTE).exists():
        return {}
    return dict(json.loads((horovod.folder / NOTE).read_text()))


def built_with(fact: str) -> str | None:
    """A recorded fact of the build ("mpi" -> "Open MPI 5.0.11"); None without a record."""
    facts = note().get("facts")
    value = facts.get(fact) if isinstance(facts, dict) else None
    return str(value) if value else None


def libraries_in(folder: Path) -> dict[str, Path]:
    """Framework -> Horovod's library for it, in the package's `folder`."""
    return {
        framework: library
        for framework, (_, stem) in FRAMEWORKS.items()
        for library in folder.glob(f"{stem}.*")
    }


def names_in(library: Path, symbols: Mapping[str, bytes]) -> tuple[str, ...]:
    """The keys of `symbols` with bytes that occur in the library."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return tuple(name for name, symbol in symbols.items() if text.find(symbol) >= 0)


def require(framework: str) -> InstalledHorovod:
    """The installed Horovod, checked against the installed `framework`.

    Raises:
        HvdtoolsError: Horovod is missing, lacks this framework, or was built
            for another version of it.
    """
    horovod = find()
    if horovod is None:
        raise HvdtoolsError("Horovod is not installed here: run `hvdtools build`.")
    built_for = horovod.built_for.get(framework)
    if built_for is None:
        raise HvdtoolsError(
            f"The installed Horovod {horovod.version} was built without {framework}: run "
            f"`hvdtools build --frameworks {','.join([*horovod.built_for, framework])}`."
        )
    present = framework_version(framework)
    if present is not None and present != built_for:
        raise HvdtoolsError(
            f"Horovod was built for {framework} {built_for} but {framework} {present} is "
            "installed, and the two do not fit: run `hvdtools build`."
        )
    return horovod
