"""Tables and messages of the documentation are those of the code."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest
from paths import PROJECT

from hvdtools.launch import launchers, schedulers

PAGES = PROJECT / "docs" / "pages"
PACKAGE = PROJECT / "hvdtools"
VARIABLE = re.compile(r"\b((?:HVDTOOLS|HOROVOD)_[A-Z][A-Z0-9_]*)")


def sources() -> list[Path]:
    """The package and the launch scripts, without the benchmark programs linked into it."""
    linked = (PACKAGE / "bench" / "programs", PACKAGE / "launch" / "scripts")
    files = [file for file in PACKAGE.rglob("*") if not any(file.is_relative_to(x) for x in linked)]
    files += (PROJECT / "launch").iterdir()
    return [
        file
        for file in files
        if file.is_file() and file.suffix not in (".pyc", ".json") and "pycache" not in str(file)
    ]


def test_the_table_of_environment_variables_is_complete() -> None:
    named = {
        f"{name}*" if name.endswith("_") else name
        for file in sources()
        for name in VARIABLE.findall(file.read_text(encoding="utf-8"))
    }
    rows = re.findall(r"^\| `(\w+\*?)` \|", (PAGES / "environment.md").read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert {name for name in rows if VARIABLE.match(name)} == named


def test_the_table_of_packages_is_that_of_the_import_test() -> None:
    rules = runpy.run_path(str(PROJECT / "tests" / "unit" / "core" / "test_imports.py"))
    text = (PAGES / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", text, re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", imports)) for name, imports in rows}
    assert documented == rules["MAY_IMPORT"]


def messages() -> list[str]:
    """The strings of the package without docstrings; "…" stands for a value."""

    def text_of(node: ast.expr) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            return "".join(text_of(part) for part in node.values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return text_of(node.left) + text_of(node.right)
        return "…"

    trees = [ast.parse(file.read_text()) for file in sources() if file.suffix == ".py"]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return [
        text_of(node)
        for node in nodes
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp) and id(node) not in docstrings
    ]


MESSAGES = messages()
TROUBLES = re.findall(r"^### `(.*)`$", (PAGES / "troubleshooting.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_every_message_in_troubleshooting_is_in_the_code(trouble: str) -> None:
    pattern = re.compile(".*".join(re.escape(part) for part in trouble.split("…")))
    assert any(pattern.search(message) for message in MESSAGES)


@pytest.mark.parametrize(
    ("page", "packages"),
    [
        ("pytorch.md", ["torch"]),
        ("keras.md", ["keras", "tensorflow"]),
        ("data.md", ["torch", "keras"]),
        ("launching/slurm.md", ["torch", "keras"]),
    ],
)
def test_names_in_the_guides_are_public(page: str, packages: list[str]) -> None:
    public: set[str] = set()
    for package in packages:
        for node in ast.parse((PACKAGE / package / "__init__.py").read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                public |= set(ast.literal_eval(node.value))
    named = set(re.findall(r"\bhvt\.(\w+)", (PAGES / page).read_text()))
    assert named and named <= public


@pytest.mark.parametrize(
    "page", [*sorted(PAGES.rglob("*.md")), PROJECT / "README.md"], ids=lambda page: page.stem
)
def test_modules_in_the_text_exist(page: Path) -> None:
    """Each `hvdtools.a.b`, where the last part may be a public name of the package before it."""
    groups = {schedulers.REGISTRY.group, launchers.REGISTRY.group}
    for name in re.findall(r"`(hvdtools(?:\.\w+)+)(?:\(\))?`", page.read_text()):
        if name in groups:  # of entry points
            continue
        path = PROJECT.joinpath(*name.split("."))
        package = path.parent / "__init__.py"
        public = package.exists() and f'"{path.name}"' in package.read_text()
        assert path.is_dir() or path.with_suffix(".py").exists() or public, name
