"""Schedulers are independent of one another and of the rest, and a site can add its own."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from pathlib import Path

import pytest
from paths import HVDTOOLS

import hvdtools.launch
from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.options import all_options, schedulers_with
from hvdtools.launch.schedulers import REGISTRY, all_schedulers, scheduler
from hvdtools.launch.spec import JobSpec, options_of

PACKAGE = Path(hvdtools.launch.__file__).parent
TOY = """
from dataclasses import dataclass
from hvdtools.launch.plan import Submission
from hvdtools.launch.scheduler import Scheduler, own_option

@dataclass(frozen=True)
class Toy(Scheduler):
    flavor: str | None = own_option("The flavor of the nodes.", "NAME")
    name = "toy"
    title = "Toy"
    unsupported = {"restarts": "a toy breaks once"}

    def submission(self, spec, machine):
        text = f"{self.flavor}: {spec.ranks} x {' '.join(spec.command)}\\n"
        return Submission(text, ("cat",), "cat", self.name, spec.ranks, "as a toy")
"""
LAUNCH = (HVDTOOLS, "launch", "--on", "toy", "-n", "2")


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """The variables of a process that sees a site's package with a scheduler."""
    (tmp_path / "toys.py").write_text(TOY)
    metadata = tmp_path / "toys-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[hvdtools.schedulers]\ntoy = toys:Toy\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "160"}


def run(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=env, capture_output=True, text=True)


def test_a_site_adds_a_scheduler_with_an_entry_point(site: dict[str, str]) -> None:
    done = run(*LAUNCH, "--flavor", "sweet", "--dry-run", "--", "./train", env=site)
    assert (done.returncode, done.stdout) == (0, "sweet: 2 x ./train\n"), done.stderr
    done = run(*LAUNCH, "--", "./train", env=site)
    assert (done.returncode, done.stdout) == (0, "None: 2 x ./train\n"), done.stderr
    helped = run(HVDTOOLS, "launch", "--help", env=site).stdout
    assert "grid-engine, toy." in " ".join(helped.split()) and "--flavor" in helped
    done = run(*LAUNCH, "--restarts", "1", "--", "./train", env=site)
    assert done.returncode == 2 and "a toy breaks once" in done.stderr
    done = run(HVDTOOLS, "launch", "-n", "2", "--flavor", "sweet", "--", "./train", env=site)
    assert done.returncode == 2 and "--flavor is for --on toy" in done.stderr


def test_a_site_s_scheduler_that_cannot_be_imported_is_one_clear_message(
    site: dict[str, str],
) -> None:
    (Path(site["PYTHONPATH"]) / "toys.py").write_text("import no_such_module\n")
    done = run(*LAUNCH, "--", "./train", env=site)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = "'toy' is registered as toys:Toy, which cannot be imported"
    assert said in done.stderr
    done = run(HVDTOOLS, "launch", "-n", "1", "--dry-run", "--", "true", env=site)
    assert done.returncode == 0 and f"hvdtools: warning: The scheduler {said}" in done.stderr


def test_an_unknown_scheduler_lists_the_known_ones() -> None:
    with pytest.raises(
        HvdtoolsError, match=r"Unknown scheduler 'lsf': choose one of .*hosts, .*slurm"
    ):
        scheduler("lsf")


def test_every_scheduler_keeps_to_the_protocol() -> None:
    names = {option.field for option in all_options().values()}
    for each in all_schedulers():
        assert scheduler(each.name) is each and each.title and each.__doc__
        assert set(each.unsupported) <= names, each.name
        assert all(each.name in schedulers_with(option.name) for option in each.options())
    spec = JobSpec(("true",), 2, restarts=1, pass_on=("-x",), timeout_s=3.0)
    assert set(options_of(spec)) == {"command", "ranks", "restarts", "pass", "timeout"}
    assert set(options_of(spec)) <= names | {"command"}
    assert {field.name for field in dataclasses.fields(JobSpec)} >= {"on"}


def test_nothing_outside_its_own_modules_names_a_scheduler() -> None:
    """Else the next scheduler would have to be added there, too. srun is Slurm's launcher."""
    own = {name for name in REGISTRY.names() if name not in ("local", "hosts")}
    named = re.compile(rf"\b({'|'.join(own)})\b", re.IGNORECASE)
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE).parts
        if place[0] in ("schedulers", "sagemaker") or file.name == "srun.py":
            continue
        code = re.sub(r'""".*?"""|#[^\n]*', "", file.read_text(), flags=re.DOTALL)
        assert not named.search(code), f"{file.name}: {named.search(code)}"
