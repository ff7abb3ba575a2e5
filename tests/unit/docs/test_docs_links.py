"""The documentation builds without a warning, and no relative link or anchor is broken."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import PROJECT

DOCS = PROJECT / "docs"
ROOT_PAGES = [PROJECT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
PAGES = [*ROOT_PAGES, *sorted((DOCS / "pages").rglob("*.md"))]


def links_of(page: Path) -> list[str]:
    """The targets of a page's links and images, without those to other servers."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as the generator makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors_of(target), f"{page.name} links to {link}"


def test_the_documentation_builds_strictly(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(
        [*command, "--config-file", str(DOCS / "mkdocs.yml")], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    for package in ("torch", "keras", "tensorflow"):
        page = (tmp_path / "api" / f"{package}.html").read_text()
        code = (PROJECT / "hvdtools" / package / "__init__.py").read_text()
        exported = re.search(r"__all__ = \[(.*?)\]", code, re.DOTALL)
        assert exported
        for name in re.findall(r'"(\w+)"', exported[1]):
            assert re.search(rf'<h2 id="hvdtools\.[\w.]*{name}"', page), f"{package}: {name}"
    pytorch = (tmp_path / "pytorch.html").read_text()
    assert "<!-- diff" not in pytorch and "<!-- file" not in pytorch


def test_pages_that_the_code_refers_to_exist() -> None:
    names = {page.name for page in PAGES} | {"METHOD.md", "PERFORMANCE.md"}  # nccl-tests has one
    folders = [PROJECT / folder for folder in ("hvdtools", "benchmarks", "launch", "tests")]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    for file in files:
        if file.suffix in (".py", ".conf", ".toml", ".sh", ".sbatch", ".md", ".yaml", ".def"):
            text = file.read_text()
            for path in re.findall(r"docs/pages/[\w/-]+\.md", text):
                assert (PROJECT / path).exists(), f"{file} refers to {path}"
            for name in re.findall(r"\b([A-Z]{4,}\.md)\b", text):
                assert name in names, f"{file} refers to {name}"


def test_the_figure_is_that_of_the_report() -> None:
    """`python docs/figure.py` makes it anew."""
    spec = importlib.util.spec_from_file_location("figure", DOCS / "figure.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.FIGURE.read_text() == module.figure(module.REPORT.read_text())
