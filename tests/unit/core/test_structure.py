"""Limits on the size of files and folders, and documentation of what is public."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hvdtools

PACKAGE_ROOT = Path(hvdtools.__file__).parent
MOST_FILES, MOST_LINES = 20, 400


def python_files() -> list[Path]:
    """Those of hvdtools; benchmarks/, to which hvdtools/bench/programs links, is not part of it."""
    return [
        file
        for file in PACKAGE_ROOT.rglob("*.py")
        if "programs" not in file.relative_to(PACKAGE_ROOT).parts
    ]


FOLDERS = sorted({str(file.parent.relative_to(PACKAGE_ROOT)) for file in python_files()})


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_has_few_files_and_a_docstring(folder: str) -> None:
    count = len(list((PACKAGE_ROOT / folder).glob("*.py")))
    assert count <= MOST_FILES
    assert ast.get_docstring(ast.parse((PACKAGE_ROOT / folder / "__init__.py").read_text()))


def test_files_are_short() -> None:
    lengths = {
        str(file.relative_to(PACKAGE_ROOT)): len(file.read_text().splitlines())
        for file in python_files()
    }
    assert not {name for name, lines in lengths.items() if lines > MOST_LINES}


def definition(module: str, name: str) -> ast.AST | None:
    """The function or class `name` of a module; None if it defines neither."""
    file = PACKAGE_ROOT.parent / Path(*module.split(".")).with_suffix(".py")
    file = file if file.exists() else file.with_suffix("") / "__init__.py"
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
    return None


def public_definitions(adapter: str) -> Iterator[tuple[str, ast.AST | None]]:
    """(name, definition) of what an adapter exports."""
    tree = ast.parse((PACKAGE_ROOT / adapter / "__init__.py").read_text())
    (exported,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    sources = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for name in exported:
        yield name, definition(*sources[name])


@pytest.mark.parametrize("adapter", ["torch", "keras", "tensorflow"])
def test_what_an_adapter_exports_is_documented(adapter: str) -> None:
    undocumented = []
    for name, node in public_definitions(adapter):
        assert isinstance(node, ast.FunctionDef | ast.ClassDef), name
        members = node.body if isinstance(node, ast.ClassDef) else []
        methods = [
            member
            for member in members
            if isinstance(member, ast.FunctionDef) and not member.name.startswith("_")
        ]
        undocumented += [
            f"{name} {each.name}" for each in (node, *methods) if not ast.get_docstring(each)
        ]
    assert undocumented == []
