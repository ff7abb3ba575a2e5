"""launch/Dockerfile and launch/apptainer.def: nothing here builds them, so read them closely."""

from __future__ import annotations

import fnmatch
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from configparser import ConfigParser
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from script_checks import ROOT, check_hvdtools_calls, check_shell, check_words, make_default

DOCKERFILE = ROOT / "launch" / "Dockerfile"
DEFINITION = (ROOT / "launch" / "apptainer.def").read_text()
MPIJOB = yaml.safe_load((ROOT / "launch" / "mpijob.yaml").read_text())
# https://apptainer.org/docs/user/main/definition_files.html
HEADERS = {"Bootstrap", "From", "Stage"}
SECTIONS = {"arguments", "files", "post", "environment", "test", "runscript", "labels", "help"}


def instructions(*kinds: str) -> list[str]:
    """The values of all instructions of these kinds, continuation lines joined."""
    parser = DockerfileParser(fileobj=DOCKERFILE.open("rb"))
    return [each["value"] for each in parser.structure if each["instruction"] in kinds]


def docker_arguments() -> dict[str, str]:
    pairs = [text.partition("=") for text in instructions("ARG")]
    return {name: value for name, _, value in pairs}


def docker_scripts() -> list[str]:
    return [re.sub(r"--mount=\S+\s+", "", text) for text in instructions("RUN")]


def sections() -> Iterator[tuple[str, str]]:
    """(name, text) of each section of the definition file; "header" for what is before them."""
    for stage in re.split(r"^(?=Bootstrap:)", DEFINITION, flags=re.MULTILINE)[1:]:
        header, *rest = re.split(r"^%", stage, flags=re.MULTILINE)
        yield "header", header
        for section in rest:
            first, _, text = section.partition("\n")
            yield first, text


def section_texts(name: str) -> list[str]:
    return [text for first, text in sections() if first.split()[0] == name]


def definition_arguments() -> dict[str, str]:
    (text,) = section_texts("arguments")
    pairs = [line.strip().partition("=") for line in text.splitlines() if line.strip()]
    return {name: value for name, _, value in pairs}


def filled(script: str) -> str:
    values = definition_arguments()
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: values[found[1]], script)


def definition_scripts() -> list[str]:
    return [filled(text) for name in ("post", "environment", "test", "runscript")
            for text in section_texts(name)]  # fmt: skip


@pytest.mark.parametrize("script", [*docker_scripts(), *definition_scripts()])
def test_scripts_are_shell(script: str) -> None:
    check_shell(f"{script}\n")


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="there is no hadolint here")
def test_hadolint_finds_no_fault() -> None:
    done = subprocess.run(["hadolint", DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_command_has_the_options_that_are_used() -> None:
    assert sum(map(check_hvdtools_calls, docker_scripts())) == 1
    assert sum(map(check_hvdtools_calls, section_texts("post"))) == 1
    (command,) = instructions("CMD")
    program, *words = yaml.safe_load(command)
    assert program == "hvdtools"
    check_words(words)
    (said,) = section_texts("help")
    assert check_hvdtools_calls(said) == 1


def test_both_build_the_same_with_the_versions_of_the_makefile() -> None:
    docker, definition = docker_arguments(), definition_arguments()
    assert {name: docker[name] for name in definition} == definition
    for name in ("TORCH", "TENSORFLOW"):
        assert docker[name] == make_default(name)


def test_every_argument_is_used_and_known() -> None:
    text = DOCKERFILE.read_text()
    for name in docker_arguments().keys() - {"DEBIAN_FRONTEND", "PIP_EXTRA_INDEX_URL"}:
        assert f"${{{name}" in text, f"{name} is not used"
    used = set(re.findall(r"\{\{ (\w+) \}\}", DEFINITION))
    assert used == set(definition_arguments())
    for name in re.findall(r"--build-arg (\w+)=", text + DEFINITION):
        assert name in docker_arguments()


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    lines = (ROOT / "launch" / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = set()
    for text in instructions("COPY"):
        words = [word for word in shlex.split(text) if not word.startswith("--")]
        if "--from=" in text:
            assert re.search(r"--from=(\w+)", text)[1] in re.findall(  # type: ignore[index]
                r" AS (\w+)", DOCKERFILE.read_text()
            )
        else:
            copied |= set(words[:-1])
    from_host = [text for first, text in sections() if first == "files"]
    listed = {line.split()[0] for text in from_host for line in text.splitlines() if line.strip()}
    assert copied == listed == allowed
    assert all((ROOT / name).exists() for name in copied)
    ignored = [line for line in lines if not line.startswith(("#", "!", "*"))]
    assert not any(fnmatch.fnmatch(name, line) for name in copied for line in ignored)


def test_what_the_package_is_made_of_is_copied() -> None:
    """setup.cfg names files, and two folders of the package are links."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    copied = " ".join(instructions("COPY")).split()
    for file in (
        config["metadata"]["long_description"].removeprefix("file: "),
        config["metadata"]["license_files"],
    ):
        assert file in copied
    for link in (ROOT / "hvdtools").rglob("*"):
        if link.is_symlink():
            assert link.resolve().relative_to(ROOT).parts[0] in copied


def test_the_extras_exist() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    asked = re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE.read_text() + DEFINITION)
    assert len(asked) == 2
    for extras in asked:
        assert set(extras.split(",")) <= set(config["options.extras_require"])


def pod(role: str) -> dict[str, Any]:
    found: dict[str, Any] = MPIJOB["spec"]["mpiReplicaSpecs"][role]["template"]["spec"]
    return found


def test_the_image_is_what_the_mpijob_asks_for() -> None:
    scripts = "\n".join(docker_scripts())
    user = pod("Worker")["securityContext"]["runAsUser"]
    home = MPIJOB["spec"]["sshAuthMountPath"].removesuffix("/.ssh")
    name = home.removeprefix("/home/")
    assert re.search(rf"useradd --create-home --uid {user} .*{name}", scripts)
    (container,) = pod("Worker")["containers"]
    port = container["startupProbe"]["tcpSocket"]["port"]
    assert f"-p {port} " in container["command"][-1] and f"'Port {port}'" in scripts
    assert "openssh-server" in scripts and "openssh-client" in scripts
    assert f"ARG RUN_AS={name}" in DOCKERFILE.read_text()
    # The launcher's mpirun and python are those of the environment on PATH.
    assert instructions("ENV")[-1] == "PATH=/opt/hvdtools/bin:$PATH"


def test_the_definition_file_has_known_sections() -> None:
    for first, text in sections():
        if first == "header":
            keys = {line.partition(":")[0] for line in text.splitlines() if line.strip()}
            assert keys == HEADERS
        else:
            name, *words = first.split()
            assert name in SECTIONS
            assert words in ([], ["from", "build"])
    assert re.findall(r"^Stage: (\w+)", DEFINITION, re.MULTILINE) == ["build", "final"]
