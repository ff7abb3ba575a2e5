"""Software of a host: Horovod, the frameworks, the controllers and MPI."""

from __future__ import annotations

from collections.abc import Iterator

from hvdtools.build.environment import Framework
from hvdtools.build.smoke_test import CONTROLLER_NAMES
from hvdtools.core.mpi import Mpirun
from hvdtools.doctor.facts import FrameworkImport, Horovod, HostFacts
from hvdtools.doctor.findings import Finding, error, ok, warning
from hvdtools.doctor.known_errors import explain, shortened

_BUILD = "run `hvdtools build`"
_VARIABLES = ("HOROVOD_CONTROLLER", "HOROVOD_CPU_OPERATIONS")


def horovod(facts: HostFacts) -> Iterator[Finding]:
    """Horovod is installed, with its requirements, for a framework that is installed."""
    names = [framework.name for framework in facts.frameworks]
    if not names:
        remedy = f"install PyTorch or TensorFlow, then {_BUILD}"
        yield error("Horovod", "neither torch nor tensorflow is installed in this Python", remedy)
    elif facts.horovod is None:
        yield error("Horovod", "Horovod is not installed in this Python", _BUILD)
    if facts.horovod is None:
        return
    built_for = facts.horovod.installed.built_for
    if names and not set(names) & set(built_for):
        yield error(
            "Horovod",
            f"Horovod was built for {_listed(built_for) or 'no framework'}, and "
            f"{_listed(names)} is installed",
            _BUILD,
        )
    elif gone := [name for name in built_for if name not in names]:
        yield warning(
            "Horovod", f"Horovod was also built for {_listed(gone)}, which is not installed"
        )
    if facts.horovod.missing:
        wanted = " ".join(f"'{text}'" for text in facts.horovod.missing)
        yield error("Horovod", f"Horovod needs {wanted}", f"run `pip install {wanted}`")
    elif names:
        yield ok("Horovod", "Horovod is installed, with the packages that it needs")


def frameworks(facts: HostFacts) -> Iterator[Finding]:
    """Each framework loads, and Horovod for it."""
    for framework in facts.frameworks:
        yield from _framework(framework, facts.horovod, facts.load(framework.name))


def _framework(
    framework: Framework, horovod: Horovod | None, load: FrameworkImport | None
) -> Iterator[Finding]:
    name = framework.name
    failed = load is not None and load.complaint != ""
    if load is not None and failed and load.module == name:
        meaning, remedy = explain(load.complaint)
        message = _failure(f"`import {name}` fails", meaning, load.complaint)
        yield error(name, message, _own_remedy(name, remedy))
        return
    built_for = horovod.installed.built_for.get(name) if horovod else None
    if horovod is None:
        yield ok(name, f"{name} loads")
    elif built_for is None:
        # If Horovod supports no installed framework, the Horovod row says so.
        yield warning(name, f"Horovod was built without {name}", _BUILD)
    elif built_for != framework.version:
        message = (
            f"Horovod was built for {name} {built_for}, and {name} {framework.version} is "
            f"installed: the two do not fit (ABI mismatch)"
        )
        detail = f"; importing them: {shortened(load.complaint)}" if load and failed else ""
        yield error(name, message + detail, _BUILD)
    elif load is not None and failed:
        meaning, remedy = explain(load.complaint)
        message = _failure(f"`import {load.module}` fails", meaning, load.complaint)
        yield error(name, message, remedy or "run `hvdtools build --force`")
    else:
        yield ok(name, f"horovod.{name} loads, built for this version")


def _failure(what: str, meaning: str, complaint: str) -> str:
    because = f": {meaning}" if meaning else ""
    return f"{what}{because}: {shortened(complaint)}"


def _own_remedy(name: str, remedy: str) -> str:
    """What to do if the framework itself fails: rebuilding Horovod does not help."""
    if remedy and "hvdtools build" not in remedy:
        return remedy
    return f"install {name} again for this Python and this machine, then {_BUILD}"


def controllers(facts: HostFacts) -> Iterator[Finding]:
    """Horovod has the controllers that environment variables request."""
    if facts.horovod is None:
        return
    built = facts.horovod.installed.controllers
    if not built:
        yield error("controllers", "Horovod was built with neither MPI nor Gloo", _BUILD)
        return
    for variable in _VARIABLES:
        requested = facts.variables.get(variable, "").lower()
        if requested in CONTROLLER_NAMES and requested not in built:
            yield error(
                "controllers",
                f"{variable}={requested}, but Horovod was built without it",
                f"unset {variable}, or {_BUILD}",
            )
    yield ok("controllers", " and ".join(CONTROLLER_NAMES[name] for name in built))


def mpi(facts: HostFacts) -> Iterator[Finding]:
    """mpirun belongs to the MPI that Horovod was built with."""
    if facts.horovod is not None:
        yield from _mpi(facts.horovod, facts.mpi)


def _mpi(horovod: Horovod, mpi: Mpirun | None) -> Iterator[Finding]:
    gloo = "gloo" in horovod.installed.controllers
    if "mpi" not in horovod.installed.controllers:
        if mpi is not None:
            message = "mpirun is here, but Horovod was built without MPI, so ranks use Gloo"
            yield warning(
                "MPI", message, f"{_BUILD}; MPI is faster between the CPUs of one machine"
            )
        else:
            yield warning("MPI", "Horovod was built without MPI, and there is no mpirun")
        return
    if mpi is None:
        yield (warning if gloo else error)(
            "MPI",
            "Horovod was built with MPI, but there is no mpirun next to Python or on PATH",
            "run `pip install 'hvdtools[mpi]'`, or load the MPI that Horovod was built with",
        )
        return
    if horovod.mpi is None:
        yield warning("MPI", "the MPI that Horovod was built with is unknown", "check with --np 2")
        return
    if family(horovod.mpi) != family(mpi.flavour):
        yield error(
            "MPI",
            f"mpirun is from {mpi.flavour} ({mpi.path}), but Horovod was built with {horovod.mpi}: "
            "each rank would run alone and train a separate model",
            f"put the mpirun of {family(horovod.mpi)} first on PATH, or {_BUILD}",
        )
        return
    built, here = _release(horovod.mpi), mpi.release.partition(".")[0]
    if built and here and built != here:
        yield warning(
            "MPI",
            f"mpirun is {mpi.name}, but Horovod was built with {horovod.mpi}",
            f"check with `hvdtools doctor --np 2`, or {_BUILD}",
        )
        return
    yield ok("MPI", f"mpirun is from {family(horovod.mpi)}, which Horovod was built with")


def family(flavour: str) -> str:
    """The ABI family of an MPI: ranks and launchers of one family work together."""
    if flavour.startswith(("MPICH", "Intel MPI")):
        return "MPICH"
    return "Open MPI" if flavour.startswith("Open MPI") else flavour


def _release(name: str) -> str:
    """The major version of "Open MPI 5.0.11", "5"; "" if there is none."""
    digits = name.rpartition(" ")[2].partition(".")[0]
    return digits if digits.isdigit() else ""


def _listed(names: list[str] | dict[str, str]) -> str:
    return " and ".join(names)


RULES = (horovod, frameworks, controllers, mpi)
