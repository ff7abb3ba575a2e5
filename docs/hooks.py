"""Build hooks of the documentation: files and their diffs, the public API, the colors of code."""

from __future__ import annotations

import ast
import difflib
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pygments.formatters import HtmlFormatter

PROJECT = Path(__file__).parents[1]
_PAIR = re.compile(r"^<!-- diff: (examples/\w+) -->$", re.MULTILINE)
_FILE = re.compile(r"^<!-- file: ([\w./-]+) -->$", re.MULTILINE)
_STYLE = """
.wy-nav-content { max-width: 64rem; }
.wy-table-responsive table td, .wy-table-responsive table th { white-space: normal; }
.rst-content .highlight pre, .rst-content .highlight code { border: 0; margin: 0; }
.rst-content img[src$=".svg"] { max-width: 32rem; width: 100%; }
"""
_API = re.compile(r"^<!-- api: ([\w.]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace `<!-- file: PATH -->`, `<!-- diff: examples/NAME -->` and `<!-- api: PACKAGE -->`."""
    markdown = _FILE.sub(lambda found: _file(PROJECT / found[1]), markdown)
    markdown = _PAIR.sub(lambda found: _diff(PROJECT / found[1]), markdown)
    return _API.sub(lambda found: _api(found[1]), markdown)


def _file(path: Path) -> str:
    language = {".py": "python"}.get(path.suffix, path.suffix[1:])
    return f"```{language}\n{path.read_text().rstrip()}\n```"


def _diff(folder: Path) -> str:
    before, after = (
        (folder / f"{side}.py").read_text().splitlines() for side in ("before", "after")
    )
    lines = [*difflib.unified_diff(before, after, n=len(before), lineterm="")][3:]
    return "\n".join(["```diff", *lines, "```"])


def public_names(package: str) -> dict[str, str]:
    """Each name in a package's `__all__` -> how to look it up, read without importing it.

    A module of the same name (`hvdtools.torch.prepare`) hides a function of the package; then
    it is looked up where it is defined.
    """
    folder = PROJECT.joinpath(*package.split("."))
    names: list[str] = []
    origin: dict[str, str] = {}
    for node in ast.parse((folder / "__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origin[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
    hidden = {entry.stem for entry in folder.iterdir()}
    return {name: origin[name] if name in hidden else f"{package}.{name}" for name in names}


def _api(package: str) -> str:
    options = "    options:\n      show_root_heading: true\n      show_root_toc_entry: true\n"
    return "\n\n".join(
        f"::: {path}\n{options}      heading: {name}\n      toc_label: {name}\n"
        for name, path in public_names(package).items()
    )


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the style sheet of highlighted code."""
    css = HtmlFormatter(style="default").get_style_defs(".highlight")
    css += _STYLE
    files.append(File.generated(config, "pygments.css", content=css))
    return files
