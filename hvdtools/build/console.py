"""What a build prints: what was found and built, how far it is, and the dry run."""

from __future__ import annotations

import contextlib
import re
import shlex
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hvdtools.build.environment import Environment
from hvdtools.build.plan import BuildPlan
from hvdtools.core.installed import InstalledHorovod

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def found_table(env: Environment, plan: BuildPlan) -> Table:
    """What is here, and what will be built for it."""
    python = f"{env.python.tag} {env.python.platform} ({env.python.executable})"
    compiler = f"{env.compiler.command} {env.compiler.version}" if env.compiler else "none"
    rows = [("Python", python, ""), ("C++ compiler", compiler, "")]
    for name in ("torch", "tensorflow"):
        framework = env.framework(name)
        chosen = any(name == built.name for built in plan.frameworks)
        here = f"{framework.version} ({_cuda(framework.cuda)})" if framework else "not installed"
        rows.append((name, here, "yes" if chosen else "no"))
    mpi = f"{env.mpi.flavour} {env.mpi.version} ({env.mpi.mpicxx})" if env.mpi else "no mpicxx"
    rows += [
        ("MPI controller", mpi, "yes" if env.mpi else "no"),
        ("Gloo controller", "comes with Horovod", "yes"),
        ("CUDA", f"nvcc {env.cuda.version} ({env.cuda.home})" if env.cuda else "no nvcc", ""),
        ("NCCL", env.nccl.version if env.nccl else "not found", ""),
        ("GPUs", gpus(env), _archs(plan)),
        ("GPU operations", _reason(plan), "NCCL" if plan.gpu.operations == "nccl" else "none"),
        ("XLA ops", *xla(plan)),
    ]
    return _table(("", "here", "to build"), rows)


def _table(columns: tuple[str, ...], rows: list[tuple[str, str, str]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Text, not markup: a path may hold brackets.
        table.add_row(*(Text(cell) for cell in row))
    return table


def _cuda(version: str | None) -> str:
    return f"CUDA {version}" if version else "CPU build"


def _archs(plan: BuildPlan) -> str:
    return ", ".join(f"sm_{arch}" for arch in plan.gpu.archs)


def _reason(plan: BuildPlan) -> str:
    through = "; GPU tensors go through the host" if plan.gpu.compiles_cuda else ""
    return f"{plan.gpu.reason}{through}" if plan.gpu.reason else "all that NCCL needs is here"


def xla(plan: BuildPlan) -> tuple[str, str]:
    """(why, "yes" or "no"): whether XLA-compiled TensorFlow steps can use Horovod."""
    tensorflow = next((built for built in plan.frameworks if built.name == "tensorflow"), None)
    if tensorflow is None:
        return "TensorFlow is not built for", "no"
    if not tensorflow.xla_headers:
        return f"TensorFlow {tensorflow.version} lacks their headers: jit_compile=False", "no"
    if plan.gpu.operations != "nccl":
        return "Horovod has them only for GPUs", "no"
    return "TensorFlow has their headers", "yes"


def gpus(env: Environment) -> str:
    """The GPUs here, counted by name: "2 x NVIDIA H200"."""
    names = [gpu.name for gpu in env.gpus]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "none"


def script(plan: BuildPlan) -> str:
    """The whole build as a shell script, in a subshell that keeps its variables to itself."""
    built_for = ", ".join(f"{built.name} {built.version}" for built in plan.frameworks)
    lines = [
        f"# Horovod for {built_for}; controllers: {', '.join(plan.controllers)}; "
        f"GPU operations: {plan.gpu.operations}",
        "(",
        "set -e",
        "unset $(env | sed -n 's/^\\(HOROVOD_[A-Z0-9_]*\\)=.*/\\1/p')",
        *(f"export {name}={shlex.quote(value)}" for name, value in plan.environment.items()),
        *(shlex.join(step.argv) for step in plan.steps),
        ")",
    ]
    return "\n".join(lines)


def summary(horovod: InstalledHorovod) -> str:
    """One line: "Horovod 0.28.1 for torch 2.13.0+cpu; mpi, gloo; no NCCL"."""
    built_for = ", ".join(f"{name} {version}" for name, version in horovod.built_for.items())
    nccl = "NCCL" if horovod.nccl else "no NCCL"
    return f"Horovod {horovod.version} for {built_for}; {', '.join(horovod.controllers)}; {nccl}"


def facts_table(horovod: InstalledHorovod, env: Environment) -> Table:
    """What was built, and what is on this machine."""
    built_for = ", ".join(f"{name} {version}" for name, version in horovod.built_for.items())
    nccl = f"built in; {env.nccl.version} here" if horovod.nccl and env.nccl else "not built in"
    rows = [
        ("Horovod", horovod.version, str(horovod.folder)),
        ("built for", built_for, ""),
        ("controllers", ", ".join(horovod.controllers), ""),
        ("NCCL", nccl, ""),
        ("MPI", f"{env.mpi.flavour} {env.mpi.version}" if env.mpi else "none", ""),
        ("GPUs", gpus(env), ""),
    ]
    return _table(("", "", ""), rows)


# make's own "[ 42%] Building CXX object horovod/torch/.../operations.cc.o"
_PERCENT = re.compile(r"^\s*\[\s*(\d+)%\]\s*(.*)")
_PLAIN_EVERY_PERCENT = 10


def percent(line: str) -> int | None:
    """The progress in a line of the output of make, or None."""
    found = _PERCENT.match(line)
    return int(found.group(1)) if found else None


@contextlib.contextmanager
def show_progress(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Show a running step; the yielded function takes each line of its output."""
    if console.is_terminal:
        with _bar(console, title) as feed:
            yield feed
    else:
        console.print(f"{title} ...", highlight=False)
        yield _plain(console)


@contextlib.contextmanager
def _bar(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[done]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None, done="")

        def feed(line: str) -> None:
            done = percent(line)
            if done is not None:
                progress.update(task, total=100, completed=done, done=f"{done:3d}%")

        yield feed


def _plain(console: Console) -> Callable[[str], None]:
    start_s = time.monotonic()
    reached = 0

    def feed(line: str) -> None:
        nonlocal reached
        done = percent(line)
        if done is not None and done >= reached + _PLAIN_EVERY_PERCENT:
            reached = done - done % _PLAIN_EVERY_PERCENT
            elapsed_s = time.monotonic() - start_s
            console.print(f"  {done:3d} %  {elapsed_s:5.0f} s", highlight=False)

    return feed
