"""The source archive of Horovod: which one to build, and whether it is intact."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path

from hvdtools.build.programs import first_match
from hvdtools.core.errors import HvdtoolsError

VERSION = "0.28.1"
SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"


@dataclass(frozen=True)
class Sdist:
    """A source archive. `present` is False if it must still be downloaded to `path`."""

    path: Path
    version: str
    sha256: str
    present: bool


def locate(requested: Path | None, wheel_dir: Path | None, cache: Path) -> Sdist:
    """The archive to build: the requested one, the one in `wheel_dir`, or that of PyPI.

    Raises:
        HvdtoolsError: The file or folder does not exist or has no intact archive of Horovod.
    """
    if requested is not None:
        if not requested.is_file():
            raise HvdtoolsError(f"--sdist: there is no file {requested}: check the path.")
        return read(requested.resolve())
    kept = cache / "sdist" / f"horovod-{VERSION}.tar.gz"
    if wheel_dir is not None:
        if not wheel_dir.is_dir():
            raise HvdtoolsError(f"--wheel-dir: there is no folder {wheel_dir}: check the path.")
        archives = sorted(wheel_dir.resolve().glob("horovod-*.tar.gz"))
        if archives:
            return read(archives[-1])
        if not kept.exists():
            raise HvdtoolsError(
                f"{wheel_dir} holds no horovod-*.tar.gz: put Horovod's source there (`pip "
                f"download --no-deps --no-binary :all: horovod=={VERSION}` on a machine with a "
                "network), or name it with --sdist."
            )
    if kept.exists() and sha256(kept) == SHA256:
        return Sdist(kept, VERSION, SHA256, present=True)
    return Sdist(kept, VERSION, SHA256, present=False)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path: Path) -> Sdist:
    """The archive at `path`.

    Raises:
        HvdtoolsError: It is not the source of Horovod, or it cannot be read.
    """
    try:
        with tarfile.open(path) as archive:
            folder = archive.getnames()[0].split("/")[0]
            file = archive.extractfile(f"{folder}/PKG-INFO")
            text = file.read().decode(errors="replace") if file else ""
    except (OSError, EOFError, KeyError, IndexError, tarfile.TarError):
        text = ""
    name, version = (first_match(rf"^{field}: (\S+)", text) for field in ("Name", "Version"))
    if name != "horovod" or version is None:
        raise HvdtoolsError(
            f"{path} is not Horovod's source archive: give the horovod-{VERSION}.tar.gz that "
            f"`pip download --no-deps --no-binary :all: horovod=={VERSION}` fetches."
        )
    return Sdist(path, version, sha256(path), present=True)
