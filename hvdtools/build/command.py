"""`hvdtools build`: builds, tests and keeps Horovod for the frameworks of this environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.renamed import new_value

if TYPE_CHECKING:
    from rich.console import Console

    from hvdtools.build.environment import Environment
    from hvdtools.build.plan import BuildPlan
    from hvdtools.build.sdist import Sdist


def build(
    frameworks: Annotated[
        str,
        typer.Option(help="Build for these, torch,tensorflow. Default: all that are installed."),
    ] = "",
    gpu: Annotated[
        str, typer.Option(help="How GPU tensors are reduced: auto, nccl or none.")
    ] = "auto",
    cuda_arch: Annotated[
        str,
        typer.Option(
            help="Compute capabilities to compile for, 80,90. Default: those of the GPUs here."
        ),
    ] = "",
    sdist: Annotated[
        Path | None, typer.Option(help="The source archive of Horovod, instead of a download.")
    ] = None,
    wheel_dir: Annotated[
        Path | None,
        typer.Option(help="A folder of wheels and the source of Horovod, if there is no network."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Parallel compilers. Default: one per core.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build again even if a wheel is kept.")
    ] = False,
    smoke_test: Annotated[
        bool, typer.Option("--smoke-test", help="Test it even if it is up to date.")
    ] = False,
    prove: Annotated[bool, typer.Option("--prove", hidden=True)] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands and stop.")
    ] = False,
) -> None:
    """Build Horovod for the PyTorch and TensorFlow installed here, and test it.

    The wheel is kept: another environment with the same versions only installs it.
    """
    from rich.console import Console

    from hvdtools.build.console import script
    from hvdtools.build.detect import detect
    from hvdtools.build.plan import Options, make_plan
    from hvdtools.build.sdist import locate
    from hvdtools.build.wheel import cache_folder

    test_again = new_value("--prove", prove or None, "--smoke-test", smoke_test or None)
    cache = cache_folder()
    source = locate(sdist, wheel_dir, cache)
    options = Options(
        cache=cache,
        frameworks=_split(frameworks),
        gpu=gpu,
        cuda_arch=_split(cuda_arch),
        wheel_dir=wheel_dir.resolve() if wheel_dir else None,
        jobs=jobs,
    )
    env = detect()
    plan = make_plan(options, env, source)
    if dry_run:
        typer.echo(script(plan))
        return
    console = Console()
    if not force and _up_to_date(plan, env, console, test_again=bool(test_again)):
        return
    _build(plan, env, source, console, force=force)


def _split(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _up_to_date(plan: BuildPlan, env: Environment, console: Console, *, test_again: bool) -> bool:
    from hvdtools.build import smoke_test
    from hvdtools.build.console import summary
    from hvdtools.build.wheel import installed_key
    from hvdtools.core import installed

    horovod = installed.find()
    if horovod is None or installed_key() != plan.key:
        return False
    if test_again:
        smoke_test.run_smoke_tests(plan, env, console)
    console.print(f"up to date: {summary(horovod)}", highlight=False, soft_wrap=True)
    return True


def _build(
    plan: BuildPlan, env: Environment, source: Sdist, console: Console, *, force: bool
) -> None:
    from hvdtools.build import smoke_test, wheel
    from hvdtools.build.console import facts_table, found_table
    from hvdtools.core import installed

    console.print(found_table(env, plan))
    kept = plan.wheel.exists() and not force
    what = f"using the kept wheel {plan.wheel}" if kept else f"log: {plan.log}"
    console.print(what, markup=False, highlight=False, soft_wrap=True)
    before = installed.find()
    try:
        wheel.prepare_wheel(plan, source, force=force, console=console)
        with wheel.keep_only_if_it_works(plan), wheel.restore_on_failure(env.python.site):
            wheel.install_wheel(plan, console)
            wheel.record(plan, env.python.site)
            smoke_test.run_smoke_tests(plan, env, console)
    except HvdtoolsError as error:
        state = f"Horovod {before.version} is unchanged" if before else "Horovod is not installed"
        raise HvdtoolsError(f"{error} {state}.") from None
    horovod = installed.find()
    assert horovod is not None
    console.print(facts_table(horovod, env))
