"""A tree as YAML that every reader takes for the same tree."""

from __future__ import annotations

import re
from typing import Any

import yaml

# kubectl's reader knows more words and numbers than PyYAML, which writes `y` and `1e3` bare.
# What begins with a letter and is none of these is text to all of them.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9./_-]*")
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, None if is_plain else '"')


_Dumper.add_representer(str, _represent)


def to_yaml(tree: dict[str, Any]) -> str:
    """The tree as one YAML document; texts that could be read as anything else are quoted."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9)
