"""The command `hvdtools`. Each verb lives beside the code that it calls."""

from __future__ import annotations

import sys

import typer

from hvdtools import __version__
from hvdtools.bench.command import bench
from hvdtools.build.command import build
from hvdtools.core.errors import HvdtoolsError
from hvdtools.doctor.command import doctor
from hvdtools.launch.command import launch

app = typer.Typer(
    name="hvdtools",
    help="Horovod on today's frameworks: build it, check it, launch it, measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("build")(build)
app.command("doctor")(doctor)
app.command("launch", context_settings={"allow_interspersed_args": False})(launch)
app.add_typer(bench, name="bench")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hvdtools {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Horovod on today's frameworks: build it, check it, launch it, measure it."""


def main() -> None:
    """Run the command; an error that the user can fix is one sentence and exit code 2."""
    try:
        app()
    except HvdtoolsError as error:
        typer.echo(f"hvdtools: {error}", err=True)
        sys.exit(2)
